"""Discrete networks against golden logits and exact sizes."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from darts_cli.config import ConvNetworkConfig
from darts_cli.genotype.file import load
from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.spaces import SPACES
from darts_cli.spaces.cnn.network import AuxiliaryHead, Cell, Network
from darts_cli.spaces.cnn.operations import drop_path_mask

GOLDEN = Path(__file__).parents[2] / "golden"

# Parameters, the same with auxiliary head, MACs: CIFAR 36 channels and 20 cells at 32x32, ImageNet
# 48 channels and 14 cells at 224x224.
SIZES = {
    ("darts_v1", "cifar"): (3_169_414, 3_645_840, 500_987_520),
    ("darts_v2", "cifar"): (3_349_342, 3_825_768, 528_359_040),
    ("nasnet", "cifar"): (3_830_950, 4_288_944, 603_452_448),
    ("amoebanet", "cifar"): (3_145_078, 3_603_072, 488_931_552),
    ("darts_v1", "imagenet"): (4_510_432, 5_771_208, 505_864_704),
    ("darts_v2", "imagenet"): (4_718_752, 5_979_528, 529_911_552),
    ("nasnet", "imagenet"): (5_564_320, 6_800_520, 604_031_616),
    ("amoebanet", "imagenet"): (4_627_360, 5_863_560, 526_746_624),
}
PAPER = {
    "cifar": (ConvNetworkConfig(channels=36, layers=20, auxiliary=0.4), 10, 32),
    "imagenet": (
        ConvNetworkConfig(stem="imagenet", channels=48, layers=14, auxiliary=0.4),
        1000,
        224,
    ),
}


def weights_of(network: Network) -> tuple[int, int]:
    """Parameters without and with the auxiliary head."""
    whole = sum(weight.numel() for weight in network.parameters())
    head = network.auxiliary_head
    return whole - sum(weight.numel() for weight in head.parameters()) if head else whole, whole


@pytest.mark.parametrize(("genotype", "kind"), SIZES)
def test_every_published_network_has_its_exact_size(genotype: str, kind: str) -> None:
    config, classes, size = PAPER[kind]
    with torch.device("meta"):
        network = Network(config, load(genotype, SPACES), classes=classes).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, size, size))
    found = (*weights_of(network), counter.get_total_flops() // 2)
    assert found == SIZES[genotype, kind]


@pytest.mark.parametrize(("genotype", "size"), [("darts_v1", 3_221_344), ("darts_v2", 3_401_272)])
def test_networks_for_cifar100_have_their_exact_size(genotype: str, size: int) -> None:
    with torch.device("meta"):
        network = Network(PAPER["cifar"][0], load(genotype, SPACES), classes=100)
    assert weights_of(network)[0] == size


@pytest.mark.parametrize(
    ("file", "genotype", "tolerance"),
    [
        ("cifar_DARTS_V1", "darts_v1", 1e-6),
        ("cifar_DARTS_V2", "darts_v2", 1e-6),
        ("cifar_NASNet", "nasnet", 1e-6),
        ("cifar_AmoebaNet", "amoebanet", 1e-6),
        ("imagenet_DARTS_V2", "darts_v2", 1e-4),
    ],
)
def test_logits_equal_the_golden_ones(file: str, genotype: str, tolerance: float) -> None:
    with safe_open(GOLDEN / f"{file}.safetensors", framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    stem = file.split("_", maxsplit=1)[0]
    classes = tensors["eval.logits"].shape[1]
    config = ConvNetworkConfig(
        stem="imagenet" if stem == "imagenet" else "cifar", channels=4, layers=5, auxiliary=0.4
    )
    network = Network(config, load(genotype, SPACES), classes=classes)
    network.to(tensors["input"].dtype)
    state = {
        name.removeprefix("state."): tensor
        for name, tensor in tensors.items()
        if name.startswith("state.")
    }
    network.load_state_dict(state)
    network.eval()
    assert_close(network(tensors["input"]).logits, tensors["eval.logits"], tolerance)
    network.train()
    output = network(tensors["input"])
    assert_close(output.logits, tensors["train.logits"], tolerance)
    assert_close(output.auxiliary[0], tensors["train.logits_aux"], tolerance)


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Within a relative error in norm."""
    assert (found - expected).norm() <= tolerance * expected.norm()


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    factors = drop_path_mask(torch.ones(4000, 2, 3, 3), 0.25)
    assert factors.shape == (4000, 1, 1, 1)
    assert factors.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert factors.mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", ["darts_v1", "darts_v2", "nasnet", "amoebanet"])
