"""`darts search`: find a cell by gradient descent on alphas and weights together."""

from darts_cli.commands import pipeline
from darts_cli.commands.run_spec import RunSpec
from darts_cli.commands.settings import resolve_config
from darts_cli.options import SearchOptions


def search(options: SearchOptions) -> None:
    """Start a search, or resume one.

    Raises:
        DartsError: for whatever a user can mend.
    """
    if options.resume is not None:
        pipeline.resume(f"search {options.space}", options)
        return
    config = resolve_config("search", options.space, options)
    pipeline.start(RunSpec(command="search", config=config, genotype=None), options)
