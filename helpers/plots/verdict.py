"""The turn of the story in three pictures: what each step adds, what a screen costs, and whether coupled heads are wired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION, label_points, role_colour
from helpers.reference.circuits import Circuit

#: Colours of SmolLM2's three tasks; the demo models are grey, GPT-2 small is black.
TASK_COLOURS = {"ioi": VERMILION, "repeated": BLUE, "agreement": GREEN}
TASK_NAMES = {"ioi": "IOI", "repeated": "repeated lists", "agreement": "agreement", "ownership": "ownership"}


def plot_steps(
    ax: Axes,
    steps: pd.DataFrame,
    column: str,
    *,
    real: str = "smollm2",
    quoted: Mapping[str, tuple[float, str]] | None = None,
) -> Axes:
    """A number step by step: a coloured line a task of the real model, grey lines for the demo models, black for their median.

    Args:
        steps: columns model, task, step and the one named, e.g. ``"auroc"``.
        quoted: published values by step, each with a text that is written beside it.
    """
    order = list(dict.fromkeys(steps.step))
    ax.axhline(0.5, color=GREY, lw=1, ls=":")
    wide = steps.pivot_table(index=["model", "task"], columns="step", values=column)[order]
    demos = wide[wide.index.get_level_values("model") != real]
    places = np.arange(len(order))
    ax.plot(places, demos.T, color=GREY, lw=0.9, alpha=0.6)
    ax.plot(places, demos.median(), color=BLACK, lw=1.6, ls="--")
    for (_, task), line in wide[wide.index.get_level_values("model") == real].iterrows():
        ax.plot(places, line, "o-", color=TASK_COLOURS.get(task, ORANGE), lw=2.2, ms=5)
    for step, (value, text) in (quoted or {}).items():
        ax.plot(order.index(step), value, "*", color=BLACK, ms=11, mfc="white", zorder=4)
        ax.annotate(text, (order.index(step), value), (7, -9), textcoords="offset points", fontsize=8)
    ax.set_xticks(places, [fill(step, 14) for step in order], fontsize=9)
    ax.set(ylim=(-0.03, 1.05), xlim=(-0.25, len(order) - 0.5))
    return ax


def steps_figure(
    steps: pd.DataFrame, quoted: Mapping[str, Mapping[str, tuple[float, str]]] | None = None, *, real: str = "smollm2"
) -> Figure:
    """AUROC and within-layer AUROC, step by step, over all models and tasks (`plot_steps`).

    Args:
        quoted: published values for each of the columns auroc and within.
    """
    fig = Figure(figsize=(8, 7.2), layout="constrained")
    names = {"auroc": "AUROC", "within": "AUROC within layers"}
    for ax, (column, name) in zip(fig.subplots(2, 1, sharex=True), names.items(), strict=True):
        plot_steps(ax, steps, column, real=real, quoted=(quoted or {}).get(column))
        ax.set(ylabel=name)
    tasks = steps[steps.model == real].task.unique()
    handles = [
        Line2D([], [], color=TASK_COLOURS.get(t, ORANGE), marker="o", lw=2.2, label=f"SmolLM2, {TASK_NAMES.get(t, t)}")
        for t in tasks
    ]
    handles += [Line2D([], [], color=GREY, label="demo models, each seed and task")]
    handles += [Line2D([], [], color=BLACK, ls="--", label="their median"), Line2D([], [], color=GREY, ls=":", label="chance")]  # fmt: skip
    handles += [Line2D([], [], color=BLACK, marker="*", ms=10, mfc="white", lw=0, label="GPT-2 small, published")] if quoted else []  # fmt: skip
    fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    return fig


def plot_bill(ax: Axes, bill: pd.DataFrame, *, baselines: Sequence[str] = ()) -> Axes:
    """What each screen costs: a dot at 75 % of the causal heads, a bar's end at all of them, as shares of patching every head.

    Args:
        bill: columns ``"75 %"`` and ``"100 %"`` in passes, one row a screen; ``attrs["all"]`` is the price of every head.
        baselines: screens that need no model, drawn in grey; the first of them also as a line at its 75 %.
    """
    share = bill / bill.attrs["all"]
    for place, (name, row) in enumerate(share[::-1].iterrows()):
        colour = GREY if name in baselines else BLUE
        ax.plot([row["75 %"], row["100 %"]], [place, place], color=colour, lw=2, solid_capstyle="butt")
        ax.plot(row["75 %"], place, "o", color=colour, ms=6)
        ax.plot(row["100 %"], place, "|", color=colour, ms=11, mew=2)
    if baselines:
        ax.axvline(share["75 %"][baselines[0]], color=GREY, lw=1, ls="--")
    ax.set_yticks(range(len(bill)), bill.index[::-1], fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(0, 1.03), xlabel="passes, share of patching all")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    return ax


def bills_figure(bills: Mapping[str, pd.DataFrame], *, baselines: Sequence[str] = ()) -> Figure:
    """`plot_bill`, a panel each, three in a row, with a legend."""
    n_rows = -(-len(bills) // 3)
    rows = len(next(iter(bills.values())))
    fig = Figure(figsize=(9, n_rows * (1.1 + 0.27 * rows) + 0.4), layout="constrained")
    axes = fig.subplots(n_rows, 3, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, (name, bill) in zip(axes, bills.items(), strict=False):
        plot_bill(ax, bill, baselines=baselines).set_title(name, fontsize=10.5)
        ax.label_outer()
    for ax in axes[len(bills) :]:
        ax.set_axis_off()
    handles = [
        Line2D([], [], color=BLUE, marker="o", lw=0, label="75 % of the causal heads found"),
        Line2D([], [], color=BLUE, marker="|", ms=11, mew=2, lw=2, label="all of them"),
        Line2D([], [], color=GREY, marker="o", lw=2, label="order that needs no model"),
    ]
    if baselines:
        handles += [Line2D([], [], color=GREY, ls="--", label=f"{baselines[0]}, 75 %")]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return fig


def plot_edge_precision(ax: Axes, ranked: pd.DataFrame) -> Axes:
    """Average precision of ways to find causal edges, with intervals, as a multiple of the base rate (1: chance).

    Args:
        ranked: what `helpers.statistics.rank_edges` returns.
    """
    for place, (_, row) in enumerate(ranked[::-1].iterrows()):
        low, value, high = (row[c] / row["base rate"] for c in ("low", "average precision", "high"))
        above = low > 1
        ax.plot([low, high], [place, place], color=VERMILION if above else GREY, lw=2, solid_capstyle="butt")
        ax.plot(value, place, "o", color=VERMILION if above else GREY, ms=6)
        ax.annotate(f"{row['average precision']:.2f}", (high, place), (5, 0), textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    ax.axvline(1, color=BLACK, lw=1, ls="--")
    ax.set_yticks(range(len(ranked)), ranked.index[::-1], fontsize=9)
    ax.set(xscale="log", xlabel="average precision / base rate")
    ax.set_xticks([0.3, 1, 3, 10, 30], ["0.3", "1", "3", "10", "30"])
    ax.minorticks_off()
    return ax


def plot_two_orders(
    ax: Axes, heads: pd.DataFrame, circuit: Circuit, *, names: tuple[str, str], labels: tuple[str, str]
) -> Axes:
    """Where two scores put every head, as the share of heads that score lower; the circuit's heads in their role's colour, and named.

    Args:
        heads: columns layer, head and the two named.
    """
    table = heads.set_index(["layer", "head"])[list(names)].rank(pct=True)
    ax.scatter(table[names[0]], table[names[1]], s=10, color=GREY, alpha=0.5, lw=0)
    inside = table.loc[list(circuit.heads)]
    points = [(float(x), float(y)) for x, y in inside.to_numpy()]
    colours = [role_colour(circuit.role(*head)) for head in circuit.heads]
    ax.scatter(inside[names[0]], inside[names[1]], s=42, c=colours, edgecolor=BLACK, lw=0.8, zorder=3)
    ax.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.02, 1.06), ylim=(-0.02, 1.06))
    inks = [BLACK if colour == GREY else colour for colour in colours]
    return label_points(ax, points, [str(head) for head in circuit.heads], inks, near=(0, 0))


def plot_heads_by_position(
    ax: Axes, shifts: Float[np.ndarray, "layer head position"], tokens: Sequence[str], circuit: Circuit
) -> Axes:
    """Mean shifts of the circuit's heads at every query position, a row a head in the order of the circuit's roles.

    Args:
        shifts: mean difference active - control of one diagnostic, of all heads (NaN where it is not defined: grey).
        tokens: a label for each position. A colour bar is of ``ax.images[0]``.
    """
    heads = list(circuit.heads)
    rows = np.stack([shifts[head] for head in heads])
    limit = float(np.nanmax(np.abs(rows)))
    ax.set_facecolor("#dddddd")
    ax.imshow(rows, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(tokens)), tokens, rotation=50, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set_yticks(range(len(heads)), [str(head) for head in heads], fontsize=9)
    for label, head in zip(ax.get_yticklabels(), heads, strict=True):
        colour = role_colour(circuit.role(*head))
        label.set_color(BLACK if colour == GREY else colour)
    ax.tick_params(length=0)
    ax.set(xlabel="query position")
    return ax


def plot_both_models(ax: Axes, table: pd.DataFrame, *, named: Sequence[str] = ()) -> Axes:
    """A dot a score, how well it does on the demo models (x) and on the real one (y), coloured by what it reads; some are named.

    Args:
        table: from `helpers.measured.within_on_both`.
    """
    colours = dict(zip(dict.fromkeys(table.kind), (BLUE, GREEN, VERMILION, BLACK), strict=False))
    ax.axline((0.5, 0.5), slope=1, color=GREY, lw=0.8)
    for kind, some in table.groupby("kind", sort=False):
        ax.plot(some.demos, some.SmolLM2, "o", color=colours[kind], ms=6.5, label=kind)
    chosen = table.loc[list(named)]
    points = [(float(x), float(y)) for x, y in zip(chosen.demos, chosen.SmolLM2, strict=True)]
    everything = [(float(x), float(y)) for x, y in zip(table.demos, table.SmolLM2, strict=True)]
    label_points(ax, points, list(named), [colours[kind] for kind in chosen.kind], near=(0, 0), avoid=everything)
    ax.set(xlabel="demo models: AUROC within layers", ylabel="SmolLM2: AUROC within layers")
    ax.legend(loc="lower right", fontsize=9, title="what it reads")
    return ax
