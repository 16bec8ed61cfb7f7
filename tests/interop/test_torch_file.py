"""Files of `torch.save` from others: nothing in them runs, and no bad one is more than a line."""

import pickle
import re
import resource
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from darts_cli.errors import CheckpointError
from darts_cli.interop import pickle_scan, torch_file
from tests.interop.published import save

STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.count": torch.tensor(3)}


class Touch:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("made"),)


class OfNetwork(nn.Module):
    """What published recurrent checkpoints are a pickle of."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: Path) -> object:
    torch_file.read_keys(path)
    return torch_file.read(path)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def assert_is_state(value: object) -> None:
    assert isinstance(value, dict)
    assert value.keys() == STATE.keys()
    assert all(torch.equal(value[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        STATE,
        OrderedDict(STATE),
        {name: nn.Parameter(tensor) for name, tensor in STATE.items() if tensor.dim()}
        | {"a.count": STATE["a.count"]},
    ],
)
def test_tensors_by_name_are_read(value: object, old: bool) -> None:
    path = save(Path("net.pt"), value, old=old)
    assert torch_file.is_torch_file(path)
    assert torch_file.read_keys(path) == STATE.keys()
    assert_is_state(torch_file.read(path))


@pytest.mark.parametrize("old", [False, True])
def test_numbers_and_lists_beside_them_are_read(old: bool) -> None:
    whole = {"state_dict": STATE, "epoch": 3, "best": 0.5, "args": ["a", None, True, -1, 2**40]}
    path = save(Path("net.pt"), whole, old=old)
    assert torch_file.read_keys(path) == {*STATE, *whole}
    found = torch_file.read(path)
    assert isinstance(found, dict)
    assert_is_state(found.pop("state_dict"))
    assert found == {name: value for name, value in whole.items() if name != "state_dict"}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (OfNetwork(), r"\S*test_torch_file\.OfNetwork"),
        (nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        ({"state_dict": STATE, "more": Touch()}, r"\S*\.getattr|pathlib\S*|posixpath\S*"),
        ({"best": np.float64(3)}, r"numpy\.\S+"),
        (Path, r"pathlib\S*"),
    ],
)
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_pickled_object_is_refused_and_not_run(
    folder: Path, value: object, name: str, old: bool
) -> None:
    path = save(Path("net.pt"), value, old=old)
    message = refusal(path)
    start, _, rest = message.partition(" (")
    found, _, end = rest.partition(")")
    assert start == "holds a pickled module or other object"
    assert re.fullmatch(name, found)
    assert (
        end == ", which would run code when read; save its state_dict() with the code that made it"
    )
    assert {entry.name for entry in folder.iterdir()} == {"net.pt"}


def in_archive(content: bytes, *, kind: int = zipfile.ZIP_STORED) -> Path:
    """An archive such as torch's, of any pickle."""
    with zipfile.ZipFile("net.pt", "w", kind) as archive:
        archive.writestr("net/data.pkl", content)
        archive.writestr("net/version", b"3\n")
    return Path("net.pt")


def test_a_crafted_pickle_runs_nothing(folder: Path) -> None:
    for content in (
        b"cos\nsystem\n(S'touch made'\ntR.",
        b"\x80\x02cos\nsystem\n\x8c\x0atouch made\x85R.",
        b"\x80\x02cbuiltins\neval\nX\x14\x00\x00\x00open('made','w').x() \x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch made\x85R.",
        b"(ios\nsystem\nS'touch made'\n.",
    ):
        path = in_archive(content)
        assert refusal(path)
        Path("other.pt").write_bytes(content)
        assert refusal(Path("other.pt")).startswith("not written by torch.save, expected")
    assert {entry.name for entry in folder.iterdir()} == {"net.pt", "other.pt"}


DOUBLED = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
"""Makes a tuple of tuples with 2^60 ends of what stands on the stack."""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x02}K\x01" + DOUBLED + b"K\x01s.", "a key that is no text"),
        (b"\x80\x02}(K\x01" + DOUBLED + b"K\x01u.", "a key that is no text"),
        (b"\x80\x02}" + b"K\x01\x85" + b"\x85" * 100_000 + b"K\x01s.", "a key that is no text"),
        (b"\x80\x02ccollections\nOrderedDict\n]\x85R.", "a mapping made of others"),
        (b"\x80\x02ccollections\nOrderedDict\n)R]b.", "a state that is no mapping"),
        (b"\x80\x02K\x01K\x01\x85R.", "a call of no function"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "a call of no function"),
        (b"\x80\x02K\x01\x85\x85\x85Q.", "a storage without a plain name"),
        (b"\x80\x02" + b"N0" * 300_000 + b".", "more or other than tensors by name"),
        (b"\x80\x02]" + b"Na" * 300_000 + b".", "more or other than tensors by name"),
        (b"\x80\x02(\x8f.", "more or other than tensors by name"),
        (b"\x80\x02", "no whole pickle"),
        (b"\x80\x02X\xff\xff\xff\x7f", "no whole pickle"),
        (b"\x80\x02.", "no whole pickle"),
        (b"\x80\x02h\x07.", "no whole pickle"),
        (b"", "no whole pickle"),
        (b"N" * (pickle_scan.MAX_BYTES + 1), "no data.pkl of 4,194,304 bytes or less in it"),
    ],
)
def test_a_pickle_made_to_be_dear_is_refused_unread(content: bytes, reason: str) -> None:
    assert refusal(in_archive(content)) == (
        f"cut short, damaged or of another kind (found {reason}); "
        "expected tensors by name as torch.save writes them: fetch or save it again"
    )


