"""Published files made of the golden states, for tests of what reads them."""

from pathlib import Path

import torch
from torch import Tensor

from tests.spaces.recorded import read, starting_with

GENOTYPES = {
    "cifar_DARTS_V1": "darts_v1",
    "cifar_DARTS_V2": "darts_v2",
    "cifar_NASNet": "nasnet",
    "cifar_AmoebaNet": "amoebanet",
    "imagenet_DARTS_V2": "darts_v2",
    "rnn_DARTS_V1": "rnn_darts_v1",
    "rnn_DARTS_V2": "rnn_darts_v2",
    "rnn_ENAS": "rnn_enas",
}
"""Of the golden discrete networks."""


def state_of(golden: str) -> dict[str, Tensor]:
    """A state dictionary in float32, as published ones are."""
    tensors, _ = read(golden)
    state = starting_with(tensors, "state.")
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def save(path: Path, value: object, *, old: bool = False) -> Path:
    """A file of `torch.save`, or of a version that is years old."""
    torch.save(value, path, _use_new_zipfile_serialization=not old)
    return path


def write_words(folder: Path, count: int) -> Path:
    """A text of so many words, `<eos>` among them; the last ones are in the test text alone."""
    folder.mkdir()
    words = [f"w{number}" for number in range(count - 1)]
    cut = count - 4
    lines = [words[:cut][place : place + 3] for place in range(0, cut, 3)]
    texts = {"train": lines, "valid": [words[:4]], "test": [words[cut:], words[:2]]}
    for split, text in texts.items():
        (folder / f"{split}.txt").write_text("".join(" ".join(line) + "\n" for line in text))
    return folder
