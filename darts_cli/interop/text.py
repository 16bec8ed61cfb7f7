"""Published state dictionaries of recurrent networks: the network, and its vocabulary."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain

from darts_cli.config import Config, TextDataConfig
from darts_cli.engine.task import DatasetInfo
from darts_cli.errors import CheckpointError
from darts_cli.genotype.types import Genotype
from darts_cli.interop.detected import DetectedNetwork, Shapes, shape_of
from darts_cli.spaces.rnn import data, text
from darts_cli.spaces.rnn.info import TextInfo

_NODE = re.compile(r"rnns\.0\._Ws\.\d+")


class TextInterop:
    """State dictionaries of the recurrent space."""

    alphas = (("alphas", "alphas_recurrent", "recurrent", "weights"),)
    """Names of the alphas of each cell, the usual one first."""
    tied = (("decoder.weight", "encoder.weight"),)
    """Second names of tensors, each with the first."""

    def holds(self, names: set[str]) -> bool:
        """Return whether these are names of such a network."""
        return "rnns.0._W0" in names

    def detect(self, shapes: Shapes) -> DetectedNetwork:
        """Return the network that tensors of these shapes belong to.

        Raises:
            CheckpointError: naming the first tensor that is missing or cannot be.
        """
        words, width = shape_of(shapes, "encoder.weight", 2)
        search = any(name.startswith("rnns.0.bn.") for name in shapes)
        kind = "a recurrent network of the search" if search else "a recurrent network"
        return DetectedNetwork(
            command="search" if search else "train",
            recipe="ptb",
            network={"width": width},
            outputs=words,
            words=f"{kind}, width {width}, {_count_nodes(shapes)} nodes, {words:,} words",
        )

    def fits(self, shapes: Shapes, genotype: Genotype) -> bool:
        """Return whether the number of nodes fits; shapes of a recurrent cell depend on no more."""
        return len(genotype.cells["recurrent"].nodes) == _count_nodes(shapes)

    def describe(
        self,
        detected: DetectedNetwork,
        config: Config,
        *,
        given: bool,  # noqa: ARG002 (the words of a network cannot be guessed)
        classes: Sequence[str] | None,
    ) -> tuple[Config, DatasetInfo, str]:
        """Find the vocabulary, which is in the text alone.

        Published code numbers the words of the training, validation and test text as they first
        appear; a training of darts those of its training text. The latter come first in both.

        Returns:
            The settings, the facts, and what was taken for granted.

        Raises:
            CheckpointError: if neither vocabulary is as large as the network's.
            DataError: if there is no such text.
        """
        settings = config.data
        if not isinstance(settings, TextDataConfig):
            raise TypeError("settings of another space given to the recurrent one")
        if classes is not None:
            raise CheckpointError("--classes: for images, expected --data with the text")
        lines = data.find(settings, complete=True)
        whole = chain.from_iterable(lines[split]() for split in text.SPLITS)
        own = text.build_vocabulary(lines["train"](), settings.min_count)
        published = text.build_vocabulary(whole, 1)
        for vocabulary in (published, own):
            if len(vocabulary) == detected.outputs:
                return config, asdict(TextInfo(vocabulary=vocabulary)), ""
        raise CheckpointError(
            f"encoder.weight: found {detected.outputs:,} words, expected the {len(published):,} of "
            f"train, valid and test of {settings.name}, or the {len(own):,} of train; "
            "name the text that it was trained on by --data"
        )


def _count_nodes(shapes: Shapes) -> int:
    return sum(bool(_NODE.fullmatch(name)) for name in shapes)
