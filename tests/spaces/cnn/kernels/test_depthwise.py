"""Depthwise convolution: its gradients are those of the plain call, at all sizes."""

import pytest
import torch
from torch.nn import functional as F

from darts_cli.spaces.cnn.kernels.depthwise import (
    Phases,
    convolve,
    convolve_backward,
    depthwise,
)

pytestmark = pytest.mark.usefixtures("double_precision")

SIZES = [(8, 8), (9, 8), (7, 9), (2, 2), (4, 4), (3, 3), (1, 1), (5, 4)]


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", SIZES)
def test_all_gradients_are_the_plain_ones(
    size: tuple[int, int], kernel: int, stride: int, dilation: int
) -> None:
    x = torch.randn(2, 6, *size).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(6, 1, kernel, kernel, requires_grad=True)
    found = depthwise(x, weight, stride=stride, dilation=dilation)
    padding = dilation * (kernel - 1) // 2
    plain = F.conv2d(x, weight, None, stride, padding, dilation, groups=6)
    assert torch.equal(found, plain)
    gradient = torch.randn_like(found)
    for leaves in ([x, weight], [x], [weight]):
        of_found = torch.autograd.grad(found, leaves, gradient, retain_graph=True)
        of_plain = torch.autograd.grad(plain, leaves, gradient, retain_graph=True)
        for one, other in zip(of_found, of_plain, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", SIZES)
def test_taps_out_of_reach_change_nothing(size: tuple[int, int], kernel: int) -> None:
    x = torch.randn(2, 6, *size).to(memory_format=torch.channels_last)
    weight = torch.randn(6, 1, kernel, kernel)
    for stride, dilation in ((1, 1), (2, 1), (1, 2), (2, 2)):
        expected = depthwise(x, weight, stride=stride, dilation=dilation)
        found = convolve(x, weight, stride=stride, dilation=dilation)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_phases_serve_several_convolutions() -> None:
    x = torch.randn(2, 6, 9, 8).to(memory_format=torch.channels_last)
    phases = Phases(x)
    for kernel in (3, 5):
        weight = torch.randn(6, 1, kernel, kernel)
        for stride in (1, 2):
            like = depthwise(x, weight, stride=stride, dilation=2)
            both = [
                convolve_backward(
                    like, item, weight, stride=stride, dilation=2, needed=(True, True)
                )
                for item in (x, phases)
            ]
            torch.testing.assert_close(both[0], both[1], rtol=0, atol=0)


@pytest.mark.parametrize("needed", [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_what_is_not_needed_is_not_computed(kernel: int, needed: tuple[bool, bool]) -> None:
    x, weight = torch.randn(2, 6, 8, 8), torch.randn(6, 1, kernel, kernel)
    for stride, dilation in ((1, 1), (1, 2), (2, 2)):
        like = depthwise(x, weight, stride=stride, dilation=dilation)
        found = convolve_backward(like, x, weight, stride=stride, dilation=dilation, needed=needed)
        assert tuple(part is not None for part in found) == needed


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_can_be_differentiated(stride: int, dilation: int) -> None:
    x = torch.randn(2, 2, 5, 4, requires_grad=True)
    weight = torch.randn(2, 1, 5, 5, requires_grad=True)

    def run(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return depthwise(x, weight, stride=stride, dilation=dilation)

    assert torch.autograd.gradgradcheck(run, (x, weight))


def test_other_devices_keep_the_plain_call() -> None:
    x = torch.empty(2, 6, 8, 8, device="meta", requires_grad=True)
    weight = torch.empty(6, 1, 3, 3, device="meta")
    out = depthwise(x, weight, stride=2, dilation=2)
    assert out.grad_fn is not None
    assert out.grad_fn.name() == "ConvolutionBackward0"
    found = convolve_backward(out, x, weight, stride=2, dilation=2, needed=(True, True))
    assert [part.shape for part in found if part is not None] == [x.shape, weight.shape]
