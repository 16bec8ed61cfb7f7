"""The plan of a run, without running it: parameters, MACs, steps and memory."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from darts_cli import config_file
from darts_cli.commands.run_spec import RunSpec
from darts_cli.config import Config
from darts_cli.engine import capabilities, strategies
from darts_cli.engine.probe import Probe
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, DatasetInfo, Description, Task, TrainingModule
from darts_cli.genotype.types import Genotype
from darts_cli.runtime import devices
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks
from darts_cli.terminal.console import error_console, format_seconds, plan_table


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Size of a network and of a training step."""

    parameters: int
    """Weights in evaluation, without an auxiliary head."""
    training_parameters: int
    """Weights in training."""
    alphas: int
    macs: int
    """Multiply-adds of convolutions and linear layers for one example in evaluation."""
    memory_bytes: int
    """Estimate for a training step: weights, their optimizer's state and copies, activations."""


def measure(
    task: Task,
    config: Config,
    info: DatasetInfo,
    genotype: Genotype | None,
    *,
    ranks: Ranks = SINGLE_PROCESS,
) -> Size:
    """Build the network on the meta device, where nothing is computed, and count."""
    mixture: Mixture = {}
    with torch.device("meta"):
        module = task.build(config, info, genotype)
        if config.compute.memory == "save":
            capabilities.save_memory(module.network)
        if config.alphas is not None:
            strategy = strategies.find(config.alphas.strategy)
            mixture = strategy.mixture(strategy.initial(task.space, 0.0, None))
        single = task.example(config, info, single=True)
        batch = task.example(_part(config, ranks), info, single=False)
    sizes = {name: weight.numel() for name, weight in module.network.named_parameters()}
    training_only = capabilities.training_only(module.network)
    weights = sum(sizes.values())
    return Size(
        parameters=sum(n for name, n in sizes.items() if not name.startswith(training_only)),
        training_parameters=weights,
        alphas=sum(rows.numel() for rows in mixture.values()),
        macs=_macs(module, single, mixture),
        memory_bytes=_memory(config, module, batch, mixture, weights),
    )


def _part(config: Config, ranks: Ranks) -> Config:
    """Return the settings with the batch that one process computes at once."""
    parts = ranks.size * config.compute.accumulate
    if parts == 1:
        return config
    size = max(2, math.ceil(config.data.batch_size / parts))
    return replace(config, data=replace(config.data, batch_size=size))


def _macs(module: TrainingModule[Any], single: Batch, mixture: Mixture) -> int:
    module.network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.forward(single, mixture)
    # The counter takes a multiplication and an addition as two.
    return int(counter.get_total_flops()) // 2


def _memory(
    config: Config, module: TrainingModule[Any], batch: Batch, mixture: Mixture, weights: int
) -> int:
    """Estimate the bytes of a training step; counts the storages that autograd saves."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # A meta tensor has no address; its storage object tells it from others.
        kept[storage._cdata] = storage.nbytes()  # noqa: SLF001
        return tensor

    module.network.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = module.training_loss(module.forward(batch, mixture), batch)
    del loss
    # Gradient and momentum; in the second order the start, v and its shift besides.
    copies = 6 if config.alphas is not None and config.alphas.order == "second" else 3
    return sum(kept.values()) + copies * weights * torch.float32.itemsize


def format_bytes(number: float) -> str:
    """Format a number of bytes in its largest unit: `1.5 GiB`."""
    exponent = min(int(math.log(max(number, 1), 1024)), 4)
    return f"{number / 1024**exponent:.1f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[exponent]}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of a run: what it computes, on which data, and how large that is."""

    spec: RunSpec
    info: DatasetInfo
    counts: Mapping[str, int]
    device: torch.device
    path: Path
    size: Size
    ranks: Ranks

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch that train the weights."""
        spec = self.spec
        return spec.task.steps(
            spec.config, self.counts, search=spec.search, processes=self.ranks.size
        )

    @property
    def description(self) -> Description:
        """Texts of the space about the run."""
        return self.spec.task.describe(self.spec.config, self.info)


def print_json(plan: Plan, probe: Probe | None = None) -> None:
    """Print the table, and the plan as one JSON object on standard output."""
    show(plan, probe)
    spec, config = plan.spec, plan.spec.config
    fields = {
        "command": spec.command,
        "space": config.space,
        "genotype": spec.genotype.name if spec.genotype is not None else None,
        "device": str(plan.device),
        "data": {"name": config.data.name, **plan.description.fields, **plan.counts},
        "epochs": config.epochs,
        "steps_per_epoch": plan.steps_per_epoch,
        "steps": plan.steps_per_epoch * config.epochs,
        **asdict(plan.size),
        **({"probe": asdict(probe)} if probe is not None else {}),
        "out": str(plan.path),
        "config": config_file.as_mapping(config),
    }
    print(json.dumps(fields))


def _describe_parts(config: Config, ranks: Ranks) -> str:
    """Describe how a step is split and its precision, where not whole in one float32 process."""
    parts, precision = config.compute.accumulate, config.compute.precision
    notes = [f"{ranks.size} processes"] if ranks.size > 1 else []
    notes += [f"{parts} parts of a batch"] if parts > 1 else []
    notes += [precision] if precision != "fp32" else []
    return "".join(f", {note}" for note in notes)


def _describe_probe(probe: Probe, batch: int) -> dict[str, str]:
    """Return the table's rows of what a few steps measured."""
    epoch, run = format_seconds(probe.epoch_seconds), format_seconds(probe.run_seconds)
    peak, largest = format_bytes(probe.peak_bytes), "not known"
    if probe.available_bytes is not None:
        peak += f" of {format_bytes(probe.available_bytes)}"
    if probe.largest_batch is not None:
        largest = f"about {probe.largest_batch:,}"
        largest += "; this one does not fit" if probe.largest_batch < batch else ""
    time = f"{probe.step_seconds:.3g} s a step, {epoch} an epoch, {run} in all"
    return {"time": time, "peak": peak, "largest batch": largest}


def show(plan: Plan, probe: Probe | None = None) -> None:
    """Print the table that every run begins with, on standard error."""
    spec, config, size, words = plan.spec, plan.spec.config, plan.size, plan.description
    splits = ", ".join(f"{count:,} {split}" for split, count in plan.counts.items())
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs:,} epochs"
    rows = {
        "device": devices.describe(plan.device) + _describe_parts(config, plan.ranks),
        "data": f"{config.data.name}: {splits}; {words.data}",
        "network": words.network,
        "parameters": f"{size.parameters:,}"
        + (f" and {size.alphas} alphas" if size.alphas else ""),
        "MACs": f"{size.macs:,} for one {words.unit}",
        "steps": f"{epochs} of {plan.steps_per_epoch:,}, batch {words.batch}",
        "memory": f"about {format_bytes(size.memory_bytes)} in a step",
        "seed": str(config.seed),
        "output": str(plan.path),
    }
    if config.alphas is not None:
        rows["order"] = f"{config.alphas.order} ({config.alphas.hypergradient})"
    if probe is not None:
        rows |= _describe_probe(probe, config.data.batch_size)
    title = f"darts {spec.words}" + (f" {spec.genotype.name}" if spec.genotype is not None else "")
    error_console().print(plan_table(title, rows))
