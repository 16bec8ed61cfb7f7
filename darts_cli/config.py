"""All settings, with their meanings and ranges."""

from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, cast, get_type_hints

from darts_cli.errors import ConfigError
from darts_cli.schema import MAX_EPOCHS, Rule, at_least, between

Order = Literal["first", "second"]
Hypergradient = Literal["finite-difference", "exact"]
PrecisionName = Literal["fp32", "tf32", "bf16", "fp16"]
MemoryMode = Literal["fast", "save"]

_PROBABILITY = Rule("0 to less than 1", lambda value: 0 <= value < 1)
_SHARE = Rule("a share between 0 and 1", lambda value: 0 < value < 1)
# Marks a setting that has a flag of the same name.
_FLAG = "flag"


def _positive(high: float) -> Rule:
    return Rule(f"more than 0, at most {high}", lambda value: 0 < value <= high)


def _optional(rule: Rule, *, text: str = "") -> Rule:
    return Rule(text or rule.expected, lambda value: value is None or rule.is_valid(value))


@cache
def _rules(section: Any) -> dict[str, tuple[list[Rule], bool]]:
    """Return the rules of each setting of a section, and whether it has a flag."""
    hints = get_type_hints(section, include_extras=True)
    rules = {}
    for field in fields(section):
        marks = getattr(hints[field.name], "__metadata__", ())
        rules[field.name] = [mark for mark in marks if isinstance(mark, Rule)], _FLAG in marks
    return rules


