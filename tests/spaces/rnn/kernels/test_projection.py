"""The cross-entropy of the decoder, chunk by chunk, against torch's of all logits."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from darts_cli.spaces.rnn.kernels import projection
from darts_cli.spaces.rnn.kernels.projection import cross_entropy, plain_cross_entropy
from darts_cli.spaces.rnn.loader import IGNORED

WORDS, BATCH, WIDTH, VOCABULARY = 5, 7, 3, 11

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def plain(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    logits = F.linear(states, weight, bias)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def make_inputs(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    """States, weight and bias, and targets of which two are left out."""
    torch.manual_seed(0)
    shapes = (WORDS, BATCH, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,)
    targets = torch.randint(VOCABULARY, (WORDS, BATCH))
    targets[1, 2] = targets[4, 6] = IGNORED
    return [torch.randn(shape, dtype=dtype) for shape in shapes], targets


@pytest.fixture(params=[1, 4 * VOCABULARY, 2**21], ids=["row by row", "in chunks", "at once"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    # Four rows at a time leave three of the 35 for the last.
    monkeypatch.setattr(projection, "_CHUNK", request.param)
    return request.param


def gradients(loss: Loss, inputs: Sequence[Tensor], targets: Tensor, wanted: Any) -> list[Tensor]:
    """The sum, and its gradients times three in the inputs whose numbers are wanted."""
    leaves = [tensor.clone().requires_grad_(n in wanted) for n, tensor in enumerate(inputs)]
    total = loss(leaves[0], leaves[1], leaves[2], targets)
    return [total, *torch.autograd.grad(3 * total, [leaves[n] for n in wanted])]


SUBSETS = [part for size in (1, 2, 3) for part in itertools.combinations(range(3), size)]


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("wanted", SUBSETS)
def test_sum_and_gradients_are_those_of_all_logits(wanted: tuple[int, ...]) -> None:
    inputs, targets = make_inputs()
    expected = gradients(plain, inputs, targets, wanted)
    for found, other in zip(
        gradients(cross_entropy, inputs, targets, wanted), expected, strict=True
    ):
        torch.testing.assert_close(found, other, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("chunk")
def test_in_single_precision_they_are_close() -> None:
    inputs, targets = make_inputs(torch.float32)
    expected = gradients(plain, [tensor.double() for tensor in inputs], targets, (0, 1, 2))
    for found, other in zip(
        gradients(cross_entropy, inputs, targets, (0, 1, 2)), expected, strict=True
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_large_logits_neither_overflow_nor_vanish(size: float) -> None:
    (states, weight, bias), targets = make_inputs(torch.float32)
    inputs = [states * size, weight, bias]
    expected = gradients(plain, inputs, targets, (0, 1, 2))
    for found, other in zip(
        gradients(cross_entropy, inputs, targets, (0, 1, 2)), expected, strict=True
    ):
        assert found.isfinite().all()
        torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-3)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_sum_is_the_same(mode: Callable[[], Any]) -> None:
    inputs, targets = make_inputs()
    states, weight, bias = (tensor.requires_grad_() for tensor in inputs)
    with mode():
        total = cross_entropy(states, weight, bias, targets)
    torch.testing.assert_close(
        total, plain(states, weight, bias, targets).detach(), rtol=1e-12, atol=0
    )
    assert not total.requires_grad


@pytest.mark.usefixtures("chunk")
def test_the_gradient_can_be_differentiated_again() -> None:
    inputs, targets = make_inputs()
    products = []
    for loss in (plain, cross_entropy):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        total = loss(leaves[0], leaves[1], leaves[2], targets)
        slopes = torch.autograd.grad(total, leaves, create_graph=True)
        along = sum(slope.square().sum() for slope in slopes)
        assert isinstance(along, Tensor)
        products.append(torch.autograd.grad(along, leaves))
    for found, other in zip(products[1], products[0], strict=True):
        assert other.abs().max() > 0.1
        torch.testing.assert_close(found, other, rtol=1e-10, atol=1e-10)


def test_the_gradient_of_some_can_be_differentiated_in_others() -> None:
    inputs, targets = make_inputs()
    products = []
    for loss in (plain, cross_entropy):
        states, weight, bias = (tensor.clone() for tensor in inputs)
        total = loss(states.requires_grad_(), weight.requires_grad_(), bias, targets)
        (slope,) = torch.autograd.grad(total, weight, create_graph=True)
        products.append(torch.autograd.grad(slope.square().sum(), states)[0])
    torch.testing.assert_close(products[1], products[0], rtol=1e-10, atol=1e-10)


def test_it_can_where_the_states_are_made_of_the_weight_too() -> None:
    inputs, targets = make_inputs()
    words = torch.randint(VOCABULARY, (WORDS, BATCH))
    products = []
    for loss in (plain, cross_entropy):
        factor, weight, bias = (tensor.clone().requires_grad_() for tensor in inputs)
        states = (factor * F.embedding(words, weight)).tanh()
        total = loss(states, weight, bias, targets)
        (slope,) = torch.autograd.grad(total, weight, create_graph=True)
        products.append((slope, *torch.autograd.grad(slope.square().sum(), [factor, weight])))
    for found, other in zip(products[1], products[0], strict=True):
        torch.testing.assert_close(found, other, rtol=1e-10, atol=1e-10)


def test_going_back_twice_gives_the_same() -> None:
    inputs, targets = make_inputs()
    states, weight, bias = (tensor.requires_grad_() for tensor in inputs)
    total = 2 * cross_entropy(states, weight, bias, targets)
    first = torch.autograd.grad(total, inputs, retain_graph=True)
    second = torch.autograd.grad(total, inputs)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def count_kept(loss: Loss, inputs: Sequence[Tensor], targets: Tensor) -> list[int]:
    """The sizes of what autograd keeps."""
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss(inputs[0], inputs[1], inputs[2], targets)
    return sizes


def test_no_logits_are_kept() -> None:
    inputs, targets = make_inputs()
    for tensor in inputs:
        tensor.requires_grad_()
    logits = WORDS * BATCH * VOCABULARY
    assert max(count_kept(plain, inputs, targets)) == logits
    largest = max(tensor.numel() for tensor in inputs)
    assert max(count_kept(cross_entropy, inputs, targets)) == largest < logits


def test_where_types_are_chosen_for_it_the_plain_formula_serves() -> None:
    inputs, targets = make_inputs(torch.float32)
    states, weight, bias = (tensor.requires_grad_() for tensor in inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = cross_entropy(states, weight, bias, targets)
        logits = F.linear(states, weight, bias)
        assert logits.dtype == torch.bfloat16
    expected = plain_cross_entropy(states.flatten(0, 1), weight, bias, targets.flatten())
    assert total.dtype == torch.float32
    assert total.grad_fn is not None
    assert "CrossEntropy" not in total.grad_fn.name()
    torch.testing.assert_close(total, expected, rtol=1e-2, atol=0)


def test_a_word_outside_of_the_vocabulary_is_a_mistake() -> None:
    (states, weight, bias), targets = make_inputs()
    for wrong in (VOCABULARY, -1):
        targets[0, 0] = wrong
        with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
            cross_entropy(states, weight, bias, targets)
