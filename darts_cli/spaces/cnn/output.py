"""Output of the networks of the convolutional space."""

from dataclasses import dataclass

from torch import Tensor

from darts_cli.engine.task import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutput(Output):
    """The logits of a batch of images."""

    logits: Tensor
    """Logits, `[B, classes]`."""
    auxiliary: tuple[Tensor, ...] = ()
    """Logits of the auxiliary head, `[B, classes]`, if the network has one and is training."""
