"""The commands: flags become options, and errors one line. No torch until a command needs it."""

import os
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, NoReturn, TextIO, cast

import typer
from typer.exceptions import TyperException

from darts_cli import __version__
from darts_cli.errors import ConfigError, DartsError, DivergenceError, Interrupted
from darts_cli.flags import (
    DATA,
    DEVICE,
    NETWORK,
    Accumulate,
    BatchSize,
    Channels,
    CheckpointEvery,
    Compile,
    ConfigFile,
    Data,
    Deterministic,
    Device,
    DryRun,
    Epochs,
    Gpu,
    Hypergradient,
    ImageSize,
    Layers,
    LearningRate,
    MaxSteps,
    Memory,
    MinCount,
    NoLive,
    Order,
    Out,
    Output,
    OutputHere,
    Precision,
    Probe,
    Quiet,
    Recipe,
    Resume,
    Seed,
    Set,
    Show,
    Space,
    SyncBatchNorm,
    TensorBoard,
    TextFormat,
    ThemeName,
    Width,
)
from darts_cli.terminal.stdio import CheckedStdout, OutputError, give_up_unwritten

app = typer.Typer(
    name="darts",
    help="Differentiable architecture search: search a cell, derive, train, evaluate and draw it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130
"""What Typer returns after a Ctrl-C that no run took as a request to stop."""


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)
    ] = False,
) -> None:
    """Differentiable architecture search: search a cell, derive, train, evaluate and draw it."""
    if version:
        typer.echo(f"darts {__version__}")
        raise typer.Exit


@app.command()
def search(
    space: Annotated[Space, typer.Argument(help="What is searched.", show_default=False)],
    data: Data = None,
    image_size: ImageSize = None,
    min_count: MinCount = None,
    batch_size: BatchSize = None,
    order: Annotated[
        Order | None,
        typer.Option(help="Of the hypergradient.", show_default="second", rich_help_panel=NETWORK),
    ] = None,
    hypergradient: Annotated[
        Hypergradient | None,
        typer.Option(
            help="How its second-order product is computed.",
            show_default="finite-difference",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="How alphas weigh candidates.", show_default="darts", rich_help_panel=NETWORK
        ),
    ] = None,
    channels: Channels = None,
    layers: Layers = None,
    width: Width = None,
    lr: LearningRate = None,
    out: Out = None,
    seed: Seed = None,
    epochs: Epochs = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set_: Set = None,
    resume: Resume = None,
    max_steps: MaxSteps = None,
    checkpoint_every: CheckpointEvery = "10",
    dry_run: DryRun = False,
    probe: Probe = False,
    tensorboard: TensorBoard = False,
    quiet: Quiet = False,
    no_live: NoLive = False,
    gpu: Gpu = None,
    device: Device = None,
    precision: Precision = None,
    accumulate: Accumulate = None,
    compile_: Compile = False,
    deterministic: Deterministic = False,
    sync_batchnorm: SyncBatchNorm = None,
    memory: Annotated[
        Memory | None,
        typer.Option(
            help="save: less memory in a search of images, for more time.",
            show_default="fast",
            rich_help_panel=DEVICE,
        ),
    ] = None,
) -> None:
    """Search a cell; without flags, the paper's second-order search on CIFAR-10 or PTB.

    Prints the directory of the run, which holds the genotype of the newest alphas.
    """
    from darts_cli.commands import search as command
    from darts_cli.commands.options import Options

    command.search(
        space.value,
        Options(
            data=data,
            image_size=image_size,
            min_count=min_count,
            batch_size=batch_size,
            order=order.value if order is not None else None,
            hypergradient=hypergradient.value if hypergradient is not None else None,
            strategy=strategy,
            channels=channels,
            layers=layers,
            width=width,
            lr=lr,
            out=out,
            seed=seed,
            epochs=epochs,
            recipe=recipe,
            config=config,
            set=tuple(set_ or ()),
            resume=resume,
            max_steps=max_steps,
            checkpoint_every=checkpoint_every,
            dry_run=dry_run,
            probe=probe,
            tensorboard=tensorboard,
            quiet=quiet,
            no_live=no_live,
            gpu=gpu,
            device=device,
            precision=precision.value if precision is not None else None,
            accumulate=accumulate,
            compile=compile_,
            deterministic=deterministic,
            sync_batchnorm=sync_batchnorm,
            memory=memory.value if memory is not None else None,
        ),
    )


