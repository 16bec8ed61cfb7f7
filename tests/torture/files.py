"""Files that were cut, altered or made up, given to everything that reads files from others.

python -m tests.torture.files [--inputs N] [--seed S] [READER ...]
"""

import argparse
import contextlib
import io
import json
import math
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from cProfile import Profile
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import yaml
from numpy.random import Generator
from PIL import Image
from torch import Tensor

from darts_cli import config_file
from darts_cli.commands.build import build_state
from darts_cli.commands.checkpoint_checks import check_hidden, check_position, check_size
from darts_cli.commands.import_ import import_file
from darts_cli.commands.reading import read_alphas, read_history, read_records
from darts_cli.commands.run_spec import RunSpec, naming, read_spec, with_own_root
from darts_cli.config import ConvNetworkConfig
from darts_cli.engine.artifacts import origin
from darts_cli.engine.state import State, load_network
from darts_cli.engine.steps import search_step, train_step
from darts_cli.engine.task import Batch, Loaders
from darts_cli.errors import DartsError
from darts_cli.genotype.derivation import derive
from darts_cli.genotype.file import dump, load, shipped
from darts_cli.genotype.pasted import write_pasted
from darts_cli.options import ImportOptions
from darts_cli.recipes import RECIPES
from darts_cli.run import checkpoint
from darts_cli.run.directory import Run
from darts_cli.run.signals import SearchSnapshot, take_snapshot
from darts_cli.runtime.memory import MemoryMeter
from darts_cli.runtime.ranks import SINGLE_PROCESS
from darts_cli.spaces import SPACES
from darts_cli.spaces.cnn.data.decode import decode_range
from darts_cli.spaces.cnn.data.folder import Split
from darts_cli.spaces.cnn.network import Network
from darts_cli.spaces.rnn.text import build_vocabulary, find_folder
from darts_cli.terminal.frame import FinishedEpochs
from darts_cli.viz.page.data import RunPage, page_data

# Calls of functions, in Python and in C, by which each file has to be read or refused. They take
# a second or less; their number is the same on any machine, whatever else it does.
CALLS = 3_000_000

# Seconds after which a reader hangs, in code that calls nothing as well.
PATIENCE = 60

MEGABYTES = 200
"""That an answer may take beyond what the process has."""

_CPU = torch.device("cpu")

Reader = Callable[[Path], object]
Change = Callable[[bytes, Generator], bytes]


@dataclass
class Tally:
    """What has come of it."""

    inputs: int = 0
    refused: int = 0
    calls: int = 0
    """Calls of functions that the longest answer took."""
    longest_reader: str = ""
    largest: float = 0.0
    """MB that an answer took beyond what the process had."""
    largest_reader: str = ""
    failures: list[str] = field(default_factory=list)


