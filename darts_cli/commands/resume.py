"""The checkpoint that a run resumes from: which one it is, and whether it fits run and data."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from darts_cli.commands.checkpoint_checks import check_hidden, check_size
from darts_cli.commands.reading import read_epoch, read_records, show_note
from darts_cli.commands.run_spec import RunSpec, check_fingerprints, read_spec, with_own_root
from darts_cli.engine.state import State
from darts_cli.engine.task import Data
from darts_cli.errors import CheckpointError, ConfigError, DataError
from darts_cli.run import checkpoint
from darts_cli.run.directory import Run
from darts_cli.runtime.ranks import Ranks


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """The checkpoint that a run resumes from."""

    run: Run
    spec: RunSpec
    file: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]
    damage: CheckpointError | None
    """Error of a newer checkpoint, which this one replaces."""

    @classmethod
    def read(cls, run: Run, words: str) -> "Saved":
        """Read the newest checkpoint of a run, or the one before if it is damaged.

        Args:
            run: The run.
            words: The command that it must be of, as `RunSpec.words` has it.

        Raises:
            CheckpointError: if neither can be read, or it is inconsistent.
            ConfigError: if the run is of another command.
        """
        file, tensors, metadata, damage = _read_newest(run)
        spec = read_spec(metadata, file)
        if spec.words != words:
            raise ConfigError(
                f"{run.path}: found a run of darts {spec.words}, expected one of darts {words}"
            )
        check_size(spec, metadata["facts"], tensors, file)
        check_hidden(spec, tensors, metadata, file)
        spec = replace(spec, config=with_own_root(spec.config, run.path))
        return cls(run=run, spec=spec, file=file, tensors=tensors, metadata=metadata, damage=damage)

    def check_counts(self, data: Data) -> None:
        """Check that the data has as many examples as when the run began.

        Raises:
            DataError: if it has not.
        """
        spec, counts = self.spec, data.counts
        unit = spec.task.describe(spec.config, data.describe()).unit
        for split, number in self.metadata["counts"].items():
            found = counts.get(split, 0)
            if found != number:
                raise DataError(
                    f"{spec.config.data.name}: found {found:,} {split} {unit}s, expected the "
                    f"{number:,} that the run began with; give it that data, or start a new run"
                )

    def check_content(self, data: Data) -> None:
        """Check that the splits read so far are those of the run.

        Raises:
            DataError: naming the first split that differs.
        """
        remedy = "go on with that data, or start a new run"
        check_fingerprints(self.spec, data, self.metadata, remedy)

    def rewind(self, state: State, ranks: Ranks) -> None:
        """Drop from the run's files what is newer than the checkpoint; rank 0 does.

        Raises:
            CheckpointError: if the run's metrics or newest alphas cannot be read: it would resume
                as if they had never been.
        """
        run, space, epochs = self.run, self.spec.task.space, state.position.epoch
        read_records(run, space)
        alphas = run.alphas_of(epochs)
        if self.spec.search and alphas.is_file():
            read_epoch(run, space, alphas)
        # All ranks have read before one of them writes.
        ranks.barrier()
        if not ranks.is_main:
            return
        if self.damage is not None:
            run.put_previous_first()
            where = f"epoch {state.position.epoch + 1}, step {state.position.step}"
            show_note(
                f"{self.damage.located}; kept as {run.damaged.name}, "
                f"and gone on from the checkpoint before it: {where}"
            )
        run.keep_metrics(epochs)


def _read_newest(
    run: Run,
) -> tuple[Path, dict[str, Tensor], dict[str, Any], CheckpointError | None]:
    """Read the newest checkpoint that can be read, with the error of a newer one.

    Raises:
        CheckpointError: of the newest one, if there is none before it, or it must not be replaced.
    """
    if not (run.last.exists() or run.previous.exists()):
        raise CheckpointError(
            f"{run.path}: found no checkpoint in it yet; start that run again with --out {run.path}"
        )
    if run.last.exists() and not os.access(run.last, os.R_OK):
        # It is not damaged: the one before must not take its place.
        raise CheckpointError(
            f"{run.last}: cannot be read (Permission denied); see that you may read it"
        )
    try:
        return run.last, *checkpoint.read(run.last), None
    except CheckpointError as error:
        try:
            return run.previous, *checkpoint.read(run.previous), error
        except CheckpointError:
            raise error from None
