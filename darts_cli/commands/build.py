"""Build the state of a run from its settings: the network, and what trains it."""

import torch

from darts_cli.commands.run_spec import RunSpec
from darts_cli.config import AlphasConfig
from darts_cli.engine import strategies
from darts_cli.engine.architect import Architect
from darts_cli.engine.capabilities import regions, save_memory, synchronize_batchnorm
from darts_cli.engine.execution import StepExecution
from darts_cli.engine.meter import Meter
from darts_cli.engine.state import State, build_optimizer
from darts_cli.engine.task import DatasetInfo
from darts_cli.errors import ConfigError
from darts_cli.runtime.compilation import Compilation
from darts_cli.runtime.precision import GradScaler, Precision
from darts_cli.runtime.randomness import generator_for, seed_for
from darts_cli.runtime.ranks import Ranks


def build_state(spec: RunSpec, info: DatasetInfo, device: torch.device, ranks: Ranks) -> State:
    """Build a network with fresh weights, and what trains it.

    Raises:
        ConfigError: if it cannot be computed as the settings say.
    """
    config, compute, alphas = spec.config, spec.config.compute, spec.config.alphas
    execution = StepExecution(
        ranks=ranks,
        accumulation_steps=compute.accumulate,
        precision=Precision(compute.precision, device),
        grad_scaler=GradScaler(device) if compute.precision == "fp16" else None,
    )
    torch.manual_seed(seed_for(config.seed, "initial weights"))
    module = spec.task.build(config, info, spec.genotype)
    network = module.network
    if compute.memory == "save":
        save_memory(network)
    if compute.sync_batchnorm and ranks.size > 1:
        synchronize_batchnorm(network)
    network.to(device)
    optimizer = build_optimizer(network, config.weights)
    architect = _build_architect(spec, alphas, device) if alphas is not None else None
    if compute.compile and alphas is not None and alphas.hypergradient == "exact":
        raise ConfigError(
            "--compile: found --hypergradient exact, whose double backward cannot be compiled; "
            "expected finite-difference, or leave --compile out"
        )
    return State(
        module=module,
        optimizer=optimizer,
        architect=architect,
        meter=Meter(module.metric_names, device),
        execution=execution,
        compilation=Compilation(regions(network)) if compute.compile else None,
    )


def _build_architect(spec: RunSpec, config: AlphasConfig, device: torch.device) -> Architect:
    generator = generator_for(spec.config.seed, "initial alphas")
    strategy = strategies.find(config.strategy)
    alphas = strategy.initial(spec.task.space, config.init_scale, generator)
    return Architect({cell: alpha.to(device) for cell, alpha in alphas.items()}, config)