def main() -> None:
    """Print how many inputs, refusals and failures there were; leave with 1 if any failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--inputs", type=int, default=12_000, help="over all readers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        targets = make_targets(Path(folder) / "sound")
        chosen = {name: targets[name] for name in arguments.readers or targets}
        place = Path(folder) / "altered"
        place.mkdir()
        tally = torture(chosen, arguments.inputs, arguments.seed, place)
    print(
        f"{tally.inputs:,} inputs, {tally.refused:,} refused, {len(tally.failures)} failures; "
        f"longest {tally.calls:,} calls ({tally.longest_reader}), "
        f"largest {tally.largest:.0f} MB ({tally.largest_reader})"
    )
    print("\n".join(tally.failures[:20]))
    sys.exit(bool(tally.failures))


def torture(targets: dict[str, "Target"], inputs: int, seed: int, place: Path) -> Tally:
    """Alter the files of each target in turn, and have them read."""
    draws, tally = np.random.default_rng(seed), Tally()
    names = list(targets)
    for target in targets.values():
        # What a reader imports counts for none of the files.
        target.read(target.sound[0])
    for number in range(inputs):
        name = names[number % len(names)]
        targets[name].try_one(draws, tally, name, place)
    return tally


@dataclass
class Target:
    """A kind of file: sound ones, how it is altered, and what reads it."""

    sound: list[Path]
    changes: list[Change]
    read: Reader

    def try_one(self, draws: Generator, tally: Tally, name: str, place: Path) -> None:
        """Alter one of the files, have it read, and note what came."""
        sound = self.sound[draws.integers(len(self.sound))]
        change = self.changes[draws.integers(len(self.changes))]
        path = place / sound.name
        path.write_bytes(change(sound.read_bytes(), draws))
        listing = sorted(place.iterdir())
        tally.inputs += 1
        memory = MemoryMeter(_CPU)
        memory.reset()
        before = memory.peak()
        profile, problem = Profile(), None
        try:
            with patience(PATIENCE), profile:
                self.read(path)
        except DartsError as error:
            tally.refused += 1
            if "\n" in str(error) or error.exit_status != 2 or len(str(error)) > 2000:
                problem = f"says {str(error)[:300]!r}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure
            problem = f"{type(error).__name__}: {error}"
        calls = sum(entry.callcount for entry in profile.getstats())
        grown = (memory.peak() - before) / 1e6
        if grown > tally.largest:
            tally.largest, tally.largest_reader = grown, name
        if calls > tally.calls:
            tally.calls, tally.longest_reader = calls, name
        if calls > CALLS:
            problem = problem or f"takes {calls:,} calls"
        if grown > MEGABYTES:
            problem = problem or f"takes {grown:.0f} MB"
        if sorted(place.iterdir()) != listing:
            problem = problem or "leaves files behind"
        if problem is not None:
            tally.failures.append(f"{name}, input {tally.inputs}: {problem}")
        path.unlink()


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Give up what takes longer."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError("hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# Changes of bytes.


def flip(content: bytes, draws: Generator) -> bytes:
    """One bit, or some."""
    altered = bytearray(content)
    for _ in range(draws.choice([1, 1, 1, 2, 10])):
        altered[draws.integers(len(altered))] ^= 1 << int(draws.integers(8))
    return bytes(altered)


def put(content: bytes, draws: Generator) -> bytes:
    """Another byte."""
    altered = bytearray(content)
    altered[draws.integers(len(altered))] = int(draws.choice([0, 9, 10, 32, 45, 58, 91, 123, 255]))
    return bytes(altered)


def cut(content: bytes, draws: Generator) -> bytes:
    """The end, or a piece."""
    start, end = sorted(draws.integers(len(content) + 1, size=2))
    return content[:start] if draws.random() < 0.5 else content[:start] + content[end:]


def repeat(content: bytes, draws: Generator) -> bytes:
    """A piece, twice or a thousand times."""
    start, end = sorted(draws.integers(len(content) + 1, size=2))
    times = int(draws.choice([2, 10, 1000]))
    return content[:start] + content[start:end][:2000] * times + content[end:]


def insert(content: bytes, draws: Generator) -> bytes:
    """Random bytes."""
    start = draws.integers(len(content) + 1)
    return content[:start] + draws.bytes(int(draws.choice([1, 4, 100]))) + content[start:]


BYTES: list[Change] = [flip, put, cut, repeat, insert]

WORDS = (
    *("0", "-1", "1e999", "nan", "-inf", ".nan", "true", "null", "~", "[]", "{}", "''", "*a", "&a"),
    *("99999999999999999999999", "1.5", "sep_conv_3x3", "none", "!!python/object/apply:os.system"),
    *("[[[]]]", "{a: b}", "? a", "- -", "|", "%", "@", "0x10", "1_000", "2020-01-01", "<<"),
)


def put_word(content: bytes, draws: Generator) -> bytes:
    """Another word in the place of one."""
    text = content.decode()
    places = [match.span() for match in re.finditer(r"[\w.+-]+", text)]
    start, end = places[draws.integers(len(places))]
    return (text[:start] + str(draws.choice(WORDS)) + text[end:]).encode()


def move_line(content: bytes, draws: Generator) -> bytes:
    """A line in another place, or with another indent."""
    lines = content.decode().splitlines()
    line = lines.pop(draws.integers(len(lines)))
    line = line if draws.random() < 0.5 else " " * int(draws.integers(8)) + line.strip()
    lines.insert(int(draws.integers(len(lines) + 1)), line)
    return "\n".join(lines).encode()


TEXT: list[Change] = [*BYTES, put_word, put_word, move_line]


# Changes of what a checkpoint says, whose digest is right.


def make_up(draws: Generator, depth: int = 0) -> Any:
    """Any JSON value."""
    leaves: list[Any] = [
        None,
        True,
        False,
        0,
        -1,
        3,
        999,
        10**9,
        10**30,
        10**400,
        0.5,
        -0.0,
        math.nan,
        math.inf,
    ]
    leaves += ["", "x", "search", "cnn", "darts", "\n", "é" * 50]
    kind = draws.integers(4 if depth < 3 else 2)
    if kind < 2:
        return leaves[draws.integers(len(leaves))]
    values = [make_up(draws, depth + 1) for _ in range(draws.integers(4))]
    return values if kind == 2 else {f"k{number}": value for number, value in enumerate(values)}


def alter_json(value: Any, draws: Generator) -> Any:
    """Another value somewhere in one: made up, gone, or too much."""
    if isinstance(value, dict) and value and draws.random() < 0.85:
        key = list(value)[draws.integers(len(value))]
        if draws.random() < 0.1:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: alter_json(value[key], draws)}
    if isinstance(value, list) and value and draws.random() < 0.7:
        place = draws.integers(len(value))
        return [*value[:place], alter_json(value[place], draws), *value[place + 1 :]]
    return make_up(draws)


def alter_tensor(tensor: Tensor, draws: Generator) -> Tensor:
    """Another shape, type or value."""
    match draws.integers(6):
        case 0:
            return tensor.reshape(-1)
        case 1:
            return torch.cat([tensor.reshape(-1)] * 2)
        case 2:
            kinds = [torch.int64, torch.float16, torch.bool, torch.float64, torch.complex64]
            return tensor.to(kinds[draws.integers(len(kinds))])
        case 3:
            return torch.full_like(tensor, math.nan if tensor.is_floating_point() else 1)
        case 4:
            return torch.zeros(())
        case _:
            return torch.zeros(0)


def alter_line(content: bytes, draws: Generator) -> bytes:
    """One of a file's JSON values, one a line."""
    lines = content.decode().splitlines()
    number = draws.integers(len(lines))
    lines[number] = json.dumps(alter_json(json.loads(lines[number]), draws))
    return "\n".join(lines).encode()


