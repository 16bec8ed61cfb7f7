"""Digests of what small runs compute: the same lines before and after a change that moves no bit.

    python -m tests.guard                    # every run from its beginning to its end
    python -m tests.guard --begin FOLDER     # stop each run in its middle, with one version,
    python -m tests.guard --finish FOLDER    # resume it with another: the same lines again

Only the command line and the files that it leaves are used, so that the code behind may move.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import call

_IMAGES = ("--data", "digits", "--channels", "2", "--layers", "3", "--batch-size", "256")
_TEXT = ("--data", "pydoc", "--min-count", "100", "--width", "8", "--batch-size", "64")
_SEARCH_IMAGES = ("search", "cnn", *_IMAGES, "--epochs", "2", "--set", "data.evaluation_images=64")
_SEARCH_TEXT = ("search", "rnn", *_TEXT, "--epochs", "1", "--lr", "5")
_TRAIN_IMAGES = ("train", "--genotype", "darts_v2", *_IMAGES, "--epochs", "2")
_TRAIN_TEXT = ("train", "--genotype", "rnn_darts_v2", *_TEXT, "--lr", "10")

RUNS: Mapping[str, tuple[str, ...]] = {
    "images-second": _SEARCH_IMAGES,
    "images-first": (*_SEARCH_IMAGES, "--order", "first"),
    "images-save": (*_SEARCH_IMAGES, "--memory", "save"),
    "images-exact": (*_SEARCH_IMAGES, "--hypergradient", "exact", "--epochs", "1"),
    "images-parts": (*_SEARCH_IMAGES, "--accumulate", "2"),
    "images-half": (*_SEARCH_IMAGES, "--precision", "fp16", "--order", "first"),
    "text-second": _SEARCH_TEXT,
    "text-first": (*_SEARCH_TEXT, "--order", "first"),
    "train-images": _TRAIN_IMAGES,
    "train-text": (*_TRAIN_TEXT, "--epochs", "1"),
    # At so high a rate validation stalls at once, and the weights are averaged.
    "train-averaging": (
        *_TRAIN_TEXT,
        "--epochs",
        "6",
        "--lr",
        "40",
        "--set",
        "weights.averaging_patience=1",
    ),
}

_STOP = ("--max-steps", "4")
# Flags that a run of version 0.1.0 did not remember.
_AGAIN = {"images-save": ("--memory", "save")}


def main() -> None:
    """Print a line for each file of each run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help=f"of {', '.join(RUNS)}")
    parser.add_argument("--begin", type=Path)
    parser.add_argument("--finish", type=Path)
    arguments = parser.parse_args()
    names = arguments.names or list(RUNS)
    if arguments.begin is not None:
        for name in names:
            begin(name, arguments.begin / name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            folder = (arguments.finish or Path(scratch)) / name
            if arguments.finish is not None:
                resume(name, folder)
            else:
                call_well(*RUNS[name], "--device", "cpu", "--out", folder)
            for line in describe(folder, Path(scratch)):
                print(f"{name:16} {line}", flush=True)


def call_well(*arguments: object) -> str:
    """Run a command, and return what it printed last."""
    result = call(*arguments)
    if result.status:
        raise SystemExit(f"{arguments}: {result.err}")
    return result.out.splitlines()[-1]


def begin(name: str, folder: Path) -> None:
    """Take the first steps of a run."""
    call_well(*RUNS[name], "--device", "cpu", "--out", folder, *_STOP)


def resume(name: str, folder: Path) -> None:
    """Take the others."""
    space = RUNS[name][1:2] if RUNS[name][0] == "search" else ()
    again = _AGAIN.get(name, ())
    call_well(RUNS[name][0], *space, "--resume", folder, "--device", "cpu", *again)


def describe(folder: Path, scratch: Path) -> Iterator[str]:
    """A line for each file of a finished run, and for what is made of it."""
    for file in sorted(folder.rglob("*.safetensors")):
        # What lies before the last checkpoint depends on where the run was stopped.
        if file.name not in {"previous.safetensors", "begun.safetensors"}:
            yield f"{file.relative_to(folder)!s:32} {digest_tensors(load_file(file))}"
    yield f"{'metrics.jsonl':32} {digest((folder / 'metrics.jsonl').read_bytes())}"
    yield f"{'genotype.yaml':32} {digest_genotype(folder / 'genotype.yaml')}"
    if "train" in folder.name:
        yield from describe_trained(folder, scratch)


def describe_trained(folder: Path, scratch: Path) -> Iterator[str]:
    """The evaluation of a network, its export, and what becomes of that by an import."""
    result = json.loads(Path(call_well("eval", folder, "--device", "cpu")).read_text())
    measured = {key: result[key] for key in sorted(result) if key not in {"checkpoint", "data"}}
    yield f"{'eval':32} {digest(json.dumps(measured).encode())}"
    exported = scratch / f"{folder.name}-{len(list(scratch.iterdir()))}.pt"
    call_well("export", folder, "--output", exported)
    state: dict[str, Tensor] = torch.load(exported, weights_only=True)
    yield f"{'export':32} {digest_tensors(state)}"
    genotype, data = ("rnn_darts_v2", "pydoc") if "rnns.0._W0" in state else ("darts_v2", "digits")
    count = ("--min-count", "100") if data == "pydoc" else ()
    imported = exported.with_suffix(".safetensors")
    call_well(
        "import", exported, "--genotype", genotype, "--data", data, *count, "--output", imported
    )
    yield f"{'import':32} {digest_tensors(load_file(imported))}"


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Names, types, shapes and bits of tensors, whatever their order."""
    whole = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        whole.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def digest_genotype(file: Path) -> str:
    """The cells, without the day and the versions that derived them."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    return digest(json.dumps(document["cells"]).encode())


def digest(data: bytes) -> str:
    """A short digest of bytes."""
    return hashlib.blake2b(data, digest_size=12).hexdigest()


if __name__ == "__main__":
    main()
