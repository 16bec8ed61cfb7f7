"""The searched cell over a segment, with its own gradient, against autograd through the formula."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darts_cli.spaces.rnn.kernels import segment
from darts_cli.spaces.rnn.kernels.segment import CellLayout, SearchSegment, plain_segment
from darts_cli.spaces.rnn.primitives import RNN

pytestmark = pytest.mark.usefixtures("double_precision")

WORDS, BATCH, WIDTH = 5, 4, 3
NAMES = ("projected", "hidden", "mixture", "recurrent", "weights")
Segment = Callable[..., Tensor]
segment_of: Segment = SearchSegment.apply


@dataclass
class Inputs:
    """What a segment is given."""

    projected: Tensor
    hidden: Tensor
    mask: Tensor | None
    mixture: Tensor
    recurrent: Tensor
    weights: list[Tensor]

    def run(self, function: Segment, layout: CellLayout) -> Tensor:
        return function(
            layout,
            self.projected,
            self.hidden,
            self.mask,
            self.mixture,
            self.recurrent,
            *self.weights,
        )

    def tensors(self, *names: str) -> list[Tensor]:
        found: list[Tensor] = []
        for name in names:
            value = getattr(self, name)
            found += value if isinstance(value, list) else [value]
        return found


def make_inputs(*, masked: bool = True) -> Inputs:
    torch.manual_seed(1)
    mask = torch.randint(2, (BATCH, WIDTH)).double() * 1.5 if masked else None
    inputs = Inputs(
        projected=torch.randn(WORDS, BATCH, 2 * WIDTH),
        hidden=torch.randn(BATCH, WIDTH),
        mask=mask,
        mixture=torch.randn(len(RNN.edges), len(RNN.primitives)).softmax(-1),
        recurrent=torch.randn(WIDTH, 2 * WIDTH),
        weights=[torch.randn(WIDTH, 2 * WIDTH) for _ in range(RNN.nodes)],
    )
    for tensor in inputs.tensors(*NAMES):
        tensor.requires_grad_()
    return inputs


def make_layout(*, training: bool = True) -> CellLayout:
    norm = nn.BatchNorm1d(WIDTH, affine=False).train(training)
    if not training:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean += 0.2
        norm.running_var *= 1.3
    return CellLayout(RNN, norm)


@pytest.fixture(params=[1, 500, 2**20], ids=["word by word", "in parts", "at once"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(segment, "_CHUNK", request.param)
    return request.param


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "names", [NAMES, ("mixture",), ("weights", "recurrent"), ("projected",), ("hidden", "mixture")]
)
def test_states_and_gradients_are_those_of_the_formula(
    names: tuple[str, ...], *, training: bool, masked: bool
) -> None:
    inputs = make_inputs(masked=masked)
    for other in set(NAMES) - set(names):
        for tensor in inputs.tensors(other):
            tensor.requires_grad_(False)
    found = []
    for function in (plain_segment, segment_of):
        states = inputs.run(function, make_layout(training=training))
        weighed = (states * torch.linspace(-1, 2, states.numel()).view_as(states)).sum()
        found.append((states, *torch.autograd.grad(weighed, inputs.tensors(*names))))
    for plain, ours in zip(*found, strict=True):
        assert torch.allclose(ours, plain, rtol=1e-10, atol=1e-12)


def test_the_gradient_is_the_difference_quotient() -> None:
    inputs = make_inputs()
    layout = make_layout()
    # The functions of the space with a kink would need steps that do not cross it.
    tensors = inputs.tensors("hidden", "mixture")

    def run(hidden: Tensor, mixture: Tensor) -> Tensor:
        return segment_of(
            layout,
            inputs.projected,
            hidden,
            inputs.mask,
            mixture,
            inputs.recurrent,
            *inputs.weights,
        )

    assert torch.autograd.gradcheck(run, tensors, eps=1e-7, atol=1e-5)


def test_the_gradient_can_be_differentiated_again() -> None:
    inputs = make_inputs()
    products = []
    for function in (plain_segment, segment_of):
        states = inputs.run(function, make_layout())
        weights = inputs.tensors("weights", "recurrent")
        slopes = torch.autograd.grad(states.square().sum(), weights, create_graph=True)
        along = torch.stack([slope.sum() for slope in slopes]).sum()
        products.append(torch.autograd.grad(along, [inputs.mixture])[0])
    assert products[0].abs().max() > 1e-3
    assert torch.allclose(products[1], products[0], rtol=1e-9, atol=1e-12)


def test_going_back_twice_gives_the_same() -> None:
    inputs = make_inputs()
    total = inputs.run(segment_of, make_layout()).square().sum()
    tensors = inputs.tensors(*NAMES)
    first = torch.autograd.grad(total, tensors, retain_graph=True)
    second = torch.autograd.grad(total, tensors)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_running_statistics_move_as_those_of_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs()
    ours, plain = make_layout(), make_layout()
    inputs.run(segment_of, ours)
    monkeypatch.setattr(CellLayout, "normalize", lambda self, state: self.norm(state))
    inputs.run(plain_segment, plain)
    found, expected = ours.norm.state_dict(), plain.norm.state_dict()
    assert found["num_batches_tracked"] == expected["num_batches_tracked"] == WORDS * 9
    for name in ("running_mean", "running_var"):
        assert not torch.equal(found[name], make_layout().norm.state_dict()[name])
        assert torch.allclose(found[name], expected[name], rtol=1e-12)


def test_evaluation_leaves_running_statistics_alone() -> None:
    layout = make_layout(training=False)
    before = {name: value.clone() for name, value in layout.norm.state_dict().items()}
    make_inputs().run(segment_of, layout).sum().backward()
    after = layout.norm.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_differentiating_twice_moves_running_statistics_once() -> None:
    inputs, layout = make_inputs(), make_layout()
    states = inputs.run(segment_of, layout)
    (slope,) = torch.autograd.grad(states.square().sum(), inputs.recurrent, create_graph=True)
    torch.autograd.grad(slope.sum(), inputs.mixture)
    assert layout.norm.num_batches_tracked == WORDS * 9


def test_what_is_kept_is_less_than_a_third_of_what_autograd_keeps() -> None:
    kept = []
    for function in (plain_segment, segment_of):
        sizes: dict[int, int] = {}

        def note(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            states = make_inputs().run(function, make_layout())
        kept.append(sum(sizes.values()))
        del states
    assert kept[1] < kept[0] / 3, kept
