"""Image classification as a task for the engine."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from darts_cli.config import Config, ConvNetworkConfig, ImageDataConfig
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, DatasetInfo, Description, Task, TrainingModule
from darts_cli.genotype.types import Genotype
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks
from darts_cli.space import SearchSpace
from darts_cli.spaces.cnn.data import datasets, loader
from darts_cli.spaces.cnn.data.datasets import ImageData
from darts_cli.spaces.cnn.data.info import ImageInfo
from darts_cli.spaces.cnn.network import Network
from darts_cli.spaces.cnn.output import ImageOutput
from darts_cli.spaces.cnn.primitives import CNN
from darts_cli.spaces.cnn.supernet import Supernet


class ImageTrainingModule(TrainingModule[ImageOutput]):
    """A network of images with its cross-entropy."""

    metric_names = ("loss", "top1", "top5")

    network: Supernet | Network

    def __init__(self, network: Supernet | Network, config: Config) -> None:
        super().__init__(network)
        self.config = config

    def begin_epoch(self, epoch: int) -> None:
        """Raise the drop path probability linearly over the epochs (section 3.3)."""
        if isinstance(self.network, Network):
            _, settings = _settings(self.config)
            self.network.drop_path = settings.drop_path * epoch / self.config.epochs

    def forward(self, batch: Batch, mixture: Mixture) -> ImageOutput:
        """Logits `[B, classes]` of images `[B, C, H, W]`."""
        if isinstance(self.network, Supernet):
            output: ImageOutput = self.network(batch.inputs, mixture)
        else:
            output = self.network(batch.inputs)
        return output

    def loss(self, output: ImageOutput, batch: Batch) -> Tensor:
        """The mean cross-entropy."""
        return F.cross_entropy(output.logits, batch.targets)

    def training_loss(self, output: ImageOutput, batch: Batch) -> Tensor:
        """The cross-entropy, with smoothed labels and the auxiliary head's share where set."""
        smoothing = self.config.weights.label_smoothing
        loss = F.cross_entropy(output.logits, batch.targets, label_smoothing=smoothing)
        for logits in output.auxiliary:
            auxiliary = F.cross_entropy(logits, batch.targets, label_smoothing=smoothing)
            loss = loss + _settings(self.config)[1].auxiliary * auxiliary
        return loss

    @torch.no_grad()
    def metric_sums(self, output: ImageOutput, batch: Batch) -> Tensor:
        """Sums of cross-entropy and of images right at the first and within five guesses: `[4]`."""
        logits, targets = output.logits, batch.targets
        loss = F.cross_entropy(logits, targets, reduction="sum")
        guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
        right = guesses == targets[:, None]
        count = torch.full_like(loss, len(targets))
        return torch.stack(
            [loss, right[:, 0].sum().to(loss), right.any(dim=1).sum().to(loss), count]
        )


class ImageTask(Task):
    """The convolutional space with its networks and image data."""

    data_names = frozenset(datasets.DATASETS)

    def __init__(self, space: SearchSpace = CNN) -> None:
        super().__init__(space)

    def outline(self, config: Config, *, search: bool) -> tuple[DatasetInfo, Mapping[str, int]]:
        """Number of classes, channels, size and counts, without decoding an image."""
        summary = datasets.inspect(_settings(config)[0], search=search)
        classes = [str(index) for index in range(summary.classes)]
        info = {"classes": classes, "channels": summary.channels, "size": summary.size}
        return info, summary.counts

    def load(
        self,
        config: Config,
        device: torch.device,
        *,
        search: bool,
        info: DatasetInfo | None = None,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> ImageData:
        """Read the images; see `datasets.load`."""
        known = None if info is None else ImageInfo.from_json(info)
        return datasets.load(
            _settings(config)[0], device=device, search=search, info=known, ranks=ranks
        )

    def check_info(self, info: DatasetInfo) -> None:
        """See `Task.check_info`."""
        ImageInfo.from_json(info)

    def build(
        self, config: Config, info: DatasetInfo, genotype: Genotype | None
    ) -> ImageTrainingModule:
        """The network of a genotype, or the supernet where that is None."""
        _, settings = _settings(config)
        classes, channels = len(info["classes"]), info["channels"]
        network: Supernet | Network
        if genotype is None:
            network = Supernet(settings, classes=classes, image_channels=channels, space=self.space)
        else:
            network = Network(settings, genotype, classes=classes, image_channels=channels)
        return ImageTrainingModule(network.to(memory_format=torch.channels_last), config)

    def evaluation_batch(self, device: torch.device, ranks: Ranks) -> int:
        """Images that are best evaluated at once."""
        return loader.evaluation_batch(device, ranks)

    def example(self, config: Config, info: DatasetInfo, *, single: bool) -> Batch:
        """Images `[B, C, H, W]` of zeros and classes `[B]`."""
        batch_size = 1 if single else config.data.batch_size
        shape = (batch_size, info["channels"], info["size"], info["size"])
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

    def describe(self, config: Config, info: DatasetInfo) -> Description:
        """Words about a run, for its plan."""
        settings, network = _settings(config)
        classes, channels, size = len(info["classes"]), info["channels"], info["size"]
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