def test_what_is_packed_is_refused() -> None:
    path = in_archive(b"\0" * 10_000_000, kind=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    assert "(found compressed contents)" in refusal(path)


def test_an_archive_of_very_many_entries_is_refused() -> None:
    with zipfile.ZipFile("net.pt", "w") as archive:
        for number in range(20_001):
            archive.writestr(str(number), b"")
    assert "(found more than 20,000 entries)" in refusal(Path("net.pt"))


def test_an_archive_that_says_so_is_not_believed() -> None:
    content = bytearray(save(Path("net.pt"), STATE).read_bytes())
    # How many entries there are.
    content[-14:-10] = struct.pack("<2H", 60_000, 60_000)
    Path("net.pt").write_bytes(content)
    assert_is_state(read(Path("net.pt")))
    with zipfile.ZipFile("other.pt", "w") as archive:
        archive.writestr("other/data.pkl", b"")
        archive.writestr("more/data.pkl", b"")
    assert "(found no data.pkl of " in refusal(Path("other.pt"))


def test_a_sparse_file_as_large_as_any_is_refused_at_once() -> None:
    for start in (b"PK\x03\x04", torch_file._OLD, b""):
        with Path("net.pt").open("wb") as file:
            file.write(start)
            file.truncate(2**42)
        assert refusal(Path("net.pt")) == (
            "found 4,398,046,511,104 bytes, expected 2,147,483,648 or less; "
            "give the state dictionary of the network alone"
        )
        with Path("net.pt").open("r+b") as file:
            file.truncate(2**31)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert refusal(Path("net.pt"))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 200 * 1024


def test_more_numbers_than_are_stored_are_known() -> None:
    found = read(save(Path("net.pt"), {"a": torch.zeros(()).expand(10**9, 10**6)}))
    assert isinstance(found, dict)
    assert not torch_file.is_whole(found["a"])
    assert torch_file.is_whole(torch.zeros(3, 4).t())


def test_sums_that_torch_was_told_to_leave_out_are_not_asked_for() -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = save(Path("net.pt"), STATE)
    finally:
        torch.serialization.set_crc32_options(before)
    assert_is_state(read(path))


def test_an_altered_number_is_known() -> None:
    content = save(Path("net.pt"), {"a": torch.full((100,), 7.0)}).read_bytes()
    place = content.index(struct.pack("<f", 7.0))
    Path("net.pt").write_bytes(content[:place] + b"\1" + content[place + 1 :])
    assert refusal(Path("net.pt")).startswith(
        "cut short, damaged or of another kind (found net/data/0 altered); expected tensors"
    )


def flip(content: bytes, draws: np.random.Generator) -> bytes:
    altered = bytearray(content)
    altered[draws.integers(len(altered))] ^= 1 << int(draws.integers(8))
    return bytes(altered)


def cut(content: bytes, draws: np.random.Generator) -> bytes:
    return content[: draws.integers(len(content))]


@pytest.mark.parametrize("change", [flip, cut])
@pytest.mark.parametrize("old", [False, True])
def test_altered_and_cut_files_are_read_or_refused(
    folder: Path, change: Callable[[bytes, np.random.Generator], bytes], old: bool
) -> None:
    content, draws = save(Path("net.pt"), STATE, old=old).read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        Path("net.pt").write_bytes(change(content, draws))
        try:
            found = read(Path("net.pt"))
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either is right
            refused += 1
        else:
            # An older file has no sums: what its numbers are, it alone knows.
            if not old:
                assert isinstance(found, dict)
                assert all(torch.equal(found[name], STATE[name]) for name in STATE)
    assert refused > (250 if change is cut else 20)
    assert {entry.name for entry in folder.iterdir()} == {"net.pt"}


def test_pickles_that_torch_has_not_written_are_refused() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        Path("net.pkl").write_bytes(pickle.dumps({"a": [1, 2]}, protocol))
        assert refusal(Path("net.pkl")).startswith("not written by torch.save, expected a state")


def test_a_torch_file_is_known_by_its_content_or_its_name() -> None:
    Path("net").write_bytes(save(Path("net.pt"), STATE).read_bytes())
    assert torch_file.is_torch_file(Path("net"))
    Path("cut.pth.tar").write_bytes(b"")
    assert torch_file.is_torch_file(Path("cut.pth.tar"))
    Path("cell.txt").write_text("Genotype()")
    assert not torch_file.is_torch_file(Path("cell.txt"))
