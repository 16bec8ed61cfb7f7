"""Animated GIFs: one palette for all frames, exact areas, and endless repetition."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from darts_cli.run.files import WriteError
from darts_cli.spaces import SPACES
from darts_cli.viz.gif import COLOURS, Palette, write
from darts_cli.viz.style import THEMES, Theme, colour, mix

RED, GREEN, BLUE = "#FA0000", "#00FA00", "#0000FA"
OPERATIONS = SPACES["cnn"].operations


def area(colour: str, side: int = 8) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def noise(*size: int) -> Image.Image:
    """Draw a random colour for each pixel."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))


def own_palettes(gif: bytes) -> list[bool]:
    """Tell for each frame of a file whether it has a palette beside the one of the whole file."""

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


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_areas_keep_their_colours_when_borders_have_many(theme: Theme) -> None:
    areas = [theme.background, *map(colour, OPERATIONS), *theme.fills.values()]
    areas += [mix(colour(name), theme.background, theme.tint) for name in OPERATIONS]
    palette = Palette(areas, [noise(300, 400)])
    for one in areas:
        image = palette.apply(area(one))
        assert image.mode == "P"
        assert image.convert("RGB").getcolors() == [(64, ImageColor.getrgb(one))], one


def test_another_colour_becomes_a_near_one() -> None:
    palette = Palette(["#000000", RED, "#FAFAFA"], [area(RED)])
    assert palette.apply(area("#FF0A00")).convert("RGB").getpixel((0, 0)) == (250, 0, 0)


def test_borders_get_the_entries_that_areas_leave() -> None:
    ramp = Image.linear_gradient("L").convert("RGB")
    found = Palette(["#FFFFFF", "#000000"], [ramp]).apply(ramp).convert("RGB")
    off = np.abs(np.asarray(found).astype(int) - np.asarray(ramp).astype(int))
    assert off.max() <= 8


def test_a_palette_leaves_one_colour_to_pillow() -> None:
    palette = Palette([RED, GREEN], [noise(40, 40)])
    assert len(palette.values) <= 3 * COLOURS


def test_frames_keep_their_time_and_share_a_palette(tmp_path: Path) -> None:
    areas = [area(one) for one in (RED, GREEN, BLUE)]
    palette = Palette((RED, GREEN, BLUE), areas)
    write((palette.apply(one) for one in areas), [100, 250, 1000], tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
        assert image.info["loop"] == 0
        for place, (one, duration) in enumerate(zip(areas, [100, 250, 1000], strict=True)):
            image.seek(place)
            assert image.info["duration"] == duration
            assert image.convert("RGB").getpixel((3, 3)) == one.getpixel((0, 0))
    assert own_palettes((tmp_path / "a.gif").read_bytes()) == [False] * 3


def test_a_disk_that_is_full_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gif"
    path.write_text("old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    palette = Palette([RED], [area(RED)])
    with pytest.raises(WriteError, match="No space left on device"):
        write(iter([palette.apply(area(RED))]), [100], path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gif"]
