"""All heads of a circuit by role: how far KL and chi of each move, in one picture."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.heads import HeadLike
from helpers.plots.style import BLACK, GREY, role_colour
from helpers.reference.circuits import Circuit

SHIFTS = {"d_kl": r"$\Delta\mathrm{KL}$", "d_chi": r"$\Delta\chi$"}

#: Height of a head's line and of all else in a figure, in inches; empty lines between two roles.
LINE, MARGIN, GAP = 0.17, 1.2, 0.6


def plot_roles(
    ax: Axes, table: pd.DataFrame, circuit: Circuit, column: str = "d_kl", *, names: bool = True, roles: bool = True
) -> Axes:
    """Shift of every head of a circuit, a line a head, grouped by role and in the role's colour.

    Args:
        table: one row a head: layer, head and ``column``, and its interval (``_low``, ``_high``) if there is one, drawn
            in black; e.g. an experiment's table.
        circuit: heads by role, e.g. by those of `helpers.contents.roles.circuit_roles`.
        column: ``"d_kl"`` or ``"d_chi"``, active - control, normalised.
        names: name the heads at the left.
        roles: write the roles at the right, each with its number of heads.

    Raises:
        ValueError: if the table lacks the column or a head of the circuit, or the circuit has no heads.
    """
    rows, places = _rows(table, circuit, column), head_places(circuit)
    ax.axvline(0, color=GREY, lw=1)
    for (head, place), row in zip(places.items(), rows.itertuples(), strict=True):
        colour, shift = role_colour(circuit.role(*head)), getattr(row, column)
        ax.plot([0, shift], [place, place], color=colour, lw=2.4, alpha=0.6, solid_capstyle="butt")
        if f"{column}_low" in rows:
            ends = [getattr(row, f"{column}_low"), getattr(row, f"{column}_high")]
            ax.plot(ends, [place, place], color=BLACK, lw=0.9, solid_capstyle="butt")
        ax.plot(shift, place, "o", color=colour, ms=5)
    ax.set_yticks([*places.values()], [str(head) if names else "" for head in places], fontsize=8)
    for label, head in zip(ax.get_yticklabels(), places, strict=True):
        label.set_color(role_colour(circuit.role(*head)))
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel=f"{SHIFTS[column]}, active − control  (normalised)", ylim=(max(places.values()) + 0.8, -0.8))
    ax.locator_params(axis="x", nbins=5)
    if roles:
        _name_roles(ax, circuit, places)
    return ax


def roles_figure(table: pd.DataFrame, circuit: Circuit) -> Figure:
    """`plot_roles` of KL and of chi side by side, as high as the circuit needs; titles count the heads that rise."""
    lines = max(head_places(circuit).values()) + 1
    fig = Figure(figsize=(8, MARGIN + LINE * lines), layout="constrained")
    panels = zip(fig.subplots(1, 2), SHIFTS.items(), (True, False), strict=True)
    for ax, (column, symbol), is_left in panels:
        plot_roles(ax, table, circuit, column, names=is_left, roles=not is_left)
        rises = int((_rows(table, circuit, column)[column] > 0).sum())
        ax.set_title(f"{symbol} > 0 in {rises} of {len(circuit.heads)} heads", fontsize=10.5, loc="left")
    fig.axes[0].set_ylabel("layer.head")
    fig.suptitle(circuit.name, fontsize=11.5)
    return fig


def head_places(circuit: Circuit) -> dict[HeadLike, float]:
    """The line of each head, from 0 at the top, in the order of the roles, with a gap between two roles.

    Raises:
        ValueError: if the circuit has no heads.
    """
    groups = [heads for heads in circuit.roles.values() if heads]
    if not groups:
        raise ValueError(f"circuit: expected at least one head, got none in {circuit.name!r}")
    numbered = enumerate((head, GAP * i) for i, heads in enumerate(groups) for head in heads)
    return {head: line + gaps for line, (head, gaps) in numbered}


def _rows(table: pd.DataFrame, circuit: Circuit, column: str) -> pd.DataFrame:
    """The table's rows of the circuit's heads, in the circuit's order."""
    if column not in SHIFTS or column not in table:
        raise ValueError(f"column: expected a shift that the table has, of {', '.join(SHIFTS)}, got {column!r}")
    rows = table.set_index(["layer", "head"])
    for head in circuit.heads:
        if head not in rows.index:
            raise ValueError(f"table: expected a row for every head of {circuit.name!r}, got none for {head}")
    return rows.loc[[*circuit.heads]]


def _name_roles(ax: Axes, circuit: Circuit, places: dict[HeadLike, float]) -> None:
    for role, heads in circuit.roles.items():
        if heads:
            middle = (places[heads[0]] + places[heads[-1]]) / 2
            ax.annotate(
                f"{role} ({len(heads)})", (1.02, middle), xycoords=("axes fraction", "data"), va="center", fontsize=9,
                color=role_colour(role),
            )  # fmt: skip