def alter_checkpoint(content: bytes, draws: Generator, *, folder: Path) -> bytes:
    """Another checkpoint, as sound as the one it was."""
    path = folder / "forged.safetensors"
    path.write_bytes(content)
    tensors, metadata = checkpoint.read(path)
    if draws.random() < 0.7:
        metadata = alter_json(metadata, draws)
        metadata = metadata if isinstance(metadata, dict) else {}
        metadata.pop("digest", None)
    else:
        name = list(tensors)[draws.integers(len(tensors))]
        tensor = tensors.pop(name)
        if draws.random() < 0.8:
            name = name if draws.random() < 0.8 else f"{name}.more"
            tensors[name] = alter_tensor(tensor, draws)
    checkpoint.write(path, tensors, metadata)
    altered = path.read_bytes()
    path.unlink()
    return altered


# What reads, and what there is to read.


def read_config(path: Path) -> None:
    """As `--config` does."""
    settings = config_file.read(path)
    settings.pop("recipe", None)
    settings.pop("space", None)
    config_file.override(RECIPES["search"]["cnn"]["digits"], settings, str(path))


def read_checkpoint(path: Path) -> None:
    """As `--resume` does, but for the data; the optimizers take a step by what was restored."""
    tensors, metadata = checkpoint.read(path)
    spec = read_spec(metadata, path)
    check_size(spec, metadata["facts"], tensors, path)
    check_hidden(spec, tensors, metadata, path)
    spec = replace(spec, config=with_own_root(spec.config, path.parent))
    state = build_state(spec, metadata["facts"], _CPU, SINGLE_PROCESS)
    with naming(path):
        state.load_state_dict(tensors, metadata)
    check_position(spec, state, Loaders(train=Ten()), metadata["counts"] | COUNTS, path)
    architects = [state.architect.optimizer] if state.architect is not None else []
    for optimizer in (state.optimizer, *architects):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()


def read_trained(path: Path) -> None:
    """As `darts eval` does, but for the data."""
    tensors, metadata = checkpoint.read(path)
    spec = read_spec(metadata, path)
    check_size(spec, metadata["facts"], tensors, path)
    with_own_root(spec.config, path.parent)
    module = spec.task.build(spec.config, metadata["facts"], spec.genotype)
    with naming(path):
        load_network(module, tensors, averaged=True)


