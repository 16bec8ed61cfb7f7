"""The mixed operations of a state's edges: own gradients against autograd's, memory, types."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from darts_cli.spaces.cnn.kernels import norms
from darts_cli.spaces.cnn.primitives import CNN
from darts_cli.spaces.cnn.supernet import MixedOps

pytestmark = pytest.mark.usefixtures("double_precision")

EDGES, CHANNELS = 2, 4


def run(group: MixedOps, x: Tensor, mixture: Tensor) -> Tensor:
    """Run all edges, `[B, edges * C, H, W]`, from the weights of the candidates `[edges, O]`."""
    pool_weights = mixture[:, group.get_buffer("shared_columns")]
    channel_weights = list(mixture.t().repeat_interleave(CHANNELS, dim=1))
    out: Tensor = group(x, pool_weights, channel_weights)
    return out


def make(stride: int) -> tuple[MixedOps, Tensor, Tensor]:
    group = MixedOps(CNN, CHANNELS, stride, EDGES)
    x = torch.randn(3, CHANNELS, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    return group, x, torch.rand(EDGES, len(CNN.primitives)).requires_grad_()


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Plain formulas, until the test undoes it."""
    monkeypatch.setattr(norms, "is_fused", lambda *_: False)
    return monkeypatch


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("store", [True, False])
def test_gradients_are_autograds(
    plain: pytest.MonkeyPatch, stride: int, store: bool, training: bool
) -> None:
    group, x, mixture = make(stride)
    group.store_activations = store
    group.train(training)
    before = {name: buffer.clone() for name, buffer in group.named_buffers()}
    leaves = [x, mixture, *group.parameters()]
    expected = run(group, x, mixture)
    gradient = torch.randn_like(expected)
    of_plain = torch.autograd.grad(expected, leaves, gradient)
    moved = {name: buffer.clone() for name, buffer in group.named_buffers()}
    plain.undo()
    group.load_state_dict(before, strict=False)
    found = run(group, x, mixture)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for one, other in zip(torch.autograd.grad(found, leaves, gradient), of_plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    # Nor did the way back move the statistics a second time.
    for name, buffer in group.named_buffers():
        torch.testing.assert_close(buffer, moved[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_can_be_differentiated(plain: pytest.MonkeyPatch, stride: int) -> None:
    group, x, mixture = make(stride)
    leaves = [x, mixture, *group.parameters()]
    gradient = torch.randn_like(run(group, x, mixture))

    def product() -> tuple[Tensor, ...]:
        first = torch.autograd.grad(
            run(group, x, mixture), list(group.parameters()), gradient, create_graph=True
        )
        total = torch.stack([part.square().sum() for part in first]).sum()
        return torch.autograd.grad(total, leaves, materialize_grads=True)

    expected = product()
    plain.undo()
    for one, other in zip(product(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("store", [True, False])
def test_gradients_with_constant_weights_are_autograds(
    plain: pytest.MonkeyPatch, stride: int, store: bool
) -> None:
    group, x, mixture = make(stride)
    group.store_activations = store
    group.requires_grad_(False)
    expected = run(group, x, mixture)
    gradient = torch.randn_like(expected)
    of_plain = torch.autograd.grad(expected, [x, mixture], gradient)
    plain.undo()
    found = torch.autograd.grad(run(group, x, mixture), [x, mixture], gradient)
    for one, other in zip(found, of_plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    # `none` takes no part.
    assert found[1][:, 1:].abs().min() > 0
    assert not found[1][:, 0].any()


class Products(TorchDispatchMode):
    """Counts batched products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func._schema.name == "aten::bmm"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("constant", "expected"), [(False, 3), (True, 1)])
def test_products_are_not_repeated_for_gradients_of_the_mixture_alone(
    constant: bool, expected: int
) -> None:
    group, x, mixture = make(1)
    group.requires_grad_(not constant)
    out = run(group, x, mixture).sum()
    leaves = [x, mixture, *(() if constant else group.parameters())]
    with Products() as products:
        torch.autograd.grad(out, leaves)
    # Of the separable convolutions two each, of the dilated ones one.
    assert products.number == expected * 6


def kept_bytes(group: MixedOps, x: Tensor, mixture: Tensor) -> int:
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run(group, x, mixture)
    return sum(kept.values())


def test_little_is_kept_and_less_when_memory_is_saved(plain: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    group = MixedOps(CNN, 4, 1, 4)
    x = torch.randn(8, 4, 32, 32).to(memory_format=torch.channels_last).requires_grad_()
    mixture = torch.rand(4, len(CNN.primitives)).requires_grad_()
    of_plain = kept_bytes(group, x, mixture)
    plain.undo()
    fast = kept_bytes(group, x, mixture)
    group.store_activations = False
    save = kept_bytes(group, x, mixture)
    assert fast < 0.45 * of_plain
    assert save < 0.1 * of_plain


def test_it_runs_in_reduced_precision() -> None:
    group, x, mixture = make(1)
    group.float()
    x, mixture = (tensor.detach().float().requires_grad_() for tensor in (x, mixture))
    exact = run(group, x, mixture)
    with torch.autocast("cpu", torch.bfloat16):
        rough = run(group, x, mixture)
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.1)
    rough.float().sum().backward()
    assert all(parameter.grad is not None for parameter in group.parameters())
