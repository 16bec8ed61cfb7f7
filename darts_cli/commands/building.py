"""From the settings of a run to the network that it trains, and what trains it."""

import torch

from darts_cli.commands.job import Job
from darts_cli.commands.options import Options
from darts_cli.config import AlphasConfig, Config
from darts_cli.engine import strategies
from darts_cli.engine.architect import Architect
from darts_cli.engine.compilation import Compilation
from darts_cli.engine.computation import Computation
from darts_cli.engine.meter import Meter
from darts_cli.engine.precision import LossScale, Precision
from darts_cli.engine.randomness import count, generator
from darts_cli.engine.ranks import Ranks
from darts_cli.engine.state import State, build_optimizer
from darts_cli.engine.task import Facts, Task
from darts_cli.errors import ConfigError


def build_state(
    job: Job, facts: Facts, device: torch.device, ranks: Ranks, options: Options
) -> State:
    """A network with fresh weights, and what trains it.

    Raises:
        ConfigError: if it cannot be computed as the settings and options ask for.
    """
    config = job.config
    computation = _build_computation(config, device, ranks)
    torch.manual_seed(count(config.seed, "initial weights"))
    task = job.domain.build(config, facts, job.genotype)
    if options.save_memory:
        task.network.save_memory()
    if config.compute.sync_batchnorm and ranks.size > 1:
        task.network.synchronize()
    task.module.to(device)
    return State(
        task=task,
        optimizer=build_optimizer(task.module, config.weights),
        architect=_build_architect(job, config.alphas, device) if config.alphas else None,
        meter=Meter(task.measures, device),
        computation=computation,
        compilation=_compile(config, task) if options.compile else None,
    )


def _build_computation(config: Config, device: torch.device, ranks: Ranks) -> Computation:
    precision = config.compute.precision
    return Computation(
        ranks=ranks,
        parts=config.compute.accumulate,
        precision=Precision(precision, device),
        scale=LossScale(device) if precision == "fp16" else None,
    )


def _compile(config: Config, task: Task) -> Compilation:
    if config.alphas is not None and config.alphas.hypergradient == "exact":
        raise ConfigError(
            "--compile: found --hypergradient exact, whose double backward cannot be compiled; "
            "expected finite-difference, or leave --compile out"
        )
    return Compilation(task.network.regions())


def _build_architect(job: Job, config: AlphasConfig, device: torch.device) -> Architect:
    draws = generator(job.config.seed, "initial alphas")
    alphas = strategies.find(config.strategy).initial(job.domain.space, config.init_scale, draws)
    return Architect({cell: alpha.to(device) for cell, alpha in alphas.items()}, config)
