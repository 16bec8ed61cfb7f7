"""From the settings of a run to the network that it trains, and what trains it."""

from typing import Any

import torch

from darts_cli.commands.options import Options
from darts_cli.commands.run_spec import RunSpec
from darts_cli.config import AlphasConfig, Config
from darts_cli.engine import strategies
from darts_cli.engine.architect import Architect
from darts_cli.engine.capabilities import regions, save_memory, synchronize_batchnorm
from darts_cli.engine.execution import StepExecution
from darts_cli.engine.meter import Meter
from darts_cli.engine.state import State, build_optimizer
from darts_cli.engine.task import DatasetInfo, TrainingModule
from darts_cli.errors import ConfigError
from darts_cli.runtime.compilation import Compilation
from darts_cli.runtime.precision import GradScaler, Precision
from darts_cli.runtime.randomness import generator_for, seed_for
from darts_cli.runtime.ranks import Ranks


def build_state(
    spec: RunSpec, info: DatasetInfo, device: torch.device, ranks: Ranks, options: Options
) -> State:
    """A network with fresh weights, and what trains it.

    Raises:
        ConfigError: if it cannot be computed as the settings and options ask for.
    """
    config = spec.config
    execution = _build_execution(config, device, ranks)
    torch.manual_seed(seed_for(config.seed, "initial weights"))
    module = spec.task.build(config, info, spec.genotype)
    if options.save_memory:
        save_memory(module.network)
    if config.compute.sync_batchnorm and ranks.size > 1:
        synchronize_batchnorm(module.network)
    module.network.to(device)
    return State(
        module=module,
        optimizer=build_optimizer(module.network, config.weights),
        architect=_build_architect(spec, config.alphas, device) if config.alphas else None,
        meter=Meter(module.metric_names, device),
        execution=execution,
        compilation=_compile(config, module) if options.compile else None,
    )


def _build_execution(config: Config, device: torch.device, ranks: Ranks) -> StepExecution:
    precision = config.compute.precision
    return StepExecution(
        ranks=ranks,
        accumulation_steps=config.compute.accumulate,
        precision=Precision(precision, device),
        grad_scaler=GradScaler(device) if precision == "fp16" else None,
    )


def _compile(config: Config, module: TrainingModule[Any]) -> Compilation:
    if config.alphas is not None and config.alphas.hypergradient == "exact":
        raise ConfigError(
            "--compile: found --hypergradient exact, whose double backward cannot be compiled; "
            "expected finite-difference, or leave --compile out"
        )
    return Compilation(regions(module.network))


def _build_architect(spec: RunSpec, config: AlphasConfig, device: torch.device) -> Architect:
    draws = generator_for(spec.config.seed, "initial alphas")
    alphas = strategies.find(config.strategy).initial(spec.task.space, config.init_scale, draws)
    return Architect({cell: alpha.to(device) for cell, alpha in alphas.items()}, config)
