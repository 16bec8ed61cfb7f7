"""Checkpoints: what is written reads back, and nothing else is taken for one."""

import json
import resource
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from darts_cli.errors import CheckpointError, ConfigError
from darts_cli.run import checkpoint
from darts_cli.run.files import WriteError

METADATA: dict[str, Any] = {
    "kind": "search",
    "position": {"epoch": 3, "step": 17},
    "best": 0.1 + 0.2,
    "genotype": None,
    "classes": ["Käse", 'a "quoted" name\n'],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "last.safetensors"


def error_of_read(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_status == 2
    # What can be said without the tensors is the same.
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read_metadata(path)
    assert str(caught.value) == message
    return message


def write_raw(path: Path, header: dict[str, Any], data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_tensors_and_metadata_come_back_bit_for_bit(path: Path) -> None:
    tensors = {
        "float": torch.tensor([0.1, -0.0, float("inf"), float("nan"), 1e-45]),
        "double": torch.tensor([[0.1, 0.2]], dtype=torch.float64),
        "half": torch.tensor([0.1], dtype=torch.bfloat16),
        "count": torch.tensor(2**62),
        "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "weight": torch.nn.Parameter(torch.ones(2)),
    }
    checkpoint.write(path, tensors, METADATA)
    found, metadata = checkpoint.read(path)
    assert metadata == {"format": 2, **METADATA}
    assert checkpoint.read_metadata(path) == metadata
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert not found[name].requires_grad
        assert torch.equal(bits(found[name]), bits(tensor)), name


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def test_views_and_tensors_that_share_memory_come_back(path: Path) -> None:
    base = torch.arange(24.0).view(2, 3, 4)
    tensors = {
        "whole": base,
        "again": base,
        "part": base[:, 1],
        "transposed": base.transpose(0, 2),
        "strided": base[..., ::2],
        "expanded": base[:1, :1, :1].expand(2, 2, 2),
        "channels last": base[None].to(memory_format=torch.channels_last),
    }
    checkpoint.write(path, tensors, {})
    found, _ = checkpoint.read(path)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].is_contiguous(), name
    # Each is its own: to change one changes no other.
    found["whole"].zero_()
    assert torch.equal(found["again"], base)


def test_the_same_state_gives_the_same_file(path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    checkpoint.write(path, tensors, METADATA)
    first = path.read_bytes()
    checkpoint.write(path, tensors, dict(reversed(METADATA.items())))
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


def test_any_safetensors_reader_can_open_it(path: Path) -> None:
    checkpoint.write(path, {"a": torch.ones(2)}, {"kind": "search"})
    with safe_open(path, framework="pt") as file:
        told = json.loads(file.metadata()["darts"])
        assert len(told.pop("digest")) == 64
        assert told == {"format": 2, "kind": "search"}
        assert torch.equal(file.get_tensor("a"), torch.ones(2))


def test_the_bytes_are_those_that_safetensors_writes(path: Path) -> None:
    tensors = {
        f"{name}.{dtype}": torch.arange(count).to(dtype)
        for name, count in (("b", 3), ("é", 0), ('"', 5))
        for dtype in checkpoint._DTYPES
    }
    checkpoint.write(path, tensors, METADATA)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    other = path.with_name("other")
    save_file(tensors, other, metadata=metadata)
    assert path.read_bytes() == other.read_bytes()


def unreadable(path: Path) -> str:
    """Our error, around what safetensors says of the file."""
    with pytest.raises(SafetensorError) as caught, safe_open(path, framework="pt"):
        pass
    return (
        f"{path}: cannot be read ({caught.value}); "
        "expected a whole safetensors file; use another checkpoint"
    )


def test_a_file_cut_short_anywhere_is_one_line(path: Path) -> None:
    checkpoint.write(path, {"a": torch.ones(4), "b": torch.zeros(2)}, {"epoch": 3})
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert error_of_read(path) == unreadable(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage, and a good deal of it",
        b"PK\x03\x04" + bytes(100),
        struct.pack("<Q", 9) + b"not json!",
        struct.pack("<Q", 2) + b"\xff\xff",
    ],
    ids=["empty", "text", "a zip file", "not JSON", "not UTF-8"],
)
def test_an_empty_file_and_garbage_are_one_line(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert error_of_read(path) == unreadable(path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_a_foreign_safetensors_file_is_named(metadata: dict[str, str] | None, path: Path) -> None:
    save_file({"a": torch.ones(2)}, path, metadata=metadata)
    assert error_of_read(path) == (f"{path}: not a checkpoint of darts, expected one that it wrote")


@pytest.mark.parametrize(
    ("format_", "shown"), [(3, "3"), (0, "0"), (True, "True"), ("2", "'2'"), (None, "None")]
)
def test_another_format_is_named(format_: object, shown: str, path: Path) -> None:
    text = json.dumps({"format": format_})
    save_file({"a": torch.ones(2)}, path, metadata={"darts": text})
    assert error_of_read(path) == (
        f"{path}: found format {shown}, expected 2; use the version of darts that wrote it"
    )


def test_a_checkpoint_of_format_1_which_had_no_digest_is_still_read(path: Path) -> None:
    text = json.dumps({"format": 1, "kind": "search", "position": {"epoch": 2}})
    save_file({"a": torch.ones(2)}, path, metadata={"darts": text})
    tensors, metadata = checkpoint.read(path)
    assert torch.equal(tensors["a"], torch.ones(2))
    assert metadata == {"format": 1, "kind": "search", "position": {"epoch": 2}}


@pytest.mark.parametrize("told", [{"format": 2}, {"format": 1, "digest": "0" * 64}])
def test_a_digest_is_neither_left_out_nor_passed_over(told: dict[str, Any], path: Path) -> None:
    save_file({"a": torch.ones(2)}, path, metadata={"darts": json.dumps(told)})
    assert error_of_read(path) == f"{path}: its metadata is damaged; use another checkpoint"


def test_a_byte_altered_anywhere_is_one_line(path: Path) -> None:
    checkpoint.write(path, {"a": torch.ones(4), "b": torch.zeros(2)}, {"epoch": 3})
    whole = path.read_bytes()
    altered = 0
    for place in range(len(whole)):
        # A low bit makes another digit or letter, a high one no text at all.
        for bit in (0, 7):
            content = bytearray(whole)
            content[place] ^= 1 << bit
            path.write_bytes(content)
            with pytest.raises(CheckpointError) as caught:
                checkpoint.read(path)
            assert "\n" not in str(caught.value)
            altered += "altered since it was written" in str(caught.value)
    # All of the data, at least.
    assert altered >= 2 * 24
    path.write_bytes(whole)
    checkpoint.read(path)


def test_an_altered_tensor_is_named_as_such(path: Path) -> None:
    checkpoint.write(path, {"a": torch.ones(4)}, {"epoch": 3})
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert str(caught.value) == (
        f"{path}: was altered since it was written, or damaged; use another checkpoint"
    )


def test_a_name_in_the_data_is_not_taken_for_the_digest(path: Path) -> None:
    classes = ['"darts":"{\\"digest\\": \\"' + "0" * 64, '{"digest": "' + "0" * 64 + '"']
    checkpoint.write(path, {"a": torch.ones(2)}, {"classes": classes, "aaa": classes})
    assert checkpoint.read(path)[1]["classes"] == classes


def test_a_header_that_would_take_all_memory_is_refused(path: Path) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**40) + b"{")
        # A hole: the file is as long as it says and takes no room.
        file.truncate(2**40 + 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert error_of_read(path) == (
        f"{path}: found a header of 1,099,511,627,776 bytes, expected 8,388,608 or less; "
        "use another checkpoint"
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_tensors_of_terabytes_are_refused(path: Path) -> None:
    header = {
        "__metadata__": {"darts": json.dumps({"format": 1})},
        "a": {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]},
    }
    write_raw(path, header)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 2**40)
    message = error_of_read(path)
    assert message.startswith(f"{path}: found 1,099,511,62")
    assert "bytes, expected no more than this machine's memory, " in message


def test_metadata_that_could_not_be_read_again_is_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.write(path, {"a": torch.ones(2)}, {"epoch": 1})
    monkeypatch.setattr(checkpoint, "HEADER_LIMIT", 1000)
    with pytest.raises(ConfigError) as caught:
        checkpoint.write(path, {"a": torch.ones(2)}, {"vocabulary": ["word"] * 500})
    assert str(caught.value).startswith(f"{path}: names and metadata would take ")
    assert "--min-count" in str(caught.value)
    assert checkpoint.read(path)[1]["epoch"] == 1
    assert list(path.parent.iterdir()) == [path]


def test_the_file_that_is_replaced_can_be_kept(path: Path) -> None:
    previous = path.with_name("previous.safetensors")
    for epoch in range(4):
        checkpoint.write(path, {"a": torch.ones(2)}, {"epoch": epoch}, previous=previous)
    assert checkpoint.read(path)[1]["epoch"] == 3
    assert checkpoint.read(previous)[1]["epoch"] == 2
    assert sorted(path.parent.iterdir()) == [path, previous]


def test_it_is_kept_where_there_are_no_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    test_the_file_that_is_replaced_can_be_kept(path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "1", "[" * 100_000])
def test_damaged_metadata_is_named(text: str, path: Path) -> None:
    write_raw(path, {"__metadata__": {"darts": text}})
    assert error_of_read(path) == f"{path}: its metadata is damaged; use another checkpoint"


def test_a_missing_file_or_a_folder_is_named(path: Path) -> None:
    for missing in (path, path.parent):
        assert error_of_read(missing) == (
            f"{missing}: no such file, expected a checkpoint (*.safetensors)"
        )


def test_a_name_too_long_for_a_file_is_one_line(path: Path) -> None:
    assert "File name too long" in error_of_read(path.parent / ("x" * 300))


@given(changes=st.lists(st.tuples(st.integers(0, 239), st.integers(0, 255)), min_size=1))
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_header_of_other_bytes_is_read_or_refused(
    changes: list[tuple[int, int]], path: Path
) -> None:
    checkpoint.write(path, {"a": torch.ones(4), "b": torch.zeros(2)}, {"epoch": 3})
    content = bytearray(path.read_bytes())
    for where, byte in changes:
        content[where % (len(content) - 24)] = byte
    path.write_bytes(content)
    try:
        tensors, metadata = checkpoint.read(path)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
    else:
        assert metadata["format"] == 2
        assert all(isinstance(tensor, Tensor) for tensor in tensors.values())


def test_a_full_disk_leaves_the_old_checkpoint_alone(path: Path) -> None:
    checkpoint.write(path, {"a": torch.ones(2)}, {"epoch": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # The nearest to a full disk that needs no disk: no file may grow beyond 64 KiB.
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
        with pytest.raises(WriteError) as caught:
            checkpoint.write(path, {"a": torch.ones(100_000)}, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be written (")
    assert "File too large" in message
    assert message.endswith("; free some space or choose another place with --out or --output")
    assert "\n" not in message
    assert checkpoint.read_metadata(path)["epoch"] == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_tensor_of_a_type_that_no_checkpoint_holds_is_named(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    with pytest.raises(ConfigError) as caught:
        checkpoint.write(file, {"wide": torch.zeros(1, dtype=torch.complex128)}, {})
    assert str(caught.value) == (
        f"{file}: wide is of torch.complex128, expected a type that a checkpoint holds, "
        "such as torch.float32"
    )
    assert not file.exists()
