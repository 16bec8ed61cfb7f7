"""The hypergradient against closed forms, golden numbers, double backward, and itself."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from darts_cli.config import AlphasConfig
from darts_cli.engine.architect import Architect, VirtualStep, hypergradient, next_step
from darts_cli.engine.execution import Loss


class TwoVariables:
    """The paper's example: L_val = a w - 2 a + 1, L_train = w^2 - 2 a w + a^2."""

    def __init__(self, a: float, w: float) -> None:
        self.a = torch.tensor(a, dtype=torch.float64, requires_grad=True)
        self.w = torch.tensor(w, dtype=torch.float64, requires_grad=True)

    def valid_loss(self) -> Tensor:
        return self.a * self.w - 2 * self.a + 1

    def train_loss(self) -> Tensor:
        return self.w**2 - 2 * self.a * self.w + self.a**2

    def gradient(self, step: VirtualStep | None, *, exact: bool = False) -> float:
        (gradient,) = hypergradient(
            train_losses=[self.train_loss],
            valid_losses=[self.valid_loss],
            weights=[self.w],
            alphas=[self.a],
            step=step,
            exact=exact,
        )
        return gradient.item()


@pytest.mark.parametrize("exact", [False, True])
def test_the_second_order_of_the_papers_example_is_2(exact: bool) -> None:
    example = TwoVariables(a=2, w=-2)
    assert example.gradient(VirtualStep(lr=0.5), exact=exact) == pytest.approx(2, abs=1e-9)


def test_the_first_order_of_the_papers_example_is_minus_4() -> None:
    assert TwoVariables(a=2, w=-2).gradient(None) == -4


@pytest.mark.parametrize("exact", [False, True])
def test_momentum_and_weight_decay_take_part_in_the_virtual_step(exact: bool) -> None:
    step = VirtualStep(
        lr=0.5,
        momentum=0.9,
        weight_decay=0.1,
        buffers=[torch.tensor(1.0, dtype=torch.float64)],
    )
    assert TwoVariables(a=2, w=-2).gradient(step, exact=exact) == pytest.approx(1.65, abs=1e-9)


def test_a_missing_momentum_buffer_counts_as_zero() -> None:
    step = VirtualStep(lr=0.5, momentum=0.9, weight_decay=0.1, buffers=[None])
    without = VirtualStep(lr=0.5, weight_decay=0.1)
    assert TwoVariables(a=2, w=-2).gradient(step) == TwoVariables(a=2, w=-2).gradient(without)


@settings(deadline=None)
@given(a=st.floats(-5, 5), w=st.floats(-5, 5), lr=st.floats(0.001, 1))
def test_the_papers_example_follows_its_closed_form_everywhere(
    a: float, w: float, lr: float
) -> None:
    expected = (1 - 2 * lr) * w + 4 * lr * a - 2
    assert TwoVariables(a, w).gradient(VirtualStep(lr=lr)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("lr", "end"), [(0.0, (2, 2)), (0.5, (1, 1))])
def test_descending_ends_where_figure_2_of_the_paper_does(
    lr: float, end: tuple[float, float]
) -> None:
    example = TwoVariables(a=2, w=-2)
    for _ in range(2000):
        gradient = example.gradient(VirtualStep(lr=lr) if lr else None)
        with torch.no_grad():
            example.a -= 0.05 * gradient
            # The inner problem is solved as far as it is in the figure: w follows a.
            example.w -= 0.1 * (2 * example.w - 2 * example.a)
    assert (example.a.item(), example.w.item()) == pytest.approx(end, abs=0.01)


class SmoothNetwork:
    """A network of tanh, smooth in weights and alphas, with a training and a validation batch."""

    def __init__(self, seed: int = 0) -> None:
        draws = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draws, dtype=torch.float64)

        self.weights = [draw(4, 6).requires_grad_(), draw(6, 3).requires_grad_()]
        self.alphas = [draw(6).requires_grad_()]
        self.batches = {"train": (draw(8, 4), draw(8, 3)), "valid": (draw(8, 4), draw(8, 3))}

    def loss(self, split: str) -> Loss:
        inputs, targets = self.batches[split]

        def compute() -> Tensor:
            hidden = torch.tanh(inputs @ self.weights[0]) * self.alphas[0].softmax(dim=0)
            return ((hidden @ self.weights[1] - targets) ** 2).mean()

        return compute

    def gradient(self, step: VirtualStep | None, *, exact: bool = False) -> Tensor:
        return hypergradient(
            train_losses=[self.loss("train")],
            valid_losses=[self.loss("valid")],
            weights=self.weights,
            alphas=self.alphas,
            step=step,
            exact=exact,
        )[0]


def test_the_finite_difference_agrees_with_double_backward_on_a_smooth_network() -> None:
    network = SmoothNetwork()
    step = VirtualStep(lr=0.3, weight_decay=0.01)
    torch.testing.assert_close(
        network.gradient(step), network.gradient(step, exact=True), rtol=1e-4, atol=1e-7
    )


