"""`darts train`: train the network of a genotype from scratch."""

from darts_cli.commands import pipeline
from darts_cli.commands.run_spec import RunSpec
from darts_cli.commands.settings import resolve_config
from darts_cli.errors import ConfigError
from darts_cli.genotype.file import load
from darts_cli.options import TrainOptions
from darts_cli.spaces import SPACES


def train(options: TrainOptions) -> None:
    """Start a training, or resume one.

    Raises:
        DartsError: for whatever a user can mend.
    """
    if options.resume is not None:
        pipeline.resume("train", options)
        return
    if options.genotype is None:
        raise ConfigError("--genotype: expected a genotype's name or file, such as darts_v2")
    genotype = load(options.genotype, SPACES)
    config = resolve_config("train", genotype.space, options)
    pipeline.start(RunSpec(command="train", config=config, genotype=genotype), options)
