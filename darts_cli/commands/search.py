"""`darts search`: find a cell by gradient descent on alphas and weights together."""

from darts_cli.commands import resuming, starting
from darts_cli.commands.options import Options, settle
from darts_cli.commands.run_spec import RunSpec


def search(space: str, options: Options) -> None:
    """Start a search, or go on with one.

    Raises:
        DartsError: for whatever a user can mend.
    """
    if options.resume is not None:
        resuming.resume(f"search {space}", options)
        return
    config = settle("search", space, options)
    starting.start(RunSpec(command="search", config=config, genotype=None), options)
