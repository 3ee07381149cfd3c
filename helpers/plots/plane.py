"""Heads in the (KL, chi) plane: one head's prompts, all heads at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from helpers.diagnostics.plane import upper_curve
from helpers.experiment import Experiment
from helpers.heads import head_names
from helpers.plots.style import (
    ACTIVE,
    CHI_LABEL,
    CONTROL,
    GREY,
    KL_LABEL,
    NO_ROLES,
    label_points,
    role_colour,
)


def plot_attainable(ax: Axes, n: int, *, label: bool = True) -> Axes:
    """Shade what a row over n keys can reach in the normalised (KL, chi) plane."""
    kl, chi = upper_curve(n)
    ax.fill_between(kl, chi, color=GREY, alpha=0.10, lw=0, zorder=0)
    ax.plot(kl, chi, color=GREY, lw=1, zorder=1, label=f"largest $\\chi$ attainable, n = {n}" if label else None)
    return ax


def label_plane(ax: Axes, n: int | None = None) -> Axes:
    """Axis labels, and ranges that hold every attainable row over n keys."""
    ax.set(xlabel=KL_LABEL, ylabel=CHI_LABEL, **plane_ranges(n))
    return ax


def plane_ranges(n: int | None = None) -> dict[str, tuple[float, float]]:
    """Ranges of the normalised plane: chi to 0.40, or higher where fewer than nine keys reach higher."""
    top = 0.40 if n is None or n < 2 else max(0.40, 1.1 * float(upper_curve(n)[1].max()))
    return {"xlim": (-0.02, 1.02), "ylim": (-0.01, top)}


def plot_head(ax: Axes, experiment: Experiment, layer: int, head: int, *, size: float = 14) -> Axes:
    """One head: a point for each prompt of either set, and an arrow from the control mean to the active mean."""
    for diagnostics, colour, name in (
        (experiment.kl_chi_control, CONTROL, "control"),
        (experiment.kl_chi_active, ACTIVE, "active"),
    ):
        ax.scatter(
            diagnostics.kl[:, layer, head], diagnostics.chi[:, layer, head], s=size, color=colour, alpha=0.45, lw=0, label=name
        )  # fmt: skip
    row = experiment.table.query("layer == @layer and head == @head").iloc[0]
    _arrow(ax, row, colour="black")
    return ax


def plot_shift_arrows(ax: Axes, table: pd.DataFrame, *, n: int | None = None, label_heads: bool = True) -> Axes:
    """Every head of a table as an arrow from its control mean to its active mean, coloured by role.

    Works for an experiment's table and for the published figures (`helpers.reference.published.circuit_heads`).
    """
    if n:
        plot_attainable(ax, n)
    for row in table.sort_values("role", key=lambda role: role != "other").itertuples():
        inside = row.role not in ("other", "unknown")
        _arrow(ax, row, colour=role_colour(row.role), alpha=0.95 if inside else 0.45, width=1.6 if inside else 0.9)
    _role_legend(ax, table.role.unique())
    label_plane(ax, n)
    known = table[~table.role.isin(["other", "unknown"])]
    if label_heads:
        points = list(zip(known.kl_active, known.chi_active, strict=True))
        names = head_names(known)
        colours = [role_colour(role) for role in known.role]
        label_points(ax, points, names, colours, near=(0.05, 0.016), avoid=_along_arrows(known))
    return ax


def _along_arrows(table: pd.DataFrame, count: int = 6) -> list[tuple[float, float]]:
    """Points on the arrows of a table's heads, tips not included."""
    t = np.linspace(0, 1, count, endpoint=False)
    x, y = (np.outer(1 - t, table[f"{n}_control"]) + np.outer(t, table[f"{n}_active"]) for n in ("kl", "chi"))
    return list(zip(x.ravel().tolist(), y.ravel().tolist(), strict=True))


def _arrow(ax: Axes, row: Any, *, colour: str, alpha: float = 1.0, width: float = 1.4) -> None:
    ax.annotate(
        "", xy=(row.kl_active, row.chi_active), xytext=(row.kl_control, row.chi_control), zorder=4,
        arrowprops={"arrowstyle": "-|>,head_width=0.22,head_length=0.4", "color": colour, "alpha": alpha, "lw": width,
                    "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip


def _role_legend(ax: Axes, roles: Iterable[str]) -> None:
    in_order = sorted(roles, key=lambda role: role in NO_ROLES)
    handles = [Line2D([], [], color=role_colour(role), lw=2, label=role) for role in in_order]
    ax.legend(handles=handles, fontsize=8.5, loc="upper left")


def common_n(experiment: Experiment) -> int | None:
    """The number of visible keys, where all prompts share one."""
    counts = {int(n) for side in (experiment.active, experiment.control) for n in side.visible().sum(-1).unique()}
    return counts.pop() if len(counts) == 1 else None