@app.command()
def derive(
    source: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A search.")],
    epoch: Annotated[
        int | None,
        typer.Option(help="The alphas after this epoch.", show_default="the newest"),
    ] = None,
    output: Output = None,
) -> None:
    """Derive the genotype of a search, and tell how sure the choice is.

    Prints the genotype's file.
    """
    from darts_cli.commands import derive as command

    command.derive_genotype(source, epoch, output)


@app.command()
def train(
    genotype: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="What to train: darts_v2, or a file.")
    ] = None,
    data: Data = None,
    image_size: ImageSize = None,
    min_count: MinCount = None,
    batch_size: BatchSize = None,
    channels: Channels = None,
    layers: Layers = None,
    width: Width = None,
    lr: LearningRate = None,
    out: Out = None,
    seed: Seed = None,
    epochs: Epochs = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    set_: Set = None,
    resume: Resume = None,
    max_steps: MaxSteps = None,
    checkpoint_every: CheckpointEvery = "10",
    dry_run: DryRun = False,
    probe: Probe = False,
    tensorboard: TensorBoard = False,
    quiet: Quiet = False,
    no_live: NoLive = False,
    gpu: Gpu = None,
    device: Device = None,
    precision: Precision = None,
    accumulate: Accumulate = None,
    compile_: Compile = False,
    deterministic: Deterministic = False,
    sync_batchnorm: SyncBatchNorm = None,
) -> None:
    """Train the network of a genotype; without other flags, as in the paper, on CIFAR-10 or PTB.

    Prints the directory of the run, which holds the checkpoint.
    """
    from darts_cli.commands import train as command
    from darts_cli.commands.options import Options

    command.train(
        genotype,
        Options(
            data=data,
            image_size=image_size,
            min_count=min_count,
            batch_size=batch_size,
            channels=channels,
            layers=layers,
            width=width,
            lr=lr,
            out=out,
            seed=seed,
            epochs=epochs,
            recipe=recipe,
            config=config,
            set=tuple(set_ or ()),
            resume=resume,
            max_steps=max_steps,
            checkpoint_every=checkpoint_every,
            dry_run=dry_run,
            probe=probe,
            tensorboard=tensorboard,
            quiet=quiet,
            no_live=no_live,
            gpu=gpu,
            device=device,
            precision=precision.value if precision is not None else None,
            accumulate=accumulate,
            compile=compile_,
            deterministic=deterministic,
            sync_batchnorm=sync_batchnorm,
        ),
    )


@app.command("eval")
def evaluate(
    source: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A trained network.")],
    data: Data = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, valid or test.",
            show_default="test; of a text's run valid and test",
            rich_help_panel=DATA,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Examples at once; for text, places read side by side.",
            show_default="256 images, 1 text",
            rich_help_panel=DATA,
        ),
    ] = None,
    quiet: Quiet = False,
    gpu: Gpu = None,
    device: Device = None,
) -> None:
    """Measure a trained network on a split of its data, or of other data with its classes or words.

    Prints the measures of each split, and the JSON file with them.
    """
    from darts_cli.commands import evaluate as command

    command.evaluate_checkpoint(
        source,
        data_name=data,
        split=split,
        batch_size=batch_size,
        gpu=gpu,
        device_name=device,
        quiet=quiet,
    )


