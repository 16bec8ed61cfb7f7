"""`darts train`: train the network that a genotype describes from scratch."""

from darts_cli.commands import resuming, starting
from darts_cli.commands.options import Options, settle
from darts_cli.commands.run_spec import RunSpec
from darts_cli.errors import ConfigError
from darts_cli.genotype.file import load
from darts_cli.spaces import SPACES


def train(genotype_name: str | None, options: Options) -> None:
    """Start a training, or go on with one.

    Raises:
        DartsError: for whatever a user can mend.
    """
    if options.resume is not None:
        if genotype_name is not None:
            raise ConfigError("--genotype: not with --resume, which goes on with the run's own")
        resuming.resume("train", options)
        return
    if genotype_name is None:
        raise ConfigError("--genotype: expected a genotype's name or file, such as darts_v2")
    genotype = load(genotype_name, SPACES)
    config = settle("train", genotype.space, options)
    starting.start(RunSpec(command="train", config=config, genotype=genotype), options)