def test_the_error_of_the_finite_difference_is_of_second_order_in_its_radius(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = SmoothNetwork()
    step = VirtualStep(lr=0.3)
    exact = network.gradient(step, exact=True)
    errors = []
    for radius in (0.2, 0.1, 0.05):
        monkeypatch.setattr("darts_cli.engine.architect._RADIUS", radius)
        errors.append((network.gradient(step) - exact).norm().item())
    orders = [math.log2(large / small) for large, small in pairwise(errors)]
    assert orders == pytest.approx([2, 2], abs=0.1)


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_the_exact_hypergradient_is_that_of_the_unrolled_loss(clip: float) -> None:
    # Independent of the architect: differentiate L_val(w - lr c grad L_train(w, a), a) in a, with
    # the coefficients held constant as the method does.
    network = SmoothNetwork(seed=1)
    lr = 0.3
    gradients = torch.autograd.grad(network.loss("train")(), network.weights, create_graph=True)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().detach()
    coefficient = min(1.0, clip / (norm.item() + 1e-6)) if clip else 1.0
    moved = SmoothNetwork(seed=1)
    moved.alphas = network.alphas
    moved.weights = [
        weight - lr * coefficient * gradient
        for weight, gradient in zip(network.weights, gradients, strict=True)
    ]
    valid = moved.loss("valid")()
    (whole,) = torch.autograd.grad(valid, network.alphas, retain_graph=True)
    direct = torch.autograd.grad(valid, [*moved.weights], retain_graph=True)
    v_norm = torch.cat([gradient.flatten() for gradient in direct]).norm().item()
    v_coefficient = min(1.0, clip / (v_norm + 1e-6)) if clip else 1.0
    (explicit,) = _explicit_gradient(network, moved)
    expected = explicit + v_coefficient * (whole - explicit)
    found = network.gradient(VirtualStep(lr=lr, clip=clip), exact=True)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def _explicit_gradient(network: SmoothNetwork, moved: SmoothNetwork) -> tuple[Tensor, ...]:
    """The gradient of the validation loss in the alphas, the moved weights held constant."""
    fixed = SmoothNetwork(seed=1)
    fixed.alphas = network.alphas
    fixed.weights = [weight.detach() for weight in moved.weights]
    return torch.autograd.grad(fixed.loss("valid")(), network.alphas)


@pytest.mark.parametrize("step", [None, VirtualStep(lr=0.3, weight_decay=0.1)])
@pytest.mark.parametrize("exact", [False, True])
def test_weights_and_state_come_back_bit_for_bit(step: VirtualStep | None, exact: bool) -> None:
    network = SmoothNetwork()
    counter = torch.zeros(3, dtype=torch.float64)
    before = [weight.detach().clone() for weight in network.weights]

    def counting(split: str) -> Loss:
        loss = network.loss(split)

        def compute() -> Tensor:
            counter.add_(1 / 3)
            return loss()

        return compute

    hypergradient(
        train_losses=[counting("train")],
        valid_losses=[counting("valid")],
        weights=network.weights,
        alphas=network.alphas,
        step=step,
        state=[counter],
        exact=exact,
    )
    assert all(torch.equal(w, b) for w, b in zip(network.weights, before, strict=True))
    assert torch.equal(counter, torch.zeros(3, dtype=torch.float64))
    assert all(leaf.grad is None for leaf in [*network.weights, *network.alphas])


def test_weights_come_back_even_if_a_loss_fails() -> None:
    network = SmoothNetwork()
    before = [weight.detach().clone() for weight in network.weights]

    def broken() -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        hypergradient(
            train_losses=[network.loss("train")],
            valid_losses=[broken],
            weights=network.weights,
            alphas=network.alphas,
            step=VirtualStep(lr=0.3),
        )
    assert all(torch.equal(w, b) for w, b in zip(network.weights, before, strict=True))


def test_a_validation_loss_without_weights_has_no_implicit_part() -> None:
    network = SmoothNetwork()
    (gradient,) = hypergradient(
        train_losses=[network.loss("train")],
        valid_losses=[lambda: network.alphas[0].square().sum()],
        weights=network.weights,
        alphas=network.alphas,
        step=VirtualStep(lr=0.3),
    )
    torch.testing.assert_close(gradient, 2 * network.alphas[0].detach())


@pytest.mark.parametrize("order", ["first", "second"])
def test_the_architect_leaves_the_weights_optimizer_alone(order: str) -> None:
    network = SmoothNetwork()
    optimizer = torch.optim.SGD(network.weights, lr=0.1, momentum=0.9)
    network.loss("train")().backward()
    optimizer.step()
    optimizer.zero_grad()
    buffers = [optimizer.state[w]["momentum_buffer"].clone() for w in network.weights]
    architect = Architect(
        {"cell": network.alphas[0]},
        AlphasConfig(order=order),  # type: ignore[arg-type]
    )
    start = network.alphas[0].detach().clone()
    architect.step(
        train_losses=[network.loss("train")],
        valid_losses=[network.loss("valid")],
        optimizer=optimizer,
    )
    assert not torch.equal(network.alphas[0], start)
    for weight, buffer in zip(network.weights, buffers, strict=True):
        assert weight.grad is None
        assert torch.equal(optimizer.state[weight]["momentum_buffer"], buffer)


def test_the_next_step_is_read_from_the_optimizer() -> None:
    weights = [torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)]
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.01)
    weights[0].sum().backward()
    optimizer.step()
    step = next_step(optimizer, clip=0.25)
    assert (step.lr, step.momentum, step.weight_decay, step.clip) == (0.1, 0.9, 0.01, 0.25)
    first, second = step.buffers
    assert first is not None
    assert torch.equal(first, torch.ones(2))
    assert second is None