@app.command()
def viz(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|GENOTYPE|RUN",
            help="A genotype by name or file, or a run; two are compared.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write: .svg, .png, .pdf, .dot, .mmd; of a run also .gif, its cells "
            "epoch by epoch, and .html, one page of all; of several runs .html compares them.",
            show_default="the terminal",
        ),
    ] = None,
    show: Annotated[
        Show,
        typer.Option(
            metavar="WHAT",
            help="What of a run: cells; alphas, as heat maps; lines, of the same; curves of its "
            "measures; signals of a collapse.",
        ),
    ] = Show.CELLS,
    format_: Annotated[
        TextFormat | None,
        typer.Option("--format", help="Print the cells for Graphviz or Mermaid."),
    ] = None,
    theme: Annotated[
        ThemeName, typer.Option(help="Of pictures; a page has both.")
    ] = ThemeName.LIGHT,
    legend: Annotated[
        bool, typer.Option("--legend", help="Explain colours and boxes of cells.")
    ] = False,
    title: Annotated[bool, typer.Option(help="Name genotype and cells.")] = True,
) -> None:
    """Draw the cells of a genotype, compare two, or show what happened in a run.

    Prints the file.
    """
    from darts_cli.commands import viz as command
    from darts_cli.viz.style import Style

    command.visualize(
        command.Request(
            sources=tuple(sources),
            output=output,
            show=show.value,
            format=format_.value if format_ is not None else None,
            style=Style(theme=theme.value, title=title, legend=legend),
        )
    )


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .pt file of torch.save, or a text with Genotype(...) in it.",
            show_default=False,
        ),
    ],
    genotype: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="What a discrete network was made of."),
    ] = None,
    data: Data = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES|FILE",
            help="Classes in the order of the logits: between commas, or one a line.",
            show_default="those of --data",
            rich_help_panel=DATA,
        ),
    ] = None,
    image_size: ImageSize = None,
    min_count: MinCount = None,
    alphas: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .pt file with a supernet's alphas.")
    ] = None,
    recipe: Recipe = None,
    name: Annotated[
        str | None, typer.Option(help="Which of several genotypes in a text.", show_default=False)
    ] = None,
    output: OutputHere = None,
) -> None:
    """Make a checkpoint of a published one, or a genotype's file of a pasted Genotype(...).

    Runs nothing that is in the file. Prints what was made.
    """
    from darts_cli.commands import import_ as command

    command.import_file(
        command.Request(
            source=source,
            genotype=genotype,
            data=data,
            classes=classes,
            image_size=image_size,
            min_count=min_count,
            alphas=alphas,
            recipe=recipe,
            name=name,
            output=output,
        )
    )


@app.command()
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CHECKPOINT|GENOTYPE",
            help="A run, a .safetensors file, or a genotype by name or file.",
            show_default=False,
        ),
    ],
    output: OutputHere = None,
) -> None:
    """Make a .pt file with published names of a network, or print a genotype as code has it.

    Prints the file, or the genotype; a supernet's alphas are in another file beside it.
    """
    from darts_cli.commands import export as command

    command.export(source, output)


@app.command()
def manual(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC", help="A page of the manual.", show_default="the list of pages"
        ),
    ] = None,
) -> None:
    """Show a page of the manual, or list its pages."""
    from darts_cli.commands import manual as command

    command.show_manual(topic)


def main() -> None:
    """Run the command line; leave with 0, 1 (failed), 2 (bad input) or a signal's status."""
    try:
        with redirect_stdout(cast(TextIO, CheckedStdout(sys.stdout))) as results:
            status = app(prog_name="darts", standalone_mode=False)
            results.flush()
    except OutputError as error:
        _leave(f"darts: {error}" if str(error) else "", error.exit_status)
    except (ConfigError, DivergenceError) as error:
        _leave(_once(f"darts: {error}"), error.exit_status)
    except DartsError as error:
        _leave(f"darts: {_rank()}{error}", error.exit_status)
    except TyperException as error:
        _leave(_once(_usage(error)), 2)
    except PermissionError as error:
        # Of a folder above what was named: even whether something is there cannot be asked then.
        _leave(f"darts: {error.filename}: cannot be read ({error.strerror}); check permissions", 2)
    except Interrupted as stop:
        _leave(_once(f"darts: {stop}"), stop.exit_status)
    if status == _INTERRUPTED:
        _leave("darts: interrupted", _INTERRUPTED)
    _leave("", status if isinstance(status, int) else 0)


def _rank() -> str:
    """Which process of a run speaks, if there are several."""
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return f"process {os.environ.get('RANK', '?')}: " if several else ""


def _once(message: str) -> str:
    """What all processes of a run would say: the first one alone says it."""
    return message if not _rank() or os.environ.get("RANK") == "0" else ""


def _usage(error: TyperException) -> str:
    """One line about wrong usage; none where no command was given, which shows the help."""
    # Typer's checks are pydantic's, which names the exception behind them.
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "darts"
    return f"darts: {message} (see {command} --help)" if message else ""


def _leave(message: str, status: int) -> NoReturn:
    if message and sys.stderr is not None:
        with suppress(OSError):
            print(" ".join(message.split()), file=sys.stderr)
    give_up_unwritten()
    sys.exit(status)