def test_a_cell_is_the_sum_of_its_edges_each_by_itself(name: str, double_precision: None) -> None:
    genotype, drop = load(name, SPACES).cells["normal"], 0.3
    cell = Cell(
        genotype, channels_before=(4, 4), channels=4, reduction=False, reduction_before=False
    )
    inputs = [torch.randn(5, 4, 8, 8, requires_grad=True) for _ in range(2)]

    def by_itself(s0: Tensor, s1: Tensor) -> Tensor:
        states, operations = [cell.preprocess0(s0), cell.preprocess1(s1)], iter(cell._ops)
        for node in genotype.nodes:
            outs = []
            for edge in node:
                operation = next(operations)
                out = operation(states[edge.source])
                if not isinstance(operation, torch.nn.Identity):
                    out = out * drop_path_mask(out, drop)
                outs.append(out)
            states.append(torch.stack(outs).sum(dim=0))
        return torch.cat([states[state] for state in genotype.concat], dim=1)

    found = []
    for run in (lambda: cell(*inputs, drop), lambda: by_itself(*inputs)):
        torch.manual_seed(0)
        out = run()
        weights = [*inputs, *cell.parameters()]
        gradients = torch.autograd.grad(out.square().sum(), weights)
        # In one, since BatchNorm leaves some of them nothing but rounding.
        found.append((out, torch.cat([gradient.flatten() for gradient in gradients])))
    for one, other in zip(*found, strict=True):
        assert_close(one, other, 1e-12)


def skips_only(reduction_source: int) -> Genotype:
    cell = CellGenotype(
        (((Edge("skip_connect", 0)), Edge("skip_connect", reduction_source)),), (2,)
    )
    return Genotype(space="cnn", name="skips", cells={"normal": cell, "reduce": cell})


def test_a_stride_1_identity_is_never_dropped() -> None:
    network = Network(ConvNetworkConfig(channels=4, layers=1), skips_only(1), classes=3)
    # One cell: it is the reduction cell, whose skips are factorized reductions and are dropped.
    network.drop_path = 0.999999
    images = torch.randn(2, 3, 8, 8)
    torch.manual_seed(0)
    assert torch.allclose(network(images).logits, network.classifier.bias)
    plain = Network(ConvNetworkConfig(channels=4, layers=4), skips_only(1), classes=3)
    plain.cells = plain.cells[:1]
    plain.classifier = torch.nn.Linear(4, 3)
    plain.drop_path = 0.999999
    assert not torch.allclose(plain(images).logits, plain.classifier.bias)


def test_drop_path_is_off_in_evaluation() -> None:
    config = ConvNetworkConfig(channels=4, layers=3)
    network = Network(config, load("darts_v2", SPACES), classes=3).eval()
    images = torch.randn(2, 3, 8, 8)
    plain = network(images).logits
    network.drop_path = 0.9
    assert torch.equal(network(images).logits, plain)


@pytest.mark.parametrize("size", [8, 13, 20, 32, 40])
def test_the_auxiliary_head_takes_maps_of_any_size(size: int) -> None:
    config = ConvNetworkConfig(channels=2, layers=3, auxiliary=0.4)
    network = Network(config, load("darts_v2", SPACES), classes=5)
    output = network(torch.randn(2, 3, size, size))
    (auxiliary,) = output.auxiliary
    assert auxiliary.shape == output.logits.shape == (2, 5)


def test_the_imagenet_head_has_no_batch_norm_behind_its_second_convolution() -> None:
    kinds = [type(layer).__name__ for layer in AuxiliaryHead(8, 5, stem="imagenet").features]
    assert kinds == ["ReLU", "AuxiliaryPool", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "ReLU"]


def test_a_cell_may_have_any_number_of_nodes_and_edges() -> None:
    cell = CellGenotype(
        (
            (Edge("sep_conv_3x3", 0),),
            (Edge("max_pool_3x3", 0), Edge("skip_connect", 1), Edge("conv_7x1_1x7", 2)),
        ),
        (3,),
    )
    genotype = Genotype(space="cnn", name="odd", cells={"normal": cell, "reduce": cell})
    network = Network(ConvNetworkConfig(channels=4, layers=3), genotype, classes=3)
    assert network(torch.randn(2, 3, 8, 8)).logits.shape == (2, 3)
