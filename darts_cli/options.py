"""Every flag of every command, declared once.

A command's options are a dataclass: a field's type is the flag's, its metadata the rest. The
command line is made of them (`cli.py`), and so are the settings of a run: to add a flag, add a
field here, and for a new setting a field in `config.py`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from darts_cli import completion
from darts_cli.config import Hypergradient, MemoryMode, Order, PrecisionName
from darts_cli.errors import ConfigError
from darts_cli.spaces import SPACES

if TYPE_CHECKING:
    Space = str
else:
    # The names of the table, which the help shows.
    Space = Literal[tuple(SPACES)]

# Headings of the help, in their order.
PANELS = DATA, NETWORK, RUN, DEVICE = "Data", "Network and optimizers", "Run", "Device"

# Largest number of minutes or steps between checkpoints.
_MAX_INTERVAL = 10**8


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag:
    """What the command line shows of a flag or argument, and what it does to a run."""

    help: str
    """A plain sentence or phrase."""
    names: tuple[str, ...] = ()
    """Spellings; none: the field's name with dashes."""
    argument: bool = False
    """Whether it is given by position."""
    panel: str | None = None
    """Heading under which help lists it."""
    metavar: str | None = None
    """What help writes for its value."""
    default: str | None = None
    """What help writes for its default."""
    setting: str | None = None
    """Dotted name of the setting that it sets."""
    resumable: bool = False
    """Whether a resumed run takes it: it changes no result, or how much is computed."""
    minimum: int | None = None
    """Smallest value."""
    complete: Callable[[str], list[str]] | None = None
    """Completes a value in the shell."""


def flag(help_: str, *, initial: Any = None, **facts: Any) -> Any:
    """Declare a flag as a field of a dataclass, with the facts of a `Flag`."""
    return field(default=initial, metadata={"flag": Flag(help=help_, **facts)})


def argument(help_: str, *, initial: Any = MISSING, **facts: Any) -> Any:
    """Declare an argument as a field of a dataclass: a required one, unless it has a default."""
    metadata = {"flag": Flag(help=help_, argument=True, **facts)}
    return (
        field(metadata=metadata)
        if initial is MISSING
        else field(default=initial, metadata=metadata)
    )


def flags(options: Any) -> Iterator[tuple[Field[Any], Flag]]:
    """Yield the fields of a dataclass of options, each with its flag."""
    for declared in fields(options):
        yield declared, declared.metadata["flag"]


