"""Image classification as a task for the engine."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.config import Config, ConvNetworkConfig, ImageDataConfig
from darts_cli.engine.ranks import ALONE, Ranks
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, Description, Facts, Output
from darts_cli.genotype import Genotype
from darts_cli.space import SearchSpace
from darts_cli.spaces.cnn import catalog, data
from darts_cli.spaces.cnn.data import ImageData
from darts_cli.spaces.cnn.discrete import DiscreteNetwork
from darts_cli.spaces.cnn.facts import ImageFacts
from darts_cli.spaces.cnn.networks import Supernet
from darts_cli.spaces.cnn.primitives import CNN


class ImageTask:
    """A network of images with its cross-entropy."""

    measures = ("loss", "top1", "top5")

    def __init__(self, network: Supernet | DiscreteNetwork, config: Config) -> None:
        self.network = network
        self.config = config

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.network

    def begin_epoch(self, epoch: int) -> None:
        """Raise the drop path probability linearly over the epochs (section 3.3)."""
        if isinstance(self.network, DiscreteNetwork):
            _, settings = _settings(self.config)
            self.network.drop_path = settings.drop_path * epoch / self.config.epochs

    def forward(self, batch: Batch, mixture: Mixture) -> Output:
        """Logits `[B, classes]` of images `[B, C, H, W]`."""
        if isinstance(self.network, Supernet):
            output: Output = self.network(batch.inputs, mixture)
        else:
            output = self.network(batch.inputs)
        return output

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """The mean cross-entropy."""
        return F.cross_entropy(output.outcome, batch.targets)

    def objective(self, output: Output, batch: Batch) -> Tensor:
        """The cross-entropy, with smoothed labels and the auxiliary head's share where set."""
        smoothing = self.config.weights.label_smoothing
        loss = F.cross_entropy(output.outcome, batch.targets, label_smoothing=smoothing)
        for logits in output.auxiliary:
            auxiliary = F.cross_entropy(logits, batch.targets, label_smoothing=smoothing)
            loss = loss + _settings(self.config)[1].auxiliary * auxiliary
        return loss

    @torch.no_grad()
    def tally(self, output: Output, batch: Batch) -> Tensor:
        """Sums of cross-entropy and of images right at the first and within five guesses: `[4]`."""
        logits, targets = output.outcome, batch.targets
        loss = F.cross_entropy(logits, targets, reduction="sum")
        guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
        right = guesses == targets[:, None]
        count = torch.full_like(loss, len(targets))
        return torch.stack(
            [loss, right[:, 0].sum().to(loss), right.any(dim=1).sum().to(loss), count]
        )

    def report(self, means: Mapping[str, float]) -> dict[str, float]:
        """The means alone."""
        return dict(means)


class ImageDomain:
    """The convolutional space with its networks and image data."""

    space: SearchSpace = CNN
    data_names = frozenset(catalog.DATASETS)
    evaluation_splits: tuple[str, ...] = ("test",)

    def outline(self, config: Config, *, search: bool) -> tuple[Facts, Mapping[str, int]]:
        """Number of classes, channels, size and counts, without decoding an image."""
        summary = data.inspect(_settings(config)[0], search=search)
        classes = [str(index) for index in range(summary.classes)]
        facts = {"classes": classes, "channels": summary.channels, "size": summary.size}
        return facts, summary.counts

    def load(
        self,
        config: Config,
        device: torch.device,
        *,
        search: bool,
        facts: Facts | None = None,
        ranks: Ranks = ALONE,
    ) -> ImageData:
        """Read the images; see `data.load`."""
        known = None if facts is None else ImageFacts.from_json(facts)
        return data.load(
            _settings(config)[0], device=device, search=search, facts=known, ranks=ranks
        )

    def check_facts(self, facts: Facts) -> None:
        """See `Domain.check_facts`."""
        ImageFacts.from_json(facts)

    def build(self, config: Config, facts: Facts, genotype: Genotype | None) -> ImageTask:
        """The network of a genotype, or the supernet where that is None."""
        _, settings = _settings(config)
        classes, channels = len(facts["classes"]), facts["channels"]
        network: Supernet | DiscreteNetwork
        if genotype is None:
            network = Supernet(settings, classes=classes, image_channels=channels)
        else:
            network = DiscreteNetwork(settings, genotype, classes=classes, image_channels=channels)
        return ImageTask(network.to(memory_format=torch.channels_last), config)

    def evaluation_batch(self, device: torch.device, ranks: Ranks) -> int:
        """Images that are best evaluated at once."""
        return data.evaluation_batch(device, ranks)

    def example(self, config: Config, facts: Facts, *, single: bool) -> Batch:
        """Images `[B, C, H, W]` of zeros and classes `[B]`."""
        batch_size = 1 if single else config.data.batch_size
        shape = (batch_size, facts["channels"], facts["size"], facts["size"])
        targets = torch.zeros(batch_size, dtype=torch.long)
        return Batch(torch.zeros(shape).to(memory_format=torch.channels_last), targets)

    def steps(
        self, config: Config, counts: Mapping[str, int], *, search: bool, processes: int = 1
    ) -> int:
        """Batches of the weights' images; a last one of one image a process is left out."""
        settings, _ = _settings(config)
        share = settings.search_portion if search else 1.0
        full, rest = divmod(round(share * counts["train"]), settings.batch_size)
        return full + (rest >= 2 * processes)

    def hidden(self, _config: Config, *, search: bool) -> Mapping[str, tuple[int, ...]]:  # noqa: ARG002
        """None: an image has nothing to do with the one before."""
        return {}

    def describe(self, config: Config, facts: Facts) -> Description:
        """Words about a run, for its plan."""
        settings, network = _settings(config)
        classes, channels, size = len(facts["classes"]), facts["channels"], facts["size"]
        return Description(
            data=f"{classes} classes, {channels} x {size} x {size}",
            fields={"classes": classes},
            network=f"{network.channels} channels, {network.layers} cells",
            batch=f"{settings.batch_size}",
            unit="image",
        )


def _settings(config: Config) -> tuple[ImageDataConfig, ConvNetworkConfig]:
    """The settings of this space."""
    if not isinstance(config.data, ImageDataConfig) or not isinstance(
        config.network, ConvNetworkConfig
    ):
        raise TypeError(f"settings of the space {config.space!r} given to the convolutional one")
    return config.data, config.network
