"""Golden numbers: how they are read, and how close to them is right."""

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"


def read(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a golden file, and its configuration."""
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def starting_with(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def assert_golden(found: Tensor, expected: Tensor) -> None:
    """Within a relative error of 1e-6 in norm."""
    assert (found - expected).norm() <= 1e-6 * expected.norm()
