"""Both spaces in parts, by several processes, in less precision and compiled: the same steps."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from darts_cli.config import Config, ConvNetworkConfig, RecurrentNetworkConfig
from darts_cli.engine.architect import Architect
from darts_cli.engine.capabilities import regions, synchronize_batchnorm
from darts_cli.engine.execution import StepExecution
from darts_cli.engine.steps import search_step, train_step
from darts_cli.engine.task import Batch, Output
from darts_cli.errors import ConfigError
from darts_cli.genotype.file import load
from darts_cli.runtime import compilation
from darts_cli.runtime.compilation import Compilation
from darts_cli.runtime.precision import GradScaler, Precision
from darts_cli.runtime.ranks import Ranks
from darts_cli.spaces import SPACES
from darts_cli.spaces.cnn.kernels.pooling import (
    NormalizedPooling,
    Pooling,
    SharedMaps,
    mixed_shared,
)
from darts_cli.spaces.cnn.primitives import CNN
from darts_cli.spaces.cnn.supernet import MixedOps
from tests.benchmarks.cases import Case, make_cases, make_state
from tests.runtime.processes import Together

CPU = torch.device("cpu")
KINDS = ("cnn search", "cnn training", "rnn search", "rnn training")


def make_case(kind: str, order: str = "second") -> Case:
    """A small one without dropout, whose masks would be others for every part."""
    space, what = kind.split()
    case = make_cases()["cnn-16x8-b8-second" if space == "cnn" else "rnn-32-b16-second"]
    config: Config = replace(case.config, data=replace(case.config.data, batch_size=6))
    if space == "cnn":
        network: Any = ConvNetworkConfig(
            channels=2, layers=1 if what == "search" else 3, auxiliary=0.4
        )
        info: Mapping[str, Any] = {**case.info, "size": 8}
    else:
        names = ("output", "hidden", "input", "embedding", "words")
        network = RecurrentNetworkConfig(
            width=6, activation=0.5, **{f"dropout_{name}": 0.0 for name in names}
        )
        info = {"vocabulary": [str(n) for n in range(11)]}
    assert config.alphas is not None
    alphas = replace(config.alphas, order="first" if order == "first" else "second")
    genotype = load("darts_v2" if space == "cnn" else "rnn_darts_v2", SPACES)
    search = what == "search"
    return replace(
        case,
        config=replace(
            config,
            network=network,
            # The finite difference, times a learning rate of 20, would be mostly rounding.
            weights=replace(config.weights, lr=0.1, lr_min=0.0),
            alphas=alphas if search else None,
        ),
        info=info,
        genotype=None if search else genotype,
    )


def take_steps(
    case: Case, execution: StepExecution, *, training: bool, synchronized: bool = False
) -> list[Tensor]:
    """Two whole steps in the default type, and all that they leave."""
    torch.manual_seed(5)
    state = make_state(case.config, case.info, case.genotype)
    state.execution = execution
    if synchronized:
        synchronize_batchnorm(state.module.network)
    state.module.network.train(training)
    for norm in state.module.network.modules():
        # Where nothing has been seen yet, states of the recurrent search would grow without bound.
        if isinstance(norm, nn.BatchNorm1d) and norm.running_var is not None:
            norm.running_var.fill_(4.0)
    found = []
    for step in range(2):
        state.position.step = step
        generator = torch.Generator().manual_seed(step)
        train, valid = (
            take_part(case.random_batch(generator), execution.ranks, carries_hidden=step > 0)
            for _ in range(2)
        )
        if state.architect is not None:
            found += search_step(state, train, valid, seed=0)
        train_step(state, train, case.config)
    return [*found, *state.state_dict().values()]


def take_part(batch: Batch, ranks: Ranks, *, carries_hidden: bool) -> Batch:
    """A rank's own rows of images, or columns of words."""
    own = ranks.shard(batch.examples)
    share = (own.stop - own.start) / batch.examples
    carries_hidden = carries_hidden and batch.targets.dim() > 1
    if batch.targets.dim() == 1:
        inputs = batch.inputs[own].to(torch.get_default_dtype())
        return Batch(inputs, batch.targets[own], weight=share)
    return Batch(
        batch.inputs[:, own], batch.targets[:, own], weight=share, carries_hidden=carries_hidden
    )


