"""One look for the whole series: role colours (Okabe-Ito, colour-blind safe), sizes, and small shared pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from helpers.plots.placing import SIZE, Box, free_place

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
    "acts at B": SKY,
    "acts at A1": ORANGE,
    "acts at A2": VERMILION,
    "acts at NOUN": BLUE,
    "acts at ATTRACTOR": ORANGE,
}

#: What heads are called that no circuit has, or whose role nobody knows.
NO_ROLES = ("other", "unknown", "no role found", "acts somewhere")


def role_colour(role: str) -> str:
    """The colour of a role, the same in every figure; grey for heads outside the circuit."""
    if role in NO_ROLES:
        return GREY
    others = ORANGE, SKY, GREEN, PURPLE, BLACK
    return ROLE_COLOURS.get(role, others[crc32(role.encode()) % len(others)])


def role_ink(role: str) -> str:
    """The colour of a circuit head's name: its role's, black where it has none."""
    return BLACK if role in NO_ROLES else role_colour(role)


def role_legend(fig: Figure, roles: Iterable[str], **options: Any) -> None:
    """A legend of the roles' colours below all panels of a figure, those outside the circuit last."""
    in_order = sorted(dict.fromkeys(roles), key=lambda role: role in NO_ROLES)
    handles = [Line2D([], [], color=role_colour(r), marker="o", lw=0, label=r) for r in in_order]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), fontsize=9, **options)


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


def label_points(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    *,
    near: tuple[float, float],
    avoid: Sequence[tuple[float, float]] = (),
) -> Axes:
    """Write names beside points; points nearer to each other than ``near`` (in data units) share one text.

    Names cover each other, the points and those to ``avoid`` as little as can be.
    """
    groups: list[list[int]] = []
    for i, (x, y) in enumerate(points):
        for group in groups:
            if abs(points[group[0]][0] - x) < near[0] and abs(points[group[0]][1] - y) < near[1]:
                group.append(i)
                break
        else:
            groups.append([i])
    placed: list[Box] = []
    for group in groups:
        shades = {colours[i] for i in group}
        text = " ".join(names[i] for i in group)
        x, y, ha, va = free_place(ax, points[group[0]], text, [*points, *avoid], placed)
        ax.annotate(
            text, points[group[0]], (x, y), textcoords="offset points", fontsize=SIZE, ha=ha, va=va,
            color=shades.pop() if len(shades) == 1 else BLACK,
            path_effects=[withStroke(linewidth=1.5, foreground="white", alpha=0.8)],
        )  # fmt: skip
    return ax
