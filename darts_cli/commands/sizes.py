"""Size of the network of a run's genotype, for the run's page."""

from darts_cli.commands.checkpoint_checks import check_size
from darts_cli.commands.plan import measure
from darts_cli.commands.run_spec import read_spec
from darts_cli.errors import DartsError
from darts_cli.run import checkpoint
from darts_cli.run.directory import Run
from darts_cli.run.history import History
from darts_cli.spaces import recipe
from darts_cli.viz.page.data import NetworkSize


def derived_size(history: History) -> NetworkSize | None:
    """Return the size of the network that `darts train` makes of a run's genotype.

    For a training this is the trained network, for a search the network of the default recipe for
    its data.

    Returns:
        None where there is no genotype yet, or no checkpoint that knows the data.
    """
    last = Run(history.path).last
    if history.genotype is None or not last.is_file():
        return None
    try:
        tensors, metadata = checkpoint.read(last)
        spec, info = read_spec(metadata, last), metadata["facts"]
        check_size(spec, info, tensors, last)
        config = spec.config
        if spec.search:
            config = recipe("train", config.space, None, config.data.name)
        size = measure(spec.task, config, info, history.genotype)
    except DartsError:
        # A page without a size is better than none.
        return None
    example = spec.task.describe(config, info).unit
    # A word is a word; of an image one wants to know how large it is.
    if "size" in info:
        example += f" of {info['channels']} x {info['size']} x {info['size']}"
    return NetworkSize(parameters=size.parameters, macs=size.macs, example=example)