def steps_of(
    ranks: Ranks, case: Case, parts: int, training: bool, synchronized: bool
) -> list[Tensor]:
    """The same on one of several processes, in double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        return take_steps(
            case,
            StepExecution(ranks=ranks, accumulation_steps=parts),
            training=training,
            synchronized=synchronized,
        )
    finally:
        torch.set_default_dtype(torch.float32)


def assert_equal(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# BatchNorm is in evaluation mode, since its moments would be those of a part.
@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_batch_make_the_step_of_the_whole(kind: str) -> None:
    case, training = make_case(kind), kind == "rnn training"
    whole = steps_of(Ranks(), case, 1, training, False)
    for parts in (2, 3):
        assert_equal(steps_of(Ranks(), case, parts, training, False), whole, 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_make_the_step_of_one(together: Together, kind: str) -> None:
    case, training = make_case(kind), kind == "rnn training"
    whole = steps_of(Ranks(), case, 1, training, False)
    for found in together(2, steps_of, case, 1, training, False):
        assert_equal(found, whole, 1e-10)


@pytest.mark.parametrize("kind", ["cnn search", "cnn training"])
def test_synchronized_batchnorm_is_that_of_the_whole_batch(together: Together, kind: str) -> None:
    case = make_case(kind)
    whole = steps_of(Ranks(), case, 1, True, False)
    assert_equal(steps_of(Ranks(), case, 1, True, True), whole, 1e-9)
    first, second = together(2, steps_of, case, 1, True, True)
    assert_equal(first, whole, 1e-9)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    apart = together(2, steps_of, case, 1, True, False)[0]
    assert not all(torch.allclose(a, b) for a, b in zip(apart, whole, strict=True))


def test_text_has_no_batchnorm_to_synchronize_and_no_regions_to_compile() -> None:
    case = make_case("rnn search")
    network = make_state(case.config, case.info, None).module.network
    with pytest.raises(ConfigError, match=r"^--sync-batchnorm: for images, leave it out for text$"):
        synchronize_batchnorm(network)
    with pytest.raises(ConfigError, match=r"^--compile: for images, leave it out for text$"):
        regions(network)


def reduced(name: str) -> StepExecution:
    scale = GradScaler(CPU) if name == "fp16" else None
    return StepExecution(precision=Precision(name, CPU), grad_scaler=scale)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", KINDS)
def test_reduced_precision_stays_near_and_spares_the_finite_difference(
    monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    case = make_case(kind)
    state = make_state(case.config, case.info, case.genotype)
    state.execution = reduced(name)
    state.module.network.train()
    seen, mixtures = [], []
    forward = type(state.module).forward

    def watched(module: Any, batch: Batch, mixture: Any) -> Output:
        seen.append(torch.is_autocast_enabled("cpu"))
        mixtures.extend(mixture.values())
        output: Output = forward(module, batch, mixture)
        return output

    monkeypatch.setattr(type(state.module), "forward", watched)
    train, valid = case.batches()
    if state.architect is not None:
        search_step(state, train, valid, seed=0)
    train_step(state, train, case.config)
    # The virtual step, validation, both sides of the finite difference, the weights.
    assert seen == ([True, True, False, False, True] if state.architect else [True])
    assert all(mixture.dtype == torch.float32 for mixture in mixtures)
    assert all(
        tensor.dtype == torch.float32
        for name, tensor in state.state_dict().items()
        if tensor.is_floating_point() and name != "meter"
    )


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_reduced_precision_are_those_of_float32_to_two_digits(
    kind: str, name: str
) -> None:
    case, losses = make_case(kind), []
    for execution in (reduced("fp32"), reduced(name)):
        torch.manual_seed(5)
        state = make_state(case.config, case.info, case.genotype)
        state.execution = execution
        state.module.network.train()
        train, valid = case.batches()
        if state.architect is not None:
            search_step(state, train, valid, seed=0)
        train_step(state, train, case.config)
        losses.append(state.meter.read()["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_recurrent_search_in_half_precision_outlives_an_overflow() -> None:
    case = make_case("rnn search")
    state = make_state(case.config, case.info, None)
    scale = GradScaler(CPU)
    # So large that what is multiplied by it overflows, and for a few steps more.
    scale.factor.fill_(2.0**40)
    state.execution = StepExecution(precision=Precision("fp16", CPU), grad_scaler=scale)
    state.module.network.train()
    generator = torch.Generator().manual_seed(0)
    before = [weight.clone() for weight in state.module.network.parameters()]
    for step in range(20):
        state.position.step = step
        train, valid = (
            take_part(case.random_batch(generator), Ranks(), carries_hidden=step > 0)
            for _ in range(2)
        )
        search_step(state, train, valid, seed=0)
        train_step(state, train, case.config)
        if not step:
            weights = state.module.network.parameters()
            assert all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))
    assert all(hidden.isfinite().all() for hidden in state.hidden.values())
    assert scale.factor < 2.0**40
    weights = state.module.network.parameters()
    assert not any(torch.equal(w, b) for w, b in zip(weights, before, strict=True))
    state.check_finite()


class NoWaiting(TorchDispatchMode):
    """Refuses what would wait for a device: reading a number of it, or a shape from it."""

    _WAITING = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select")

    def __init__(self, architect: Architect | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.architect = architect

    def counts(self) -> set[int]:
        """Where Adam counts its steps: on the CPU, whatever the device."""
        states = self.architect.optimizer.state.values() if self.architect else ()
        return {state["step"].data_ptr() for state in states}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        counted = name == "_local_scalar_dense" and args[0].data_ptr() in self.counts()
        assert counted or name not in self._WAITING, name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_step_waits_for_its_device(kind: str, order: str, precision: str) -> None:
    case = make_case(kind, order)
    state = make_state(case.config, case.info, case.genotype)
    state.execution = replace(reduced(precision), accumulation_steps=2)
    state.module.network.train()
    train, valid = case.batches()
    with NoWaiting(state.architect):
        for step in range(2):
            state.position.step = step
            if state.architect is not None:
                search_step(state, train, valid, seed=0)
            train_step(state, train, case.config)
    assert state.meter.count() > 0


def test_the_watch_for_waiting_sees_it() -> None:
    with NoWaiting(), pytest.raises(AssertionError):
        torch.ones(1).item()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("kind", ["cnn search", "cnn training"])
def test_compiled_regions_make_the_same_step(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(compilation, "_BACKEND", "aot_eager")
    torch._dynamo.reset()
    # One cell, and two passes: every variant takes its seconds.
    case, states = make_case(kind, order="first"), []
    for compiled in (False, True):
        torch.manual_seed(5)
        torch.set_default_dtype(torch.float64)
        try:
            state = make_state(case.config, case.info, case.genotype)
            if compiled:
                state.compilation = Compilation(regions(state.module.network))
            state.module.network.train()
            train, valid = (
                replace(batch, inputs=batch.inputs.double()) for batch in case.batches()
            )
            if state.architect is not None:
                search_step(state, train, valid, seed=0)
            train_step(state, train, case.config)
        finally:
            torch.set_default_dtype(torch.float32)
        states.append(state)
    plain, ours = states
    assert plain.state_dict().keys() == ours.state_dict().keys()
    assert_equal(list(ours.state_dict().values()), list(plain.state_dict().values()), 1e-8)
    assert ours.compilation is not None
    news = ours.compilation.news()
    assert news is not None
    assert news.endswith("s so far")
    assert (" of 1 cell in " if kind == "cnn search" else " of 3 cells in ") in news
    assert ours.compilation.news() is None


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_stays_on_its_device(kind: str, order: str) -> None:
    # The meta device computes nothing, and refuses what is on the CPU: what a step made there, and
    # not on its device, would fail on a GPU as it does here.
    case, meta = make_case(kind, order), torch.device("meta")
    state = make_state(case.config, case.info, case.genotype, device=meta)
    state.execution = StepExecution(accumulation_steps=2)
    state.module.network.train()
    few = 4 if case.config.space == "cnn" else 2
    train, valid = (
        # Of four images or two words: torch finds sizes there by a hundred calls in Python each.
        replace(batch, inputs=batch.inputs[:few].to(meta), targets=batch.targets[:few].to(meta))
        for batch in case.batches()
    )
    for step in range(2):
        state.position.step = step
        if state.architect is not None:
            search_step(state, train, valid, seed=0)
        train_step(state, train, case.config)
    assert {tensor.device for tensor in state.module.network.state_dict().values()} == {meta}
    assert state.meter.sums.device == meta


def test_the_mixture_of_poolings_is_not_rounded_to_half_precision() -> None:
    torch.manual_seed(0)
    group = MixedOps(CNN, 4, 1, 2)
    x, pool_weights = torch.randn(2, 4, 6, 6), torch.rand(2, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = mixed_shared(SharedMaps(pools(group), identity=True), x, pool_weights)
    out.float().square().sum().backward()
    assert pool_weights.grad is not None
    # A product in bfloat16 would give gradients with no more digits than that.
    assert not torch.equal(pool_weights.grad, pool_weights.grad.bfloat16().float())


def pools(group: MixedOps) -> list[tuple[Pooling, nn.BatchNorm2d]]:
    return [part.parts() for part in group.shared.values() if isinstance(part, NormalizedPooling)]