def read_alphas_file(path: Path) -> None:
    """As `darts derive` does."""
    space, alphas, metadata = read_alphas(path)
    dump(derive(space, alphas, name="it", origin=origin(metadata, "run", 1))[0])


def read_metrics(path: Path) -> None:
    """As a run does after an epoch, and as `--resume` does."""
    run = Run(path.parent)
    run.metrics = path
    run.keep_metrics(2)
    FinishedEpochs(space=SPACES["cnn"], epochs=3, records=run.read_metrics()).warnings()
    read_records(run, SPACES["cnn"])


def read_run(path: Path, *, run: Run) -> None:
    """As `darts viz RUN --output NAME.html` does, with one of the run's files altered."""
    place = (run.alphas if path.suffix == ".safetensors" else run.path) / path.name
    sound = place.read_bytes()
    place.write_bytes(path.read_bytes())
    try:
        history = read_history(run.path)
        page = page_data([RunPage(history=history)], run.path, snapshots=9, rows=9)
        json.dumps(page, allow_nan=False)
    finally:
        place.write_bytes(sound)


def read_image(path: Path) -> None:
    """As a run does."""
    decode_range(Split([str(path)], torch.zeros(1, dtype=torch.int64)), 0, 1, (3, 8))


def read_text(path: Path) -> None:
    """As a run does."""
    lines = find_folder(path.parent, "text", complete=False)
    build_vocabulary(lines["train"](), 1)


def read_published(path: Path, *, folder: Path) -> None:
    """As `darts import` does."""
    request = ImportOptions(
        source=path, genotype="darts_v2", output=folder / "imported.safetensors"
    )
    import_quietly(request)


def read_pasted(path: Path, *, folder: Path) -> None:
    """As `darts import` does."""
    import_quietly(ImportOptions(source=path, output=folder / "imported.yaml"))


def import_quietly(request: ImportOptions) -> None:
    """Import, and print nothing."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import_file(request)


def make_targets(folder: Path) -> dict[str, Target]:
    """Sound files of all kinds."""
    folder.mkdir()
    config = folder / "config.yaml"
    config.write_text(config_file.dump(RECIPES["search"]["cnn"]["digits"], {"command": "search"}))
    text = folder / "train.txt"
    text.write_text("a sentence of words\nand another one\n" * 20)
    checkpoints = make_checkpoints(folder)
    searches, trained = checkpoints[:2], checkpoints[2:]
    run = make_run(folder / "run", searches[0])
    alphas = [run.alphas_of(1), run.alphas_of(2)]
    forge = partial(alter_checkpoint, folder=folder)
    return {
        "genotype": Target(list(shipped().values()), TEXT, partial(load, spaces=SPACES)),
        "config": Target([config], TEXT, read_config),
        "checkpoint": Target(checkpoints, BYTES, read_checkpoint),
        "forged checkpoint": Target(checkpoints, [forge], read_checkpoint),
        "forged network": Target(trained, [forge], read_trained),
        "forged alphas": Target([*searches, *alphas], [forge], read_alphas_file),
        "metrics": Target([run.metrics], [*TEXT, alter_line, alter_line], read_metrics),
        "run of text": Target(
            [run.config, run.metrics, run.genotype], TEXT, partial(read_run, run=run)
        ),
        "run of alphas": Target(alphas, [forge], partial(read_run, run=run)),
        "run of metrics": Target([run.metrics], [alter_line], partial(read_run, run=run)),
        "image": Target(make_images(folder), BYTES, read_image),
        "text": Target([text], BYTES, read_text),
        "published": Target(make_published(folder), BYTES, partial(read_published, folder=folder)),
        "pasted": Target(make_pasted(folder), TEXT, partial(read_pasted, folder=folder)),
    }


def make_published(folder: Path) -> list[Path]:
    """State dictionaries in both formats of torch."""
    config = ConvNetworkConfig(channels=2, layers=3)
    network = Network(config, load("darts_v2", SPACES), classes=10)
    paths = [folder / "new.pt", folder / "old.pt"]
    for path in paths:
        is_new = path.stem == "new"
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=is_new)
    return paths


def make_pasted(folder: Path) -> list[Path]:
    """A genotype of each space as published code has it."""
    paths = []
    for name in ("darts_v2", "rnn_darts_v2"):
        genotype = load(name, SPACES)
        paths.append(folder / f"{name}.txt")
        paths[-1].write_text(write_pasted(genotype, SPACES[genotype.space]))
    return paths


def make_images(folder: Path) -> list[Path]:
    """One of each kind."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    paths = [folder / f"image.{suffix}" for suffix in ("png", "jpg", "bmp", "webp")]
    for path in paths:
        Image.fromarray(noise).save(path)
    return paths


