"""Animated GIFs: one palette, exact areas, and an end that is a beginning."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darts_cli.run.files import WriteError
from darts_cli.viz.gif import COLOURS, Palette, Pixels, write


def area(*colour: int, side: int = 8) -> Pixels:
    return np.full((side, side, 3), colour, np.uint8)


def own_palettes(gif: bytes) -> list[bool]:
    """For each frame of a file whether it has a palette beside the one of the whole file."""

    def skip_blocks(place: int) -> int:
        while gif[place]:
            place += 1 + gif[place]
        return place + 1

    place = 13 + 3 * 2 ** ((gif[10] & 7) + 1)
    found = []
    while gif[place] != 0x3B:
        if gif[place] == 0x21:
            place = skip_blocks(place + 2)
            continue
        flags = gif[place + 9]
        found.append(bool(flags & 0x80))
        size = 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
        place = skip_blocks(place + 11 + size)
    return found


def test_areas_keep_their_colours_when_borders_have_many() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    palette = Palette()
    # As in many pictures of smooth borders, and one with an area.
    for _ in range(50):
        palette.count(noise)
    palette.count(area(1, 2, 3))
    image = palette.apply(area(1, 2, 3))
    assert image.mode == "P"
    assert image.convert("RGB").getcolors() == [(64, (1, 2, 3))]


def test_another_colour_becomes_the_nearest() -> None:
    palette = Palette()
    for colour in ((0, 0, 0), (250, 0, 0), (250, 250, 250)):
        palette.count(area(*colour))
    assert palette.apply(area(255, 10, 0)).convert("RGB").getpixel((0, 0)) == (250, 0, 0)


def test_a_palette_leaves_one_colour_to_pillow() -> None:
    palette = Palette()
    palette.count(np.arange(300 * 3, dtype=np.uint32).view(np.uint8)[: 300 * 3].reshape(10, 30, 3))
    image = palette.apply(area(0, 0, 0))
    assert len(image.getpalette() or []) <= 3 * COLOURS


def test_frames_keep_their_time_and_share_a_palette(tmp_path: Path) -> None:
    palette = Palette()
    areas = [area(250, 0, 0), area(0, 250, 0), area(0, 0, 250)]
    for one in areas:
        palette.count(one)
    write((palette.apply(one) for one in areas), [100, 250, 1000], tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
        assert image.info["loop"] == 0
        for place, (one, duration) in enumerate(zip(areas, [100, 250, 1000], strict=True)):
            image.seek(place)
            assert image.info["duration"] == duration
            assert image.convert("RGB").getpixel((3, 3)) == tuple(one[0, 0].tolist())
    assert own_palettes((tmp_path / "a.gif").read_bytes()) == [False] * 3


def test_a_disk_that_is_full_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gif"
    path.write_text("old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    palette = Palette()
    palette.count(area(1, 1, 1))
    with pytest.raises(WriteError, match="No space left on device"):
        write([palette.apply(area(1, 1, 1))], [100], path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gif"]
