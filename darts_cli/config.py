"""Every setting, what it means, and its range."""

from dataclasses import dataclass
from typing import Literal

from darts_cli.errors import ConfigError


def _require(condition: bool, key: str, value: object, expected: str, flag: str = "") -> None:
    """Raise a `ConfigError` that names the setting and how to change it."""
    if not condition:
        remedy = f"use {flag} or --set {key}=..." if flag else f"use --set {key}=..."
        raise ConfigError(f"{key}: found {value}, expected {expected}; {remedy}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextDataConfig:
    """Which text, and how it is cut into segments."""

    name: str = "ptb"
    """A corpus by name, or a folder with train.txt, valid.txt and test.txt."""
    root: str = "~/.cache/darts"
    """Where the folders `ptb` and `wikitext2` are looked for."""
    batch_size: int = 64
    """Places of the text that are read side by side."""
    segment: int = 35
    """Words between steps; the learning rate is that of a segment of this length."""
    short_portion: float = 0.05
    """Share of the segments that are half as long (Merity et al., 2018, section 5)."""
    segment_spread: float = 5.0
    """Standard deviation of a segment's length; 0: none."""
    min_count: int = 1
    """Words that are rarer than this in the training text become `<unk>`."""
    evaluation_batch: int = 10
    """Places of the text that are read side by side when it is evaluated after an epoch."""

    def __post_init__(self) -> None:
        _require(
            1 <= self.batch_size <= 65_536,
            "data.batch_size",
            self.batch_size,
            "1 to 65536",
            "--batch-size",
        )
        _require(1 <= self.segment <= 10_000, "data.segment", self.segment, "1 to 10000")
        _require(0 <= self.short_portion <= 1, "data.short_portion", self.short_portion, "0 to 1")
        _require(
            0 <= self.segment_spread <= 1000,
            "data.segment_spread",
            self.segment_spread,
            "0 to 1000",
        )
        _require(self.min_count >= 1, "data.min_count", self.min_count, "1 or more", "--min-count")
        _require(
            1 <= self.evaluation_batch <= 65_536,
            "data.evaluation_batch",
            self.evaluation_batch,
            "1 to 65536",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDataConfig:
    """Which images, how they are split, augmented and cut into batches."""

    name: str = "cifar10"
    """A data set's name, or a folder of images."""
    root: str = "~/.cache/darts"
    """Where torchvision's data sets are downloaded to, and decoded images are kept."""
    cache: bool = True
    """Whether the decoded images of a folder are kept in `root` for the next run."""
    image_size: int | None = None
    """Side in pixels that all images are resized to; None: they have one size already."""
    batch_size: int = 64
    """Images in a step."""
    augmentation: Literal["crop", "imagenet"] = "crop"
    """`crop`: shift by `crop_padding` at most, and flip. `imagenet`: resized crop, flip, colour."""
    crop_padding: int = 4
    """Pixels that a random crop may shift by (appendix A.1)."""
    flip: bool = True
    """Whether images are mirrored at random."""
    cutout: int = 0
    """Side in pixels of the square that is blanked (appendix A.2); 0: none."""
    search_portion: float = 0.5
    """Share of the training images that trains the weights in a search; the rest the alphas."""
    evaluation_images: int = 5000
    """Images of the alphas' that a search evaluates after an epoch, drawn once; 0: all."""
    test_portion: float = 0.1
    """Share of each class that is set aside as test images where the data has none."""
    workers: int = 2
    """Processes that read images which do not fit in memory."""

    def __post_init__(self) -> None:
        _require(
            self.batch_size >= 2, "data.batch_size", self.batch_size, "2 or more", "--batch-size"
        )
        size = self.image_size
        _require(
            size is None or 8 <= size <= 4096, "data.image_size", size, "8 to 4096", "--image-size"
        )
        _require(0 <= self.crop_padding <= 64, "data.crop_padding", self.crop_padding, "0 to 64")
        _require(self.cutout >= 0, "data.cutout", self.cutout, "0 or more")
        _require(
            0 < self.search_portion < 1,
            "data.search_portion",
            self.search_portion,
            "a share between 0 and 1",
        )
        _require(
            self.evaluation_images >= 0,
            "data.evaluation_images",
            self.evaluation_images,
            "0 or more",
        )
        _require(
            0 < self.test_portion < 1,
            "data.test_portion",
            self.test_portion,
            "a share between 0 and 1",
        )
        _require(0 <= self.workers <= 64, "data.workers", self.workers, "0 to 64")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvNetworkConfig:
    """The network around convolutional cells."""

    stem: Literal["cifar", "imagenet"] = "cifar"
    """`cifar`: one convolution. `imagenet`: two stems that reduce the resolution by 8."""
    channels: int = 16
    """Channels of a node in the first cells."""
    layers: int = 8
    """Cells; those at one and two thirds reduce the resolution."""
    stem_multiplier: int = 3
    """Channels of the CIFAR stem, over `channels`."""
    auxiliary: float = 0.0
    """Weight of the auxiliary head's loss; 0: no such head."""
    drop_path: float = 0.0
    """Probability of dropping a path in the last epoch, growing from 0."""

    def __post_init__(self) -> None:
        _require(
            2 <= self.channels <= 4096, "network.channels", self.channels, "2 to 4096", "--channels"
        )
        _require(
            self.channels % 2 == 0,
            "network.channels",
            self.channels,
            "an even number",
            "--channels",
        )
        _require(1 <= self.layers <= 1000, "network.layers", self.layers, "1 to 1000", "--layers")
        _require(
            1 <= self.stem_multiplier <= 64,
            "network.stem_multiplier",
            self.stem_multiplier,
            "1 to 64",
        )
        _require(0 <= self.auxiliary <= 10, "network.auxiliary", self.auxiliary, "0 to 10")
        _require(0 <= self.drop_path < 1, "network.drop_path", self.drop_path, "0 to less than 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecurrentNetworkConfig:
    """The language model around a recurrent cell, and what regularises it (appendix A.4)."""

    width: int = 300
    """Of the embedding and of the cell's states."""
    dropout_output: float = 0.75
    """Of the cell's output."""
    dropout_hidden: float = 0.25
    """Of every state before its product with the weights, one mask a segment."""
    dropout_input: float = 0.75
    """Of the words that the cell reads, one mask a segment."""
    dropout_embedding: float = 0.2
    """Of the embedded words, one mask a segment."""
    dropout_words: float = 0.0
    """Of whole words of the vocabulary."""
    activation: float = 0.0
    """Weight of the mean square of the output (Merity et al., 2017)."""
    slowness: float = 1e-3
    """Weight of the mean square of the change of state from word to word."""

    def __post_init__(self) -> None:
        _require(1 <= self.width <= 65_536, "network.width", self.width, "1 to 65536", "--width")
        for name in ("output", "hidden", "input", "embedding", "words"):
            key, value = f"dropout_{name}", getattr(self, f"dropout_{name}")
            _require(0 <= value < 1, f"network.{key}", value, "0 to less than 1")
        for key in ("activation", "slowness"):
            value = getattr(self, key)
            _require(0 <= value <= 1000, f"network.{key}", value, "0 to 1000")


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsConfig:
    """How the weights are trained: SGD."""

    lr: float = 0.025
    """Learning rate of the first epoch."""
    lr_min: float = 0.001
    """Learning rate that the cosine schedule ends at."""
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    """`cosine`: from `lr` to `lr_min`. `exponential`: times `decay_rate` an epoch."""
    decay_rate: float = 0.97
    """Factor an epoch of the exponential schedule (appendix A.3)."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 3e-4
    """L2 penalty on the weights."""
    clip: float = 5.0
    """Largest norm of the weights' gradient; 0: no clipping."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    averaging_patience: int = 0
    """Epochs that validation may stall before the weights are averaged; 0: they never are."""
    loss_limit: float | None = None
    """A training loss above this counts as diverged; None: only one that is not finite."""
    rollbacks: int = 0
    """How often a diverged training goes back to its best checkpoint before it gives up."""

    def __post_init__(self) -> None:
        _require(0 < self.lr <= 1000, "weights.lr", self.lr, "more than 0, at most 1000", "--lr")
        _require(
            0 <= self.lr_min <= self.lr,
            "weights.lr_min",
            self.lr_min,
            f"0 to weights.lr ({self.lr})",
        )
        _require(
            0 < self.decay_rate <= 1,
            "weights.decay_rate",
            self.decay_rate,
            "more than 0, at most 1",
        )
        _require(0 <= self.momentum < 1, "weights.momentum", self.momentum, "0 to less than 1")
        _require(0 <= self.weight_decay <= 1, "weights.weight_decay", self.weight_decay, "0 to 1")
        _require(self.clip >= 0, "weights.clip", self.clip, "0 or more")
        _require(
            0 <= self.label_smoothing < 1,
            "weights.label_smoothing",
            self.label_smoothing,
            "0 to less than 1",
        )
        _require(
            0 <= self.averaging_patience <= 1000,
            "weights.averaging_patience",
            self.averaging_patience,
            "0 to 1000",
        )
        limit = self.loss_limit
        _require(limit is None or limit > 0, "weights.loss_limit", limit, "more than 0, or null")
        _require(0 <= self.rollbacks <= 1000, "weights.rollbacks", self.rollbacks, "0 to 1000")


@dataclass(frozen=True, kw_only=True, slots=True)
class AlphasConfig:
    """How the architecture parameters are trained: Adam on the hypergradient (section 2.3)."""

    lr: float = 3e-4
    """Learning rate (appendix A.1)."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Of Adam."""
    weight_decay: float = 1e-3
    """L2 penalty on the alphas."""
    init_scale: float = 1e-3
    """Standard deviation of the first alphas."""
    order: Literal["first", "second"] = "second"
    """`first`: the virtual step has length 0."""
    hypergradient: Literal["finite-difference", "exact"] = "finite-difference"
    """How the second order's product is computed: by equation 8, or by double backward."""
    virtual_clip: float = 0.0
    """Largest norm of the virtual step's gradients; 0: no clipping, as for images."""
    strategy: str = "darts"
    """How alphas weigh the candidates."""

    def __post_init__(self) -> None:
        _require(0 < self.lr <= 10, "alphas.lr", self.lr, "more than 0, at most 10")
        _require(
            all(0 <= beta < 1 for beta in self.betas),
            "alphas.betas",
            list(self.betas),
            "two numbers from 0 to less than 1",
        )
        _require(0 <= self.weight_decay <= 1, "alphas.weight_decay", self.weight_decay, "0 to 1")
        _require(0 <= self.init_scale <= 10, "alphas.init_scale", self.init_scale, "0 to 10")
        _require(self.virtual_clip >= 0, "alphas.virtual_clip", self.virtual_clip, "0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeConfig:
    """How steps are computed.

    The mathematics are the same but for BatchNorm, which sees what one process
    computes at once.
    """

    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Of products and convolutions; the finite difference is float32 in any case."""
    accumulate: int = 1
    """Parts of a batch, one after the other."""
    sync_batchnorm: bool = False
    """Whether BatchNorm is over the parts of all processes."""

    def __post_init__(self) -> None:
        _require(
            1 <= self.accumulate <= 65_536,
            "compute.accumulate",
            self.accumulate,
            "1 to 65536",
            "--accumulate",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All settings of a run."""

    space: str = "cnn"
    """The search space."""
    recipe: str
    """The set of defaults that the run started from."""
    seed: int = 0
    """All randomness of the run follows from it."""
    epochs: int = 50
    """Passes over the training data."""
    data: ImageDataConfig | TextDataConfig
    """Images or text, splits, batches."""
    network: ConvNetworkConfig | RecurrentNetworkConfig
    """Size and regularisers of the network."""
    weights: WeightsConfig
    """The optimizer of the weights."""
    alphas: AlphasConfig | None = None
    """The optimizer of the alphas; None when a discrete network is trained."""
    compute: ComputeConfig = ComputeConfig()
    """How steps are computed."""

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2^63 - 1", "--seed")
        _require(1 <= self.epochs <= 100_000, "epochs", self.epochs, "1 to 100000", "--epochs")
