"""Every flag of every command, declared once.

A command's options are a dataclass: a field's type is the flag's, its metadata the rest. The
command line is made of them (`cli.py`), and so are the settings of a run: to add a flag, add a
field here, and for a new setting a field in `config.py`. Options can be neither compared nor
printed, since methods for that would be made at every start.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import partial
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
    """Facts about a flag or argument: its help, and its effect on a run."""

    help: str
    """A plain sentence or phrase."""
    argument: bool = False
    """Whether it is given by position."""
    panel: str | None = None
    """Heading under which help lists it."""
    metavar: str | None = None
    """Name of its value in the help."""
    default: str | None = None
    """Text of its default in the help."""
    setting: str | None = None
    """Dotted name of the setting that it sets."""
    resumable: bool = False
    """Whether a resumed run takes it: it changes no result, or how much is computed."""
    minimum: int | None = None
    """Smallest value."""
    complete: Callable[[str], list[str]] | None = None
    """Function that completes a value in the shell."""


def flag(help_: str, *, initial: Any = None, **facts: Any) -> Any:
    """Declare a flag or argument as a field of a dataclass, with the facts of a `Flag`."""
    return field(default=initial, metadata={"flag": Flag(help=help_, **facts)})


argument = partial(flag, initial=MISSING, argument=True)
_data = partial(flag, panel=DATA)
_network = partial(flag, panel=NETWORK)
_run = partial(flag, panel=RUN)
_recipe = partial(_run, "Set of defaults.", default="named like the data, else cifar or ptb")
_switch = partial(_run, initial=False, resumable=True)
# What a computation runs on may change when it is resumed.
_device = partial(flag, panel=DEVICE, resumable=True)


def flags(options: Any) -> Iterator[tuple[Field[Any], Flag]]:
    """Yield the fields of a dataclass of options, each with its flag."""
    for declared in fields(options):
        yield declared, declared.metadata["flag"]


def spelling(name: str) -> str:
    """Return a field's name as a user types it: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class _DataName:
    data: str | None = _data(
        "Images: cifar10, cifar100, digits, or DIR with CLASS/* or train/CLASS/*. Text: ptb, "
        "wikitext2, pydoc, or DIR with train.txt, valid.txt, test.txt.",
        metavar="NAME|DIR",
        setting="data.name",
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class _DataShape:
    image_size: int | None = _data(
        "Resize images to this side in pixels.", setting="data.image_size"
    )
    min_count: int | None = _data(
        "Replace words that are rarer than this by <unk>.", setting="data.min_count"
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class _Execution:
    quiet: bool = _switch("Show nothing but results and errors.")
    gpu: int | None = _device(
        "Compute on CUDA device N.", metavar="N", default="the best device there is"
    )
    device: str | None = _device(
        "Compute on this device: cpu, mps, cuda or cuda:N.",
        metavar="NAME",
        complete=completion.devices,
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RunOptions(_Execution, _DataShape, _DataName):
    """Options of `darts search` and `darts train`; None where the user said nothing."""

    batch_size: int | None = _data("Examples in a step.", setting="data.batch_size")
    channels: int | None = _network(
        "Channels of the first convolutional cells.", setting="network.channels"
    )
    layers: int | None = _network("Number of convolutional cells.", setting="network.layers")
    width: int | None = _network(
        "Width of the embedding and of recurrent states.", setting="network.width"
    )
    lr: float | None = _network(
        "Learning rate of the weights in the first epoch.", setting="weights.lr"
    )
    out: Path | None = _run("New directory of the run.", default="runs/...")
    seed: int | None = _run("Seed of all random numbers.", default="0", setting="seed")
    epochs: int | None = _run("Passes over the training data.", setting="epochs", resumable=True)
    recipe: str | None = _recipe(complete=completion.recipes)
    config: Path | None = _run("YAML file of settings, such as a run's config.yaml.")
    set: list[str] | None = _run("Change any setting; repeatable.", metavar="KEY=VALUE")
    resume: Path | None = _run(
        "Resume the run in DIR under its own settings.",
        metavar="DIR",
        resumable=True,
        complete=completion.runs,
    )
    max_steps: int | None = _run("Stop after this many steps in all, state saved.", resumable=True)
    checkpoint_every: str = _run(
        "Minutes between checkpoints within an epoch, or steps as in 500steps.",
        initial="10",
        metavar="N",
        resumable=True,
    )
    dry_run: bool = _switch("Print the plan as JSON and do nothing.")
    probe: bool = _switch(
        "As --dry-run, with time, memory and the largest batch measured in a few steps."
    )
    tensorboard: bool = _switch("Write every epoch for TensorBoard as well.")
    no_live: bool = _switch("Print plain lines in place of the live display.")
    precision: PrecisionName | None = _device(
        "Precision of products and convolutions: fp32, tf32 (CUDA), bf16 or fp16.",
        metavar="NAME",
        default="fp32",
        setting="compute.precision",
    )
    accumulate: int | None = _device(
        "Compute a batch in N micro-batches, for less memory.",
        metavar="N",
        default="1",
        setting="compute.accumulate",
    )
    compile: bool | None = _device(
        "Compile the cells, which takes minutes; for CUDA.", setting="compute.compile"
    )
    deterministic: bool | None = _device(
        "Get the same bits again on the same GPU, by slower algorithms or an error.",
        setting="compute.deterministic",
    )
    sync_batchnorm: bool | None = _device(
        "Compute BatchNorm over the images of all processes.", setting="compute.sync_batchnorm"
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


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SearchOptions(RunOptions):
    """Options of `darts search`."""

    space: Space = argument("Space to search: convolutional or recurrent cells.")
    order: Order | None = _network(
        "Order of the hypergradient.", default="second", setting="alphas.order"
    )
    hypergradient: Hypergradient | None = _network(
        "Method for the product in the second order's hypergradient.",
        default="finite-difference",
        setting="alphas.hypergradient",
    )
    strategy: str | None = _network(
        "How alphas become weights of the candidates.",
        default="darts",
        setting="alphas.strategy",
        complete=completion.strategies,
    )
    memory: MemoryMode | None = _device(
        "With save, use less memory in a search of images, for more time.",
        default="fast",
        setting="compute.memory",
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TrainOptions(RunOptions):
    """Options of `darts train`."""

    genotype: str | None = flag(
        "Genotype to train: a name such as darts_v2, or a file.",
        metavar="NAME|FILE",
        complete=completion.genotypes,
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DeriveOptions:
    """Options of `darts derive`."""

    source: Path = argument(
        "A search, or one of its checkpoints.", metavar="RUN|CHECKPOINT", complete=completion.runs
    )
    epoch: int | None = flag("Derive from the alphas after this epoch.", default="the newest")
    output: Path | None = flag("File to write.", default="beside what is read")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class EvalOptions(_Execution, _DataName):
    """Options of `darts eval`."""

    source: Path = argument(
        "A trained network: a run or a checkpoint.",
        metavar="RUN|CHECKPOINT",
        complete=completion.runs,
    )
    split: str | None = _data(
        "Split to evaluate: train, valid or test.", default="test; of a text's run valid and test"
    )
    batch_size: int | None = _data(
        "Examples at once; for text, positions that are read side by side.",
        default="256 images, 1 text",
        minimum=1,
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class VizOptions:
    """Options of `darts viz`."""

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
    legend: bool = flag("Explain the colours and boxes of cells.", initial=False)
    title: bool = flag("Write the names of genotype and cells.", initial=True)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ImportOptions(_DataShape, _DataName):
    """Options of `darts import`; None where the user said nothing."""

    source: Path = argument(
        "A .pt file of torch.save, or a text with Genotype(...) in it.", metavar="FILE"
    )
    genotype: str | None = flag(
        "Genotype that a discrete network was made of.",
        metavar="NAME|FILE",
        complete=completion.genotypes,
    )
    classes: str | None = _data(
        "Classes in the order of the logits: between commas, or a file with one a line.",
        metavar="NAMES|FILE",
        default="those of --data",
    )
    alphas: Path | None = flag("A .pt file with the alphas of a supernet.", metavar="FILE")
    recipe: str | None = _recipe(complete=completion.recipes)
    name: str | None = flag("Which of several genotypes in a text to import.")
    output: Path | None = flag("File to write.", default="of the same name, in the present folder")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ExportOptions:
    """Options of `darts export`."""

    source: str = argument(
        "A run, a .safetensors file, or a genotype by name or file.",
        metavar="RUN|CHECKPOINT|GENOTYPE",
        complete=completion.genotypes_and_runs,
    )
    output: Path | None = flag("File to write.", default="of the same name, in the present folder")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ManualOptions:
    """Options of `darts manual`."""

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
    given = [
        declared.name
        for declared, declaration in flags(options)
        if not declaration.resumable and getattr(options, declared.name) is not None
    ]
    name = next((name for name in given if name != "space"), None)
    if name == "genotype":
        raise ConfigError("--genotype: not with --resume, which goes on with the run's own")
    if name is not None:
        allowed = ", ".join(
            spelling(declared.name)
            for declared, declaration in flags(options)
            if declaration.resumable and declaration.panel != DEVICE and declared.name != "resume"
        )
        raise ConfigError(
            f"{spelling(name)}: not with --resume, which goes on under the run's own settings; "
            f"only {allowed} and what is under Device in --help may change"
        )
