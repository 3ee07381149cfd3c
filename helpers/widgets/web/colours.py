"""The colours of the components, from the maps and the palette of the figures: one source for pictures and browser."""

from __future__ import annotations

from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

from helpers.plots.style import ACTIVE, CONTROL

#: Colours of a map, from its lowest value to its highest.
STEPS = 65
#: What a dark theme has where the maps of the figures have white.
DARK = "#262626"


def ramp(name: str) -> list[str]:
    """A map of matplotlib in `STEPS` colours."""
    return [to_hex(colormaps[name](i / (STEPS - 1))) for i in range(STEPS)]


def dark_ramp(low: str, high: str) -> list[str]:
    """From a colour through the dark of the page to another; with the dark itself as ``low``, from the dark to a colour."""
    if low == DARK:
        return [mixed(DARK, high, i / (STEPS - 1)) for i in range(STEPS)]
    half = STEPS // 2
    return [mixed(DARK, low, 1 - i / half) for i in range(half)] + [
        mixed(DARK, high, i / half) for i in range(half + 1)
    ]


def mixed(first: str, second: str, share: float) -> str:
    """A colour between two, ``share`` of the way to the second."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(to_rgb(first), to_rgb(second), strict=True))
    return to_hex((red, green, blue))


#: Shifts in orange (more on active prompts) and purple (less), sizes and attention weights in orange, as in the figures.
COLOURS = {
    "light": {"shift": ramp("PuOr_r"), "size": ramp("Oranges")},
    "dark": {"shift": dark_ramp("#b9aee6", "#fdae61"), "size": dark_ramp(DARK, "#fdae61")},
    "active": ACTIVE,
    "control": CONTROL,
}