def spelling(name: str) -> str:
    """Return a field's name as a user types it: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class _DataName:
    data: str | None = flag(
        "Images: cifar10, cifar100, digits, or DIR with CLASS/* or train/CLASS/*. Text: ptb, "
        "wikitext2, pydoc, or DIR with train.txt, valid.txt, test.txt.",
        metavar="NAME|DIR",
        panel=DATA,
        setting="data.name",
    )


@dataclass(frozen=True, kw_only=True)
class _DataShape:
    image_size: int | None = flag(
        "Resize images to this side in pixels.", panel=DATA, setting="data.image_size"
    )
    min_count: int | None = flag(
        "Replace words that are rarer than this by <unk>.", panel=DATA, setting="data.min_count"
    )


@dataclass(frozen=True, kw_only=True)
class _Quiet:
    quiet: bool = flag(
        "Show nothing but results and errors.",
        initial=False,
        names=("--quiet",),
        panel=RUN,
        resumable=True,
    )


@dataclass(frozen=True, kw_only=True)
class _Device:
    gpu: int | None = flag(
        "Compute on CUDA device N.",
        metavar="N",
        default="the best device there is",
        panel=DEVICE,
        resumable=True,
    )
    device: str | None = flag(
        "Compute on this device: cpu, mps, cuda or cuda:N.",
        metavar="NAME",
        panel=DEVICE,
        resumable=True,
        complete=completion.devices,
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions(_Device, _Quiet, _DataShape, _DataName):
    """What `search` and `train` take; None where the user said nothing."""

    batch_size: int | None = flag("Examples in a step.", panel=DATA, setting="data.batch_size")
    channels: int | None = flag(
        "Channels of the first convolutional cells.", panel=NETWORK, setting="network.channels"
    )
    layers: int | None = flag(
        "Number of convolutional cells.", panel=NETWORK, setting="network.layers"
    )
    width: int | None = flag(
        "Width of the embedding and of recurrent states.", panel=NETWORK, setting="network.width"
    )
    lr: float | None = flag(
        "Learning rate of the weights in the first epoch.", panel=NETWORK, setting="weights.lr"
    )
    out: Path | None = flag("New directory of the run.", default="runs/...", panel=RUN)
    seed: int | None = flag("Seed of all random numbers.", default="0", panel=RUN, setting="seed")
    epochs: int | None = flag(
        "Passes over the training data.", panel=RUN, setting="epochs", resumable=True
    )
    recipe: str | None = flag(
        "Set of defaults.",
        default="named like the data, else cifar or ptb",
        panel=RUN,
        complete=completion.recipes,
    )
    config: Path | None = flag("YAML file of settings, such as a run's config.yaml.", panel=RUN)
    set: list[str] | None = flag("Change any setting; repeatable.", metavar="KEY=VALUE", panel=RUN)
    resume: Path | None = flag(
        "Resume the run in DIR under its own settings.",
        metavar="DIR",
        panel=RUN,
        resumable=True,
        complete=completion.runs,
    )
    max_steps: int | None = flag(
        "Stop after this many steps in all, state saved.", panel=RUN, resumable=True
    )
    checkpoint_every: str = flag(
        "Minutes between checkpoints within an epoch, or steps as in 500steps.",
        initial="10",
        metavar="N",
        panel=RUN,
        resumable=True,
    )
    dry_run: bool = flag(
        "Print the plan as JSON and do nothing.",
        initial=False,
        names=("--dry-run",),
        panel=RUN,
        resumable=True,
    )
    probe: bool = flag(
        "As --dry-run, with time, memory and the largest batch measured in a few steps.",
        initial=False,
        names=("--probe",),
        panel=RUN,
        resumable=True,
    )
    tensorboard: bool = flag(
        "Write every epoch for TensorBoard as well.",
        initial=False,
        names=("--tensorboard",),
        panel=RUN,
        resumable=True,
    )
    no_live: bool = flag(
        "Print plain lines in place of the live display.",
        initial=False,
        names=("--no-live",),
        panel=RUN,
        resumable=True,
    )
    precision: PrecisionName | None = flag(
        "Precision of products and convolutions: fp32, tf32 (CUDA), bf16 or fp16.",
        metavar="NAME",
        default="fp32",
        panel=DEVICE,
        setting="compute.precision",
        resumable=True,
    )
    accumulate: int | None = flag(
        "Compute a batch in N micro-batches, for less memory.",
        metavar="N",
        default="1",
        panel=DEVICE,
        setting="compute.accumulate",
        resumable=True,
    )
    compile: bool | None = flag(
        "Compile the cells, which takes minutes; for CUDA.",
        panel=DEVICE,
        setting="compute.compile",
        resumable=True,
    )
    deterministic: bool | None = flag(
        "Get the same bits again on the same GPU, by slower algorithms or an error.",
        panel=DEVICE,
        setting="compute.deterministic",
        resumable=True,
    )
    sync_batchnorm: bool | None = flag(
        "Compute BatchNorm over the images of all processes.",
        panel=DEVICE,
        setting="compute.sync_batchnorm",
        resumable=True,
    )

    def __post_init__(self) -> None:
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"--max-steps: found {self.max_steps}, expected 1 or more")
        self.checkpoint_interval()

    def checkpoint_interval(self) -> tuple[float, int | None]:
        """Return the seconds between checkpoints, and the steps that replace them if given.

        Raises:
            ConfigError: if `checkpoint_every` is neither.
        """
        text = self.checkpoint_every.strip()
        number, steps = text.removesuffix("steps"), text.endswith("steps")
        try:
            value = int(number) if steps else float(number)
        except ValueError:
            value = 0
        if not 0 < value <= _MAX_INTERVAL:
            raise ConfigError(
                f"--checkpoint-every: found {text!r}, expected minutes above 0, such as 10, "
                "or steps, such as 500steps"
            )
        return (math.inf, int(value)) if steps else (60 * value, None)


@dataclass(frozen=True, kw_only=True)
class SearchOptions(RunOptions):
    """What `darts search` takes."""

    space: Space = argument("Space to search: convolutional or recurrent cells.")
    order: Order | None = flag(
        "Order of the hypergradient.", default="second", panel=NETWORK, setting="alphas.order"
    )
    hypergradient: Hypergradient | None = flag(
        "Method for the product in the second order's hypergradient.",
        default="finite-difference",
        panel=NETWORK,
        setting="alphas.hypergradient",
    )
    strategy: str | None = flag(
        "How alphas become weights of the candidates.",
        default="darts",
        panel=NETWORK,
        setting="alphas.strategy",
        complete=completion.strategies,
    )
    memory: MemoryMode | None = flag(
        "With save, use less memory in a search of images, for more time.",
        default="fast",
        panel=DEVICE,
        setting="compute.memory",
        resumable=True,
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """What `darts train` takes."""

    genotype: str | None = flag(
        "Genotype to train: a name such as darts_v2, or a file.",
        metavar="NAME|FILE",
        complete=completion.genotypes,
    )


@dataclass(frozen=True, kw_only=True)
class DeriveOptions:
    """What `darts derive` takes."""

    source: Path = argument(
        "A search, or one of its checkpoints.",
        metavar="RUN|CHECKPOINT",
        complete=completion.runs,
    )
    epoch: int | None = flag("Derive from the alphas after this epoch.", default="the newest")
    output: Path | None = flag("File to write.", default="beside what is read")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(_Device, _Quiet, _DataName):
    """What `darts eval` takes."""

    source: Path = argument(
        "A trained network: a run or a checkpoint.",
        metavar="RUN|CHECKPOINT",
        complete=completion.runs,
    )
    split: str | None = flag(
        "Split to evaluate: train, valid or test.",
        default="test; of a text's run valid and test",
        panel=DATA,
    )
    batch_size: int | None = flag(
        "Examples at once; for text, positions that are read side by side.",
        default="256 images, 1 text",
        panel=DATA,
        minimum=1,
    )


@dataclass(frozen=True, kw_only=True)
class VizOptions:
    """What `darts viz` takes."""

    sources: list[str] = argument(
        "A genotype by name or file, or a run; two are compared.",
        metavar="NAME|GENOTYPE|RUN",
        complete=completion.genotypes_and_runs,
    )
    output: Path | None = flag(
        "File to write: .svg, .png, .pdf, .dot, .mmd; of a run also .gif, its cells epoch by "
        "epoch, and .html, one page of all; of several runs .html compares them.",
        default="the terminal",
    )
    show: Literal["cells", "alphas", "lines", "curves", "signals"] = flag(
        "What to show of a run: its cells; its alphas as heat maps or as lines; curves of its "
        "metrics; signals of a collapse.",
        initial="cells",
        metavar="WHAT",
    )
    format: Literal["dot", "mermaid"] | None = flag("Print the cells for Graphviz or Mermaid.")
    theme: Literal["light", "dark"] = flag("Theme of pictures; a page has both.", initial="light")
    legend: bool = flag(
        "Explain the colours and boxes of cells.", initial=False, names=("--legend",)
    )
    title: bool = flag("Write the names of genotype and cells.", initial=True)


@dataclass(frozen=True, kw_only=True)
class ImportOptions(_DataShape, _DataName):
    """What `darts import` takes; None where the user said nothing."""

    source: Path = argument(
        "A .pt file of torch.save, or a text with Genotype(...) in it.", metavar="FILE"
    )
    genotype: str | None = flag(
        "Genotype that a discrete network was made of.",
        metavar="NAME|FILE",
        complete=completion.genotypes,
    )
    classes: str | None = flag(
        "Classes in the order of the logits: between commas, or a file with one a line.",
        metavar="NAMES|FILE",
        default="those of --data",
        panel=DATA,
    )
    alphas: Path | None = flag("A .pt file with the alphas of a supernet.", metavar="FILE")
    recipe: str | None = flag(
        "Set of defaults.",
        default="named like the data, else cifar or ptb",
        panel=RUN,
        complete=completion.recipes,
    )
    name: str | None = flag("Which of several genotypes in a text to import.")
    output: Path | None = flag("File to write.", default="of the same name, in the present folder")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What `darts export` takes."""

    source: str = argument(
        "A run, a .safetensors file, or a genotype by name or file.",
        metavar="RUN|CHECKPOINT|GENOTYPE",
        complete=completion.genotypes_and_runs,
    )
    output: Path | None = flag("File to write.", default="of the same name, in the present folder")


@dataclass(frozen=True, kw_only=True)
class ManualOptions:
    """What `darts manual` takes."""

    topic: str | None = argument(
        "A page of the manual.",
        initial=None,
        metavar="TOPIC",
        default="the list of pages",
        complete=completion.topics,
    )


def check_resumable(options: RunOptions) -> None:
    """Check that all flags given with `--resume` leave the run's results as they are.

    Raises:
        ConfigError: naming the first that does not.
    """
    for declared, told in flags(options):
        if not told.resumable and getattr(options, declared.name) is not None:
            name = spelling(declared.name)
            if declared.name == "genotype":
                raise ConfigError(f"{name}: not with --resume, which goes on with the run's own")
            if declared.name != "space":
                allowed = ", ".join(
                    spelling(other.name)
                    for other, of in flags(options)
                    if of.resumable and of.panel != DEVICE and other.name != "resume"
                )
                raise ConfigError(
                    f"{name}: not with --resume, which goes on under the run's own settings; "
                    f"only {allowed} and what is under Device in --help may change"
                )
