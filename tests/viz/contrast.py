"""The contrast of a text to its background, by the guidelines for web content (WCAG 2)."""


def luminance(rgb: tuple[int, ...]) -> float:
    """Compute the luminance, from 0, black, to 1, white, of channels from 0 to 255."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in rgb)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Compute the contrast, from 1, none, to 21; text needs 4.5."""
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)
