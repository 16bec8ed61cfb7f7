"""The commands, and what becomes of their errors. No torch is imported until a command needs it."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import MISSING, Field
from inspect import Parameter, Signature
from typing import Annotated, Any, NoReturn, TextIO, TypeVar, cast, get_type_hints

import typer
from typer.exceptions import TyperException

from darts_cli import __version__, options
from darts_cli.errors import ConfigError, DartsError, DivergenceError, Interrupted
from darts_cli.terminal.stdio import CheckedStdout, OutputError, give_up_unwritten

app = typer.Typer(name="darts", no_args_is_help=True, pretty_exceptions_enable=False)

# The status that Typer returns after a Ctrl-C that no run took as a request to stop.
_INTERRUPTED = 130

RequestT = TypeVar("RequestT")


def _command(
    *examples: str, name: str | None = None
) -> Callable[[Callable[[RequestT], None]], Callable[[RequestT], None]]:
    """Add a command whose flags are the fields of its argument's dataclass."""

    def register(function: Callable[[RequestT], None]) -> Callable[[RequestT], None]:
        kind = get_type_hints(function)["request"]
        declared = sorted(options.flags(kind), key=lambda pair: _place_in_help(pair[1]))
        # Once a command: resolving the hints takes longer than all else here.
        hints = get_type_hints(kind)
        parameters = [_parameter(field, declaration, hints) for field, declaration in declared]

        def command(**values: Any) -> None:
            function(kind(**values))

        command.__doc__ = function.__doc__
        # What Typer makes the command's flags of.
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        epilog = "\n\n".join(["Examples:", *(f"  {example}" for example in examples)])
        app.command(name or function.__name__, epilog=epilog)(command)
        return function

    return register


def _place_in_help(declaration: options.Flag) -> int:
    """Return where help lists a flag: arguments first, then panel by panel."""
    return -1 if declaration.argument else (None, *options.PANELS).index(declaration.panel)


def _parameter(field: Field[Any], declaration: options.Flag, hints: Mapping[str, Any]) -> Parameter:
    """Return what Typer has to know of a flag or argument."""
    shared: dict[str, Any] = {
        "help": declaration.help,
        "metavar": declaration.metavar,
        "autocompletion": declaration.complete,
        "rich_help_panel": declaration.panel,
        "min": declaration.minimum,
    }
    if declaration.argument:
        typed = typer.Argument(**shared, show_default=declaration.default or False)
    else:
        # A switch that is off has no --no-NAME.
        names = (options.spelling(field.name),) if field.default is False else ()
        typed = typer.Option(*names, **shared, show_default=declaration.default or True)
    return Parameter(
        field.name,
        Parameter.KEYWORD_ONLY,
        default=Parameter.empty if field.default is MISSING else field.default,
        annotation=Annotated[hints[field.name], typed],
    )


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


@_command(
    "darts search cnn --gpu 0",
    "darts search rnn --data letters --width 200 --lr 5 --out runs/search",
)
def search(request: options.SearchOptions) -> None:
    """Search a cell; without flags, the paper's second-order search on CIFAR-10 or PTB.

    Prints the directory of the run, which holds the genotype of the newest alphas.
    """
    from darts_cli.commands import search as command

    command.search(request)


@_command("darts derive runs/search", "darts derive runs/search --epoch 25 --output cell.yaml")
def derive(request: options.DeriveOptions) -> None:
    """Derive the genotype of a search, and report how sure the choice is.

    Prints the genotype's file.
    """
    from darts_cli.commands import derive as command

    command.derive_genotype(request)


@_command(
    "darts train --genotype darts_v2 --gpu 0",
    "darts train --genotype cell.yaml --data flowers --image-size 32",
)
def train(request: options.TrainOptions) -> None:
    """Train the network of a genotype; without other flags, as in the paper, on CIFAR-10 or PTB.

    Prints the directory of the run, which holds the checkpoint.
    """
    from darts_cli.commands import train as command

    command.train(request)


@_command("darts eval runs/train", "darts eval runs/train --data DIR --split test", name="eval")
def evaluate(request: options.EvalOptions) -> None:
    """Measure a trained network on a split of its data, or of other data with its classes or words.

    Prints the metrics of each split, and the JSON file with them.
    """
    from darts_cli.commands import evaluate as command

    command.evaluate_checkpoint(request)


@_command(
    "darts viz darts_v2 --output cell.svg",
    "darts viz runs/search --show alphas --output alphas.png",
)
def viz(request: options.VizOptions) -> None:
    """Draw the cells of a genotype, compare two, or show what happened in a run.

    Prints the file.
    """
    from darts_cli.commands import viz as command

    command.visualize(request)


@_command(
    "darts import cifar10_model.pt --genotype darts_v2",
    "darts import genotypes.py --name MY_CELL",
    name="import",
)
def import_(request: options.ImportOptions) -> None:
    """Make a checkpoint of a published one, or a genotype's file of a pasted Genotype(...).

    Importing never executes code from the file. Prints what was made.
    """
    from darts_cli.commands import import_ as command

    command.import_file(request)


@_command("darts export runs/train --output network.pt", "darts export runs/search/genotype.yaml")
def export(request: options.ExportOptions) -> None:
    """Make a .pt file with published names of a network, or print a genotype as code has it.

    Prints the file, or the genotype; a supernet's alphas are in another file beside it.
    """
    from darts_cli.commands import export as command

    command.export(request.source, request.output)


@_command("darts manual", "darts manual resume")
def manual(request: options.ManualOptions) -> None:
    """Show a page of the manual, or list its pages."""
    from darts_cli.commands import manual as command

    command.show_manual(request.topic)


def main() -> None:
    """Run the command line; exit with 0, 1 (failed), 2 (bad input) or a signal's status."""
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
    """Return the prefix that names this process of a run, if there are several."""
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return f"process {os.environ.get('RANK', '?')}: " if several else ""


def _once(message: str) -> str:
    """Return a message that all processes of a run would print: on rank 0 alone."""
    return message if not _rank() or os.environ.get("RANK") == "0" else ""


def _usage(error: TyperException) -> str:
    """Return one line about wrong usage; nothing where no command was given, which shows help."""
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