class Section:
    """A group of settings, whose ranges are part of their annotations."""

    __slots__ = ()

    name_in_file: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, (rules, has_flag) in _rules(cast(Any, type(self))).items():
            value = getattr(self, name)
            for rule in rules:
                self._require(rule.is_valid(value), name, value, rule.expected, has_flag=has_flag)

    def _require(
        self, condition: bool, name: str, value: Any, expected: str, *, has_flag: bool = False
    ) -> None:
        """Raise a `ConfigError` that names the setting and how to change it."""
        if not condition:
            key = f"{self.name_in_file}.{name}" if self.name_in_file else name
            found = list(value) if isinstance(value, tuple) else value
            flag = f"--{name.replace('_', '-')} or " if has_flag else ""
            raise ConfigError(
                f"{key}: found {found}, expected {expected}", remedy=f"use {flag}--set {key}=..."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(Section):
    """Settings of the data that every space has; each adds its own."""

    name_in_file: ClassVar[str] = "data"

    name: str
    """A data set's name, or a folder."""
    root: str = "~/.cache/darts"
    """Folder of downloaded data."""
    batch_size: int = 64
    """Examples in a step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextDataConfig(DataConfig):
    """The text, and how it is cut into segments."""

    name: str = "ptb"
    """A corpus by name, or a folder with train.txt, valid.txt and test.txt."""
    root: str = "~/.cache/darts"
    """Folder that contains the folders `ptb` and `wikitext2`."""
    batch_size: Annotated[int, between(1, 65_536), _FLAG] = 64
    """Positions of the text that are read side by side."""
    segment: Annotated[int, between(1, 10_000)] = 35
    """Words between steps; the learning rate is that of a segment of this length."""
    short_portion: Annotated[float, between(0, 1)] = 0.05
    """Share of the segments that are half as long (Merity et al., 2018, section 5)."""
    segment_spread: Annotated[float, between(0, 1000)] = 5.0
    """Standard deviation of a segment's length; 0: none."""
    min_count: Annotated[int, at_least(1), _FLAG] = 1
    """Words that are rarer than this in the training text become `<unk>`."""
    evaluation_batch: Annotated[int, between(1, 65_536)] = 10
    """Positions of the text that are read side by side in the evaluation after an epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDataConfig(DataConfig):
    """The images, and how they are split, augmented and cut into batches."""

    name: str = "cifar10"
    """A data set's name, or a folder of images."""
    root: str = "~/.cache/darts"
    """Folder that torchvision's data sets are downloaded to, and decoded images are kept in."""
    cache: bool = True
    """Whether the decoded images of a folder are kept in `root` for the next run."""
    image_size: Annotated[int | None, _optional(between(8, 4096)), _FLAG] = None
    """Side in pixels that all images are resized to; None: they have one size already."""
    batch_size: Annotated[int, at_least(2), _FLAG] = 64
    """Images in a step."""
    augmentation: Literal["crop", "imagenet"] = "crop"
    """`crop`: shift by `crop_padding` at most, and flip. `imagenet`: resized crop, flip, colour."""
    crop_padding: Annotated[int, between(0, 64)] = 4
    """Pixels that a random crop may shift by (appendix A.1)."""
    flip: bool = True
    """Whether images are mirrored at random."""
    cutout: Annotated[int, at_least(0)] = 0
    """Side in pixels of the square that is blanked (appendix A.2); 0: none."""
    search_portion: Annotated[float, _SHARE] = 0.5
    """Share of the training images that trains the weights in a search; the rest the alphas."""
    evaluation_images: Annotated[int, at_least(0)] = 5000
    """Images of the alphas' that a search evaluates after an epoch, drawn once; 0: all."""
    test_portion: Annotated[float, _SHARE] = 0.1
    """Share of each class that is set aside as test images where the data has none."""
    workers: Annotated[int, between(0, 64)] = 2
    """Processes that read images which do not fit in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvNetworkConfig(Section):
    """The network around convolutional cells."""

    name_in_file: ClassVar[str] = "network"

    stem: Literal["cifar", "imagenet"] = "cifar"
    """`cifar`: one convolution. `imagenet`: two stems that reduce the resolution by 8."""
    channels: Annotated[
        int, between(2, 4096), Rule("an even number", lambda value: value % 2 == 0), _FLAG
    ] = 16
    """Channels of a node in the first cells."""
    layers: Annotated[int, between(1, 1000), _FLAG] = 8
    """Number of cells; those at one and two thirds reduce the resolution."""
    stem_multiplier: Annotated[int, between(1, 64)] = 3
    """Channels of the CIFAR stem, over `channels`."""
    auxiliary: Annotated[float, between(0, 10)] = 0.0
    """Weight of the auxiliary head's loss; 0: no such head."""
    drop_path: Annotated[float, _PROBABILITY] = 0.0
    """Probability of dropping a path in the last epoch, growing from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecurrentNetworkConfig(Section):
    """The language model around a recurrent cell, and what regularizes it (appendix A.4)."""

    name_in_file: ClassVar[str] = "network"

    width: Annotated[int, between(1, 65_536), _FLAG] = 300
    """Width of the embedding and of the cell's states."""
    dropout_output: Annotated[float, _PROBABILITY] = 0.75
    """Dropout of the cell's output."""
    dropout_hidden: Annotated[float, _PROBABILITY] = 0.25
    """Dropout of every state before its product with the weights, one mask for each segment."""
    dropout_input: Annotated[float, _PROBABILITY] = 0.75
    """Dropout of the words that the cell reads, one mask for each segment."""
    dropout_embedding: Annotated[float, _PROBABILITY] = 0.2
    """Dropout of the embedded words, one mask for each segment."""
    dropout_words: Annotated[float, _PROBABILITY] = 0.0
    """Dropout of whole words of the vocabulary."""
    activation: Annotated[float, between(0, 1000)] = 0.0
    """Weight of the mean square of the output (Merity et al., 2017)."""
    slowness: Annotated[float, between(0, 1000)] = 1e-3
    """Weight of the mean square of the change of state from word to word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsConfig(Section):
    """The optimizer of the weights: SGD."""

    name_in_file: ClassVar[str] = "weights"

    lr: Annotated[float, _positive(1000), _FLAG] = 0.025
    """Learning rate of the first epoch."""
    lr_min: float = 0.001
    """Learning rate that the cosine schedule ends at."""
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    """`cosine`: from `lr` to `lr_min`. `exponential`: times `decay_rate` after each epoch."""
    decay_rate: Annotated[float, _positive(1)] = 0.97
    """Factor of each epoch in the exponential schedule (appendix A.3)."""
    momentum: Annotated[float, _PROBABILITY] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, between(0, 1)] = 3e-4
    """L2 penalty on the weights."""
    clip: Annotated[float, at_least(0)] = 5.0
    """Maximum norm of the weights' gradient; 0: no clipping."""
    label_smoothing: Annotated[float, _PROBABILITY] = 0.0
    """Share of the target spread over all classes."""
    averaging_patience: Annotated[int, between(0, 1000)] = 0
    """Epochs that validation may stall before the weights are averaged; 0: they never are."""
    loss_limit: Annotated[
        float | None,
        _optional(Rule("", lambda value: value > 0), text="more than 0, or null"),
    ] = None
    """A training loss above this counts as diverged; None: only one that is not finite."""
    rollbacks: Annotated[int, between(0, 1000)] = 0
    """Number of rollbacks of a diverged training to its best checkpoint before it gives up."""

    def __post_init__(self) -> None:
        # By name: a dataclass with slots is another class than the one that `super` knows.
        Section.__post_init__(self)
        expected = f"0 to weights.lr ({self.lr})"
        self._require(0 <= self.lr_min <= self.lr, "lr_min", self.lr_min, expected)


@dataclass(frozen=True, kw_only=True, slots=True)
class AlphasConfig(Section):
    """The optimizer of the alphas: Adam on the hypergradient (section 2.3)."""

    name_in_file: ClassVar[str] = "alphas"

    lr: Annotated[float, _positive(10)] = 3e-4
    """Learning rate (appendix A.1)."""
    betas: Annotated[
        tuple[float, float],
        Rule(
            "two numbers from 0 to less than 1",
            lambda values: all(0 <= beta < 1 for beta in values),
        ),
    ] = (0.5, 0.999)
    """Betas of Adam."""
    weight_decay: Annotated[float, between(0, 1)] = 1e-3
    """L2 penalty on the alphas."""
    init_scale: Annotated[float, between(0, 10)] = 1e-3
    """Standard deviation of the first alphas."""
    order: Order = "second"
    """Order of the hypergradient; `first`: the virtual step has length 0."""
    hypergradient: Hypergradient = "finite-difference"
    """Method for the second order's product: equation 8, or double backward."""
    virtual_clip: Annotated[float, at_least(0)] = 0.0
    """Maximum norm of the virtual step's gradients; 0: no clipping, as for images."""
    strategy: str = "darts"
    """Strategy that turns alphas into weights of the candidates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeConfig(Section):
    """The execution of steps.

    The mathematics are the same but for BatchNorm, which sees what one process
    computes at once.
    """

    name_in_file: ClassVar[str] = "compute"

    precision: PrecisionName = "fp32"
    """Precision of products and convolutions; the finite difference is always float32."""
    accumulate: Annotated[int, between(1, 65_536), _FLAG] = 1
    """Number of micro-batches of a batch."""
    sync_batchnorm: bool = False
    """Whether BatchNorm is over the images of all processes."""
    memory: MemoryMode = "fast"
    """Whether activations are stored (`fast`) or recomputed in the backward pass (`save`)."""
    compile: bool = False
    """Whether the cells are compiled."""
    deterministic: bool = False
    """Whether torch uses deterministic algorithms alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(Section):
    """All settings of a run."""

    space: str = "cnn"
    """The search space."""
    recipe: str
    """The set of defaults that the run started from."""
    seed: Annotated[int, Rule("0 to 2^63 - 1", lambda value: 0 <= value < 2**63), _FLAG] = 0
    """Seed of all random numbers of the run."""
    epochs: Annotated[int, between(1, MAX_EPOCHS), _FLAG] = 50
    """Passes over the training data."""
    data: DataConfig
    """Data, splits, batches."""
    network: Section
    """Size and regularizers of the network."""
    weights: WeightsConfig
    """The optimizer of the weights."""
    alphas: AlphasConfig | None = None
    """The optimizer of the alphas; None when a discrete network is trained."""
    compute: ComputeConfig = ComputeConfig()
    """The execution of steps."""
