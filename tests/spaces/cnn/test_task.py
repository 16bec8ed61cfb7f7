"""Image classification as the engine sees it."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from darts_cli.config import Config, ConvNetworkConfig
from darts_cli.engine.task import Batch
from darts_cli.genotype.file import load
from darts_cli.recipes import RECIPES
from darts_cli.spaces import SPACES
from darts_cli.spaces.cnn.network import Network
from darts_cli.spaces.cnn.output import ImageOutput
from darts_cli.spaces.cnn.primitives import CNN, DISCRETE_PRIMITIVES, PRIMITIVES
from darts_cli.spaces.cnn.supernet import Supernet
from darts_cli.spaces.cnn.task import ImageTask, ImageTrainingModule

FACTS = {"classes": list("abcdefg"), "channels": 3, "size": 8}
TRAIN = replace(
    RECIPES["train"]["cnn"]["cifar"],
    epochs=10,
    network=ConvNetworkConfig(channels=4, layers=3, auxiliary=0.4, drop_path=0.2),
)


def make_module(config: Config = TRAIN) -> ImageTrainingModule:
    torch.manual_seed(0)
    return ImageTask().build(config, FACTS, load("darts_v2", SPACES))


def test_the_tally_counts_losses_and_guesses() -> None:
    logits, targets = torch.randn(9, 7), torch.randint(7, (9,))
    batch = Batch(torch.empty(9, 3, 8, 8), targets)
    loss, top1, top5, count = make_module().metric_sums(ImageOutput(logits=logits), batch).tolist()
    ranks = [
        sum(other > row[target] for other in row)
        for row, target in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    assert loss == pytest.approx(9 * F.cross_entropy(logits, targets).item(), rel=1e-5)
    assert top1 == sum(rank < 1 for rank in ranks)
    assert top5 == sum(rank < 5 for rank in ranks)
    assert count == 9


def test_with_three_classes_every_guess_is_within_five() -> None:
    batch = Batch(torch.empty(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))
    metric_sums = make_module().metric_sums(ImageOutput(logits=torch.randn(4, 3)), batch)
    assert metric_sums[2] == metric_sums[3] == 4


def test_the_objective_adds_the_auxiliary_heads_share_and_smooths_labels() -> None:
    config = replace(TRAIN, weights=replace(TRAIN.weights, label_smoothing=0.1))
    logits, auxiliary, targets = torch.randn(5, 7), torch.randn(5, 7), torch.randint(7, (5,))
    batch = Batch(torch.empty(5, 3, 8, 8), targets)

    def smoothed(logits: torch.Tensor) -> torch.Tensor:
        logs = logits.log_softmax(1)
        right = logs[torch.arange(5), targets]
        return -(0.9 * right + 0.1 * logs.mean(1)).mean()

    found = make_module(config).training_loss(
        ImageOutput(logits=logits, auxiliary=(auxiliary,)), batch
    )
    torch.testing.assert_close(found, smoothed(logits) + 0.4 * smoothed(auxiliary))
    plain = make_module(config).loss(ImageOutput(logits=logits, auxiliary=(auxiliary,)), batch)
    torch.testing.assert_close(plain, F.cross_entropy(logits, targets))


def test_drop_path_grows_with_the_epochs() -> None:
    module = make_module()
    assert isinstance(module.network, Network)
    found = []
    for epoch in range(10):
        module.begin_epoch(epoch)
        found.append(module.network.drop_path)
    assert found == pytest.approx([0.02 * epoch for epoch in range(10)])


def test_a_search_is_of_the_supernet_and_training_of_the_genotype() -> None:
    search = replace(
        RECIPES["search"]["cnn"]["cifar"], network=ConvNetworkConfig(channels=2, layers=2)
    )
    assert isinstance(ImageTask().build(search, FACTS, None).network, Supernet)
    assert isinstance(make_module().network, Network)


def test_an_example_fits_the_network() -> None:
    module = make_module()
    for single, size in ((True, 1), (False, 96)):
        batch = ImageTask().example(TRAIN, FACTS, single=single)
        module.network.train(not single)
        assert module.forward(batch, {}).logits.shape == (size, 7)


def test_the_primitives_are_the_published_ones_in_their_order() -> None:
    assert CNN.primitives == (
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    )
    assert CNN.discrete_only == ("sep_conv_7x7", "conv_7x1_1x7")
    assert len(PRIMITIVES | DISCRETE_PRIMITIVES) == 10
    assert CNN.operations == CNN.primitives[1:] + CNN.discrete_only