COUNTS = {"train": 60, "valid": 20}
"""Examples of the runs."""

FACTS: dict[str, dict[str, Any]] = {
    "cnn": {
        "name": "pets",
        "classes": ["cat", "dog"],
        "channels": 1,
        "size": 8,
        "mean": [0.5],
        "std": [0.25],
    },
    "rnn": {"vocabulary": ["a", "b", "<eos>"]},
}
"""What they know about their data."""

SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"network": {"channels": 2, "layers": 3}, "data": {"batch_size": 4}},
    "rnn": {"network": {"width": 4}, "data": {"batch_size": 4, "segment": 3}},
}
"""Their settings."""


class Ten:
    """A stream of ten batches, which nobody reads."""

    def steps(self, _epoch: int) -> int:
        """Ten."""
        return 10

    def batches(self, _epoch: int, _start: int = 0) -> Iterator[Batch]:
        """None."""
        return iter(())


def make_checkpoints(folder: Path) -> list[Path]:
    """Of a search and a training in both spaces, after two steps each."""
    paths = []
    for command, space, genotype in (
        ("search", "cnn", None),
        ("search", "rnn", None),
        ("train", "cnn", "darts_v2"),
        ("train", "rnn", "rnn_darts_v2"),
    ):
        recipe = next(iter(RECIPES[command][space]))
        config = config_file.override(RECIPES[command][space][recipe], SMALL[space], "")
        found = load(genotype, SPACES) if genotype is not None else None
        spec = RunSpec(command=command, config=config, genotype=found)
        state = build_state(spec, FACTS[space], _CPU, SINGLE_PROCESS)
        take_two_steps(spec, state)
        paths.append(folder / f"{command}-{space}.safetensors")
        checkpoint.write(paths[-1], state.state_dict(), describe(spec, FACTS[space], state))
    return paths


def take_two_steps(spec: RunSpec, state: State) -> None:
    """Have the optimizers, and what else remembers, something to keep."""
    batch = spec.task.example(spec.config, FACTS[spec.config.space], single=False)
    if spec.config.weights.averaging_patience:
        state.start_averaging()
    for _ in range(2):
        if spec.search:
            search_step(state, batch, batch, spec.config.seed)
        train_step(state, batch, spec.config)
        state.position.step += 1
        state.position.total += 1


def make_run(path: Path, search: Path) -> Run:
    """What a search of two epochs leaves behind, by the checkpoint of one."""
    run = Run.create(path)
    tensors, metadata = checkpoint.read(search)
    del metadata["facts"]
    space, config = SPACES["cnn"], metadata["config"]
    run.config.write_text(yaml.safe_dump({"command": "search", **config}))
    named = {name: tensor for name, tensor in tensors.items() if name.startswith("alphas.")}
    alphas = {cell: named[f"alphas.{cell}"].tolist() for cell in space.cells}
    snapshot: SearchSnapshot | None = None
    for epoch in (1, 2):
        told = {**metadata, "kind": "alphas", "position": {"epoch": epoch}}
        checkpoint.write(run.alphas_of(epoch), named, told)
        snapshot = take_snapshot(space, alphas, epoch=epoch, name="it", before=snapshot)
        record = {"lr": 0.1, "train": {"loss": 1.5, "top1": 0.5}, **asdict(snapshot.signals)}
        run.append_metrics(record)
        run.genotype.write_text(dump(snapshot.genotype))
    return run


def describe(spec: RunSpec, info: dict[str, Any], state: State) -> dict[str, Any]:
    """What a run writes into its checkpoints."""
    return {
        "kind": spec.command,
        "config": config_file.as_mapping(spec.config),
        "facts": info,
        "counts": COUNTS,
        "fingerprints": {"train": "0" * 32},
        "genotype": dump(spec.genotype) if spec.genotype is not None else None,
        "versions": {},
        **state.metadata(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Pillow warns of much that it reads all the same.
    warnings.simplefilter("ignore")
    main()
