"""GPT-2 small's circuit as published, in the plane: its heads as arrows, its roles as a diagram, its strongest pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from helpers.heads import head_names, pairs_of
from helpers.plots.plane import label_plane, plot_attainable, plot_shift_arrows
from helpers.plots.style import BLUE, GREY, VERMILION, label_points, role_colour


def plot_named_arrows(
    ax: Axes,
    table: pd.DataFrame,
    *,
    n: int | None = None,
    ranges: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> Axes:
    """Heads as arrows from control to active mean, each named at its tip in its role's colour; none share a name.

    Args:
        table: layer, head, role, kl_active, kl_control, chi_active, chi_control.
        n: visible keys, for the attainable region.
        ranges: of KL and of chi; default: the whole plane.
    """
    plot_shift_arrows(ax, table, n=n, label_heads=False)
    if ranges:
        ax.set(xlim=ranges[0], ylim=ranges[1])
    tips = list(zip(table.kl_active, table.chi_active, strict=True))
    middles = list(
        zip((table.kl_active + table.kl_control) / 2, (table.chi_active + table.chi_control) / 2, strict=True)
    )
    names = head_names(table)
    label_points(ax, tips, names, [role_colour(role) for role in table.role], near=(0, 0), avoid=middles)
    return ax


def plot_flow(ax: Axes, table: pd.DataFrame, flow: Sequence[tuple[str, str]], *, n: int | None = None) -> Axes:
    """A circuit as a diagram in the plane: a disc a role at the mean (KL, chi) of its heads, arrows for who informs whom.

    Args:
        table: layer, head, role, kl_active, chi_active; a disc's area grows with the role's number of heads.
        flow: pairs of roles (from, to); pairs with a role that the table lacks are left out.
        n: visible keys, for the attainable region.
    """
    if n:
        plot_attainable(ax, n, label=False)
    means = table.groupby("role", sort=False)[["kl_active", "chi_active"]].mean()
    counts = table.role.value_counts()
    for one, other in flow:
        if one in means.index and other in means.index:
            ax.annotate(
                "", xy=means.loc[other].tolist(), xytext=means.loc[one].tolist(), zorder=2,
                arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1.4, "shrinkA": 9, "shrinkB": 9,
                            "connectionstyle": "arc3,rad=0.12"},
            )  # fmt: skip
    points = [(float(x), float(y)) for x, y in means.to_numpy()]
    colours = [role_colour(role) for role in means.index]
    sizes = [60 + 25 * counts[role] for role in means.index]
    ax.scatter(means.kl_active, means.chi_active, s=sizes, c=colours, lw=0, zorder=3)
    label_plane(ax, n).set(xlim=(0.3, 1.02), ylim=(0, 0.3))
    ends = [
        (means.loc[one].to_numpy(), means.loc[other].to_numpy())
        for one, other in flow
        if {one, other} <= {*means.index}
    ]
    along = [tuple((1 - t) * a + t * b) for a, b in ends for t in np.linspace(0.1, 0.9, 25)]
    names = [f" {role} ({counts[role]}) " for role in means.index]
    label_points(ax, points, names, colours, near=(0, 0), avoid=along)
    return ax


def plot_pair_changes(ax: Axes, pairs: pd.DataFrame) -> Axes:
    """Correlations of pairs of heads on control prompts and on active prompts, a line a pair, named at the right.

    Args:
        pairs: name, c_control and c_active.
    """
    ends = pairs.sort_values("c_active")
    for row, place in zip(ends.itertuples(), spread(ends.c_active, 0.085), strict=True):
        colour = VERMILION if row.c_active > row.c_control else BLUE
        ax.plot([0, 1], [row.c_control, row.c_active], "o-", color=colour, lw=1.4, ms=4, alpha=0.8)
        ax.annotate(row.name, (1, row.c_active), (1.12, place), fontsize=8.5, va="center", color=colour,
                    arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.5})  # fmt: skip
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xticks([0, 1], ["ABC prompts", "IOI prompts"])
    ax.set(xlim=(-0.15, 1.6), ylim=(-1.08, 1), ylabel="correlation of KL over prompts")
    return ax


def spread(values: ArrayLike, gap: float) -> NDArray[np.float64]:
    """Ascending places at least ``gap`` apart, around ascending values: the mean of pushing up and of pushing down.

    >>> spread([0.0, 0.0, 5.0], 1.0).tolist()
    [-0.5, 0.5, 5.0]
    """
    steps = gap * np.arange(len(ordered := np.asarray(values, dtype=float)))
    up = np.maximum.accumulate(ordered - steps) + steps
    down = np.minimum.accumulate((ordered - steps)[::-1])[::-1] + steps
    return np.asarray((up + down) / 2)


def published_arrows_figure(at_end: pd.DataFrame, earlier: pd.DataFrame, *, n: int = 15) -> Figure:
    """Two panels of `plot_named_arrows`: heads that work at END, and heads that work at earlier positions."""
    fig = Figure(figsize=(9, 4.8), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(1.35, 1))
    panels = ((left, at_end, (0.2, 0.8), (0.06, 0.31)), (right, earlier, (0.45, 1.02), (-0.01, 0.31)))
    for ax, table, xlim, ylim in panels:
        plot_named_arrows(ax, table, n=n, ranges=(xlim, ylim))
        ax.get_legend().set_loc("upper left")
    both = int(((at_end.d_kl > 0) & (at_end.d_chi > 0)).sum())
    left.set_title(f"{len(at_end)} heads that work at END: {both} rise in both", fontsize=10.5, loc="left")
    right.set_title(
        f"{len(earlier)} that work earlier: |ΔKL| at most {earlier.d_kl.abs().max():.2g}", fontsize=10.5, loc="left"
    )
    right.set_ylabel("")
    return fig


def pair_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """The published pairs of one head outside and one inside the circuit, as `plot_pair_changes` takes them."""
    names = [f"{outside} – {inside}" for outside, inside in pairs_of(pairs)]
    return pd.DataFrame({"name": names, "c_control": pairs.c_non_ioi, "c_active": pairs.c_ioi})
