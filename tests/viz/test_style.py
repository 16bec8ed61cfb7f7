"""Colours: legible in both themes, and apart for everybody."""

from itertools import combinations

import numpy as np
import pytest

from darts_cli.errors import ConfigError
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES
from darts_cli.viz.style import COLOURS, OTHER_COLOUR, THEMES, Style, Theme, colour, mix

Array = np.ndarray

# Perception of linear sRGB. Machado, Oliveira and Fernandes, A Physiologically-based Model for
# Simulation of Color Vision Deficiency, IEEE TVCG 15(6), 2009; severity 1.
VISION: dict[str, Array] = {
    "trichromacy": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}

# From linear sRGB to OKLab, in which equal distances look alike (Ottosson, 2020).
LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)

# A clearly visible distance in OKLab; the least one here is 0.096. About 0.02 can just be seen, and
# Okabe and Ito's colours with three of Tol's, as in a draft, were 0.039 apart.
APART = 0.09


def linear(hexadecimal: str) -> Array:
    parts = np.array([int(hexadecimal[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def seen(hexadecimal: str, vision: str) -> Array:
    cones: Array = np.cbrt(LMS @ np.clip(VISION[vision] @ linear(hexadecimal), 0, 1))
    return np.asarray(LAB @ cones)


def contrast(one: str, other: str) -> float:
    """Compute the contrast that WCAG 2 defines, from 1 to 21."""
    lights = sorted(float(linear(ink) @ [0.2126, 0.7152, 0.0722]) + 0.05 for ink in (one, other))
    return lights[1] / lights[0]


@pytest.fixture(params=THEMES)
def theme(request: pytest.FixtureRequest) -> Theme:
    return THEMES[request.param]


def test_contrast_and_vision_are_what_is_known_of_them() -> None:
    assert contrast("#FFFFFF", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.01)
    for vision, matrix in VISION.items():
        assert matrix.sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
        assert seen("#FFFFFF", vision) == pytest.approx([1, 0, 0], abs=1e-3)
    # A red and a green that are one colour without the cones for green.
    red, green = "#D55E00", "#8A8000"
    assert np.linalg.norm(seen(red, "deuteranopia") - seen(green, "deuteranopia")) < 0.06
    assert np.linalg.norm(seen(red, "trichromacy") - seen(green, "trichromacy")) > 0.12


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_everybody_can_tell_the_operations_of_a_space_apart(
    space: SearchSpace, vision: str
) -> None:
    names = {*space.primitives, *space.operations}
    near = {
        (one, two): distance
        for one, two in combinations(sorted(names), 2)
        if (distance := np.linalg.norm(seen(COLOURS[one], vision) - seen(COLOURS[two], vision)))
        < APART
    }
    assert near == {}


def test_lines_and_outlines_are_seen_on_the_background(theme: Theme) -> None:
    operations = [COLOURS[name] for space in SPACES.values() for name in space.operations]
    for ink in (*operations, OTHER_COLOUR, theme.join, *theme.outlines.values()):
        assert contrast(ink, theme.background) >= 3, ink


def test_texts_can_be_read_on_everything_they_stand_on(theme: Theme) -> None:
    for ink in (theme.ink, theme.faint):
        assert contrast(ink, theme.background) >= 4.5
        assert all(contrast(ink, fill) >= 4.5 for fill in theme.fills.values())
    for name in (*COLOURS, "another"):
        for share in (theme.tint, theme.strong):
            fill = mix(colour(name), theme.background, share)
            assert contrast(theme.ink, fill) >= 4.5, (name, share)


def test_what_is_pale_is_less_seen_than_what_is_not(theme: Theme) -> None:
    for ink in (*COLOURS.values(), theme.join):
        pale = mix(ink, theme.background, theme.pale)
        assert 1.15 < contrast(pale, theme.background) < 0.75 * contrast(ink, theme.background)


def test_inputs_nodes_and_output_are_not_alike(theme: Theme) -> None:
    for colours in (theme.fills, theme.outlines):
        assert list(colours) == ["input", "node", "output"]
        for one, two in combinations(colours.values(), 2):
            apart = np.linalg.norm(seen(one, "trichromacy") - seen(two, "trichromacy"))
            assert apart > 0.03


def test_every_operation_has_a_colour_and_a_new_one_another() -> None:
    for space in SPACES.values():
        assert {colour(name) for name in space.operations} <= set(COLOURS.values())
    assert colour("new") == OTHER_COLOUR
    assert OTHER_COLOUR not in COLOURS.values()


def test_a_mixture_is_between_its_colours() -> None:
    assert mix("#FF0080", "#000000", 1) == "#FF0080"
    assert mix("#FF0080", "#102030", 0) == "#102030"
    assert mix("#FF0080", "#010203", 0.5) == "#800142"


def test_another_theme_is_an_error_that_names_the_themes() -> None:
    with pytest.raises(ConfigError) as error:
        Style(theme="blue")
    assert str(error.value) == "found theme 'blue', expected one of light, dark"


def test_a_style_is_light_with_a_title_and_without_a_legend() -> None:
    assert Style() == Style(theme="light", title=True, legend=False)
    assert Style().colours is THEMES["light"]
