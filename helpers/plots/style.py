"""One look for the whole series: role colours (Okabe-Ito, colour-blind safe), sizes, and small shared pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

#: Okabe & Ito's colour-blind safe palette.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#999999"

ACTIVE, CONTROL = VERMILION, BLUE

ROLE_COLOURS = {
    "Name Mover": VERMILION,
    "Backup Name Mover": ORANGE,
    "Negative Name Mover": PURPLE,
    "S-Inhibition": GREEN,
    "Induction": SKY,
    "Duplicate Token": BLUE,
    "Previous Token": BLACK,
    "acts at END": VERMILION,
    "acts at S2": BLUE,
    "acts in between": GREEN,
}


def role_colour(role: str) -> str:
    """The colour of a role; grey for heads outside the circuit."""
    return ROLE_COLOURS.get(role, GREY)


#: rcParams of every figure: readable when a page is 800 px wide.
RC: dict[str, Any] = {
    "figure.figsize": (7.0, 4.2),
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "helpers",
}

KL_LABEL = r"KL selectivity $\mathrm{KL}(\pi\|u)\,/\,\log n$"
CHI_LABEL = r"susceptibility $\chi\,/\,(\log n)^2$"


def use_style() -> None:
    """Apply `RC` to matplotlib, for a notebook or a script that asks for it."""
    import matplotlib as mpl

    mpl.rcParams.update(RC)  # type: ignore[arg-type]


def head_name(layer: int, head: int) -> str:
    """A head as the papers write it: ``9.6``."""
    return f"{layer}.{head}"


def name_points(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    *,
    near: tuple[float, float],
) -> None:
    """Write names beside points; points nearer to each other than ``near`` (in data units) share one text."""
    groups: list[list[int]] = []
    for i, (x, y) in enumerate(points):
        for group in groups:
            if abs(points[group[0]][0] - x) < near[0] and abs(points[group[0]][1] - y) < near[1]:
                group.append(i)
                break
        else:
            groups.append([i])
    for group in groups:
        shades = {colours[i] for i in group}
        right = points[group[0]][0] > ax.get_xlim()[0] + 0.8 * np.ptp(ax.get_xlim())
        ax.annotate(
            " ".join(names[i] for i in group), points[group[0]], (-4 if right else 4, 4), textcoords="offset points",
            fontsize=8, color=shades.pop() if len(shades) == 1 else BLACK, ha="right" if right else "left",
        )  # fmt: skip
