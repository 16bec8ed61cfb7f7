"""Running means."""

import torch

from darts_cli.engine.meter import Meter

CPU = torch.device("cpu")


def test_means_are_weighted_by_the_counts() -> None:
    meter = Meter(("loss", "top1"), CPU)
    meter.add(torch.tensor([6.0, 1.0, 3.0]))
    meter.add(torch.tensor([1.0, 1.0, 1.0]))
    assert meter.read() == meter.peek() == {"loss": 7 / 4, "top1": 2 / 4}


def test_nothing_is_said_before_the_first_batch_and_after_a_reset() -> None:
    meter = Meter(("loss",), CPU)
    assert meter.read() == {}
    meter.add(torch.tensor([1.0, 1.0]))
    meter.reset()
    assert meter.read() == {}


def test_counts_go_on_where_single_precision_would_stop() -> None:
    meter = Meter(("loss",), CPU)
    meter.sums[-1] = 2.0**24
    meter.add(torch.tensor([0.0, 1.0]))
    assert meter.sums[-1].item() == 2**24 + 1
