"""The supernet against golden search steps, exact sizes, and the published layout."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.config import AlphasConfig, ConvNetworkConfig
from darts_cli.engine.architect import Architect
from darts_cli.errors import CheckpointError
from darts_cli.genotype.file import load
from darts_cli.spaces import SPACES
from darts_cli.spaces.cnn.network import Network
from darts_cli.spaces.cnn.primitives import CNN
from darts_cli.spaces.cnn.supernet import Supernet, outgoing_edges
from tests.spaces.recorded import assert_golden, read, starting_with

pytestmark = pytest.mark.usefixtures("double_precision")

TINY = ConvNetworkConfig(channels=2, layers=3)


class GoldenSearch:
    """A recorded search of three steps, and ours made ready to follow it."""

    def __init__(self, order: str) -> None:
        self.tensors, info = read(f"cnn_search_{order}")
        config = ConvNetworkConfig(channels=int(info["C"]), layers=int(info["layers"]))
        self.network = Supernet(config, classes=int(info["num_classes"]))
        self.network.load_state_dict(
            self.network.from_reference_names(starting_with(self.tensors, "state."))
        )
        self.network.to(memory_format=torch.channels_last)
        alphas = {cell: self.tensors[f"alphas_{cell}"].clone() for cell in CNN.cells}
        self.architect = Architect(
            alphas,
            AlphasConfig(order="first" if order == "first" else "second"),
        )
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=float(info["lr"]),
            momentum=float(info["momentum"]),
            weight_decay=float(info["weight_decay"]),
            foreach=True,
        )
        self.clip = float(info["grad_clip"])

    def loss(self, step: int, split: str) -> Tensor:
        images = self.tensors[f"step{step}.{split}.input"]
        output = self.network(
            images.to(memory_format=torch.channels_last), self.architect.mixture()
        )
        return F.cross_entropy(output.logits, self.tensors[f"step{step}.{split}.target"])

    def weight_step(self, step: int) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad()
        loss = self.loss(step, "train")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()
        self.architect.optimizer.zero_grad()
        return loss.detach(), norm


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first", "second"])
def test_three_search_steps_equal_the_golden_ones(order: str) -> None:
    golden = GoldenSearch(order)
    for step in range(3):
        gradients = golden.architect.step(
            train_losses=[lambda step=step: golden.loss(step, "train")],  # type: ignore[misc]
            valid_losses=[lambda step=step: golden.loss(step, "valid")],  # type: ignore[misc]
            optimizer=golden.optimizer,
            state=list(golden.network.buffers()),
        )
        for cell, gradient in zip(CNN.cells, gradients, strict=True):
            assert_golden(gradient, golden.tensors[f"step{step}.grad_alphas_{cell}"])
            after = golden.tensors[f"step{step}.alphas_{cell}_after"]
            assert_golden(golden.architect.alphas[cell], after)
        loss, norm = golden.weight_step(step)
        assert_golden(loss, golden.tensors[f"step{step}.train_loss"])
        assert_golden(norm, golden.tensors[f"step{step}.grad_norm"])
    final = golden.network.to_reference_names(golden.network.state_dict())
    expected = starting_with(golden.tensors, "final.")
    assert final.keys() | {"final_eval_logits"} == expected.keys() | {"final_eval_logits"}
    for name, tensor in final.items():
        # Statistics are left out: the recording moved them in virtual passes too.
        if "running_" not in name and "num_batches_tracked" not in name:
            assert_golden(tensor, expected[name])


def test_logits_equal_the_golden_ones_in_both_memory_formats() -> None:
    golden = GoldenSearch("second")
    images = golden.tensors["step0.train.input"]
    mixture = {cell: golden.tensors[f"alphas_{cell}"].softmax(-1) for cell in CNN.cells}
    for memory_format in (torch.contiguous_format, torch.channels_last):
        output = golden.network(images.to(memory_format=memory_format), mixture)
        assert_golden(output.logits, golden.tensors["step0.logits"])


def test_the_papers_supernet_has_its_published_size() -> None:
    with torch.device("meta"):
        network = Supernet(ConvNetworkConfig(), classes=10)
    assert sum(weight.numel() for weight in network.parameters()) == 1_930_618
    assert len(CNN.cells) * len(CNN.edges) * len(CNN.primitives) == 224


def test_no_1x1_convolution_has_a_stride() -> None:
    # With one, the weight gradient corrupts memory on channels-last maps (see FactorizedReduce).
    supernet = Supernet(ConvNetworkConfig(channels=2, layers=6), classes=3)
    discrete = Network(
        ConvNetworkConfig(stem="imagenet", channels=4, layers=6, auxiliary=0.4),
        load("darts_v2", SPACES),
        classes=3,
    )
    convolutions = [
        layer
        for network in (supernet, discrete)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
    ]
    assert len(convolutions) > 100
    assert {layer.stride for layer in convolutions} == {(1, 1)}


def test_the_published_layout_round_trips_bit_for_bit() -> None:
    network = Supernet(TINY, classes=3)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) * 5)
    own = network.state_dict()
    back = network.from_reference_names(network.to_reference_names(own))
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], own[name]) for name in own)


def test_a_weight_of_one_edge_is_cut_out_of_its_stack() -> None:
    network = Supernet(TINY, classes=3)
    published = network.to_reference_names(network.state_dict())
    # Edge 8 joins state 3 to node 3: the second of the edges that leave state 3.
    assert outgoing_edges(CNN)[3] == [8, 12]
    stack = network.state_dict()["cells.0.groups.3.stacked.5.op.1.weight"]
    assert torch.equal(published["cells.0._ops.8._ops.5.op.1.weight"], stack[:2])
    assert torch.equal(published["cells.0._ops.12._ops.5.op.1.weight"], stack[2:])


def test_edges_count_node_by_node_as_published() -> None:
    for state, edges in enumerate(outgoing_edges(CNN)):
        expected = [node * (node + 3) // 2 + state for node in range(4) if state < node + 2]
        assert edges == expected


def test_pooling_statistics_that_differ_between_edges_are_refused() -> None:
    network = Supernet(TINY, classes=3)
    published = network.to_reference_names(network.state_dict())
    name = "cells.0._ops.2._ops.1.1.running_mean"
    published[name] = published[name] + 1
    with pytest.raises(CheckpointError, match="differ between edges that leave one state"):
        network.from_reference_names(published)


@pytest.mark.parametrize("size", [8, 9, 11])
def test_odd_sizes_work_and_the_gradient_reaches_every_weight(size: int) -> None:
    network = Supernet(TINY, classes=3)
    mixture = {cell: torch.rand(14, 8) for cell in CNN.cells}
    output = network(torch.randn(2, 3, size, size), mixture)
    output.logits.sum().backward()
    assert output.logits.shape == (2, 3)
    assert all(weight.grad is not None for weight in network.parameters())


def test_a_mixture_that_chooses_one_operation_is_that_operation() -> None:
    network = Supernet(TINY, classes=3)
    images = torch.randn(2, 3, 8, 8)
    nothing = {cell: torch.zeros(14, 8) for cell in CNN.cells}
    # With `none` on every edge the cells put out zeros, whatever the images.
    for weights in nothing.values():
        weights[:, 0] = 1
    bias = network.classifier.bias
    torch.testing.assert_close(network(images, nothing).logits, bias.expand(2, 3))


def test_every_batchnorm_counts_the_batches_of_training_and_no_others() -> None:
    network = Supernet(TINY, classes=3)
    mixture = {cell: torch.rand(14, 8) for cell in CNN.cells}
    for training in (True, False, True):
        network.train(training)
        network(torch.randn(2, 3, 8, 8), mixture)
    counts = {
        name: int(count)
        for name, count in network.to_reference_names(network.state_dict()).items()
        if name.endswith("num_batches_tracked")
    }
    # Stem and preprocessing; for each edge two poolings and six of the separable convolutions;
    # and for each edge that halves the resolution a factorized reduction.
    halving = [
        sum(source < 2 for _, source in CNN.edges) * (kind == "reduce") for kind in network.kinds
    ]
    assert len(counts) == 1 + 3 * (2 + 14 * 8) + sum(halving)
    assert set(counts.values()) == {2}
