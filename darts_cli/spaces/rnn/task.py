"""Language modelling as a task for the engine."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from darts_cli.config import Config, RecurrentNetworkConfig, TextDataConfig
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, DatasetInfo, Description, Task, TrainingModule
from darts_cli.errors import ConfigError
from darts_cli.genotype.types import Genotype
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks
from darts_cli.space import SearchSpace
from darts_cli.spaces.rnn import data
from darts_cli.spaces.rnn.cells import DiscreteCell, RecurrentCell, SearchCell
from darts_cli.spaces.rnn.data import TextData
from darts_cli.spaces.rnn.info import TextInfo
from darts_cli.spaces.rnn.language_model import LanguageModel, TextOutput
from darts_cli.spaces.rnn.loader import IGNORED
from darts_cli.spaces.rnn.primitives import RNN


class TextTrainingModule(TrainingModule[TextOutput]):
    """A language model with its cross-entropy a word, in nats."""

    network: LanguageModel

    def forward(self, batch: Batch, mixture: Mixture) -> TextOutput:
        """Read words `[T, B]`, and predict those after them."""
        output: TextOutput = self.network(batch.inputs, batch.targets, batch.hidden, mixture)
        return output

    def loss(self, output: TextOutput, batch: Batch) -> Tensor:
        """The mean cross-entropy of a word."""
        return output.nll_sum / (batch.targets != IGNORED).sum()

    def training_loss(self, output: TextOutput, batch: Batch) -> Tensor:
        """The cross-entropy, with the activation and slowness of the cell's output."""
        config = self.network.config
        states, dropped = output.states, output.dropped
        loss = self.loss(output, batch)
        if config.activation:
            loss = loss + config.activation * dropped.square().mean()
        # A segment of one word has no change of state.
        if config.slowness and len(states) > 1:
            loss = loss + config.slowness * (states[1:] - states[:-1]).square().mean()
        return loss

    @torch.no_grad()
    def metric_sums(self, output: TextOutput, batch: Batch) -> Tensor:
        """The sum of the cross-entropies and the number of predicted words: `[2]`."""
        count = (batch.targets != IGNORED).sum()
        return torch.stack([output.nll_sum, count.to(output.nll_sum)])

    def summarize(self, means: Mapping[str, float]) -> dict[str, float]:
        """The loss, its perplexity, and the same in bits a word."""
        if "loss" not in means:
            return {}
        loss = means["loss"]
        perplexity = math.exp(loss) if loss < math.log(2) * 1000 else math.inf
        return {"loss": loss, "perplexity": perplexity, "bits_per_word": loss / math.log(2)}


class TextTask(Task):
    """The recurrent space with its networks and text."""

    data_names = frozenset(data.CORPORA)
    evaluation_splits = ("valid", "test")

    def __init__(self, space: SearchSpace = RNN) -> None:
        super().__init__(space)

    def load(
        self,
        config: Config,
        device: torch.device,
        *,
        search: bool,
        info: DatasetInfo | None = None,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> TextData:
        """Read the text; see `data.load`."""
        known = None if info is None else TextInfo.from_json(info)
        return data.load(
            _settings(config)[0], device=device, search=search, info=known, ranks=ranks
        )

    def check_info(self, info: DatasetInfo) -> None:
        """See `Task.check_info`."""
        TextInfo.from_json(info)

    def build(
        self, config: Config, info: DatasetInfo, genotype: Genotype | None
    ) -> TextTrainingModule:
        """The language model with the cell of a genotype, or that of the search.

        Raises:
            ConfigError: if a search has a batch of one segment, or labels are to be smoothed.
        """
        settings, network = _settings(config)
        if config.weights.label_smoothing:
            raise ConfigError(
                f"weights.label_smoothing: found {config.weights.label_smoothing}, "
                "expected 0 for text, whose loss is the plain cross-entropy"
            )
        cell: RecurrentCell
        if genotype is None:
            if settings.batch_size < 2:
                raise ConfigError(
                    f"--batch-size {settings.batch_size}: expected 2 or more in a search, "
                    "whose BatchNorm is over the segments of a step"
                )
            cell = SearchCell(self.space, network.width)
        else:
            cell = DiscreteCell(genotype, network.width)
        return TextTrainingModule(LanguageModel(network, cell, len(info["vocabulary"])))

    def evaluation_batch(self, _device: torch.device, _ranks: Ranks) -> int:
        """One: a text is evaluated as one sequence."""
        return 1

    def example(self, config: Config, _facts: DatasetInfo, *, single: bool) -> Batch:
        """One word, or a batch of segments, `[T, B]`."""
        settings, _ = _settings(config)
        shape = (1, 1) if single else (settings.segment, settings.batch_size)
        words = torch.zeros(shape, dtype=torch.long)
        return Batch(words, words)

    def steps(
        self,
        config: Config,
        counts: Mapping[str, int],
        *,
        search: bool,  # noqa: ARG002 (both read the whole training text)
        processes: int = 1,  # noqa: ARG002 (each has some of the columns)
    ) -> int:
        """Segments of an epoch on average; their lengths are drawn."""
        settings, _ = _settings(config)
        mean = settings.segment * (1 - settings.short_portion / 2)
        return max(1, round((counts["train"] - 1) // settings.batch_size / mean))

    def hidden(self, config: Config, *, search: bool) -> Mapping[str, tuple[int, ...]]:
        """A state for each column of a batch."""
        settings, network = _settings(config)
        shape = (settings.batch_size, network.width)
        return {"weights": shape, "alphas": shape} if search else {"weights": shape}

    def describe(self, config: Config, info: DatasetInfo) -> Description:
        """Words about a run, for its plan."""
        words = len(info["vocabulary"])
        settings, network = _settings(config)
        return Description(
            data=f"vocabulary {words:,}",
            fields={"vocabulary": words},
            network=f"width {network.width}",
            batch=f"{settings.batch_size} segments of {settings.segment} words",
            unit="word",
        )


def _settings(config: Config) -> tuple[TextDataConfig, RecurrentNetworkConfig]:
    """The settings of this space."""
    if not isinstance(config.data, TextDataConfig) or not isinstance(
        config.network, RecurrentNetworkConfig
    ):
        raise TypeError(f"settings of the space {config.space!r} given to the recurrent one")
    return config.data, config.network
