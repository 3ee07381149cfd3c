"""The pictures of notebook 03's own experiment: twin rows over their tokens, who shifts, and what shifts are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.experiment import Experiment
from helpers.heads import Head, HeadLike, head_names, heads_of
from helpers.plots.plane import common_n, label_plane, plot_attainable, plot_head, plot_shift_arrows
from helpers.plots.rows import plot_token_strips
from helpers.plots.scores import plot_scores, score_legend
from helpers.plots.style import BLACK, GREY, NO_ROLES, VERMILION, label_points, role_colour, role_ink, role_legend
from helpers.prompts.tokens import TokenizedPrompt


def words(prompt: TokenizedPrompt) -> list[str]:
    """The tokens of a prompt as a strip shows them: BOS by that name, whatever the tokenizer calls it."""
    first = prompt.positions.get("BOS")
    return ["BOS" if i == first else token for i, token in enumerate(prompt.tokens)]


def plot_twin_rows(
    ax: Axes, pairs: Experiment, heads: Sequence[HeadLike], *, pair: int = 0, sides: tuple[str, str] = ("IOI", "twin")
) -> Axes:
    """Rows of some heads at END over the tokens of one prompt and of its twin, two strips a head.

    Raises:
        ValueError: if there is no such pair or head.
    """
    records = pairs.active, pairs.control
    if not 0 <= pair < min(len(record.prompts) for record in records):
        raise ValueError(f"pair: expected 0 to {len(records[0].prompts) - 1}, got {pair}")
    for head in heads:
        if not (0 <= head[0] < records[0].n_layers and 0 <= head[1] < records[0].n_heads):
            raise ValueError(f"heads: expected heads of {records[0].n_layers} x {records[0].n_heads}, got {head}")
    each = [(record, head, side) for head in heads for record, side in zip(records, sides, strict=True)]
    rows = np.stack([record.rows[pair][head].double().numpy() for record, head, _ in each])
    tokens = [words(record.prompts[pair]) for record, _, _ in each]
    kept = max(map(len, tokens))
    labels = [f"{Head(*head)}, {side}" for _, head, side in each]
    return plot_token_strips(ax, rows[:, :kept], tokens=tokens, labels=labels, size=9)


def twin_rows_figure(pairs: Experiment, heads: Sequence[HeadLike], *, pair: int = 0) -> Figure:
    """`plot_twin_rows` as a figure as wide as the sentence is long."""
    longest = max(len(record.prompts[pair]) for record in (pairs.active, pairs.control))
    fig = Figure(figsize=(1.2 + 0.62 * longest, 0.5 + 0.62 * 2 * len(heads)), layout="constrained")
    plot_twin_rows(fig.subplots(), pairs, heads, pair=pair).set_title(
        f"{pairs.active.model}: where END looks, in one prompt and in its twin", fontsize=11
    )
    return fig


def heads_in_plane_figure(experiment: Experiment, heads: Sequence[HeadLike]) -> Figure:
    """The prompts of some heads in the plane, a panel a head; titles give both shifts."""
    fig = Figure(figsize=(4.2 * len(heads), 3.7), layout="constrained")
    n, table = common_n(experiment), experiment.table.set_index(["layer", "head"])
    for ax, head in zip(fig.subplots(1, len(heads), sharey=True, squeeze=False)[0], heads, strict=True):
        if n:
            plot_attainable(ax, n)
        plot_head(ax, experiment, *head)
        label_plane(ax, n).label_outer()
        shifts = f"ΔKL {table.d_kl[head]:+.3f}, Δχ {table.d_chi[head]:+.3f}"
        ax.set_title(f"{Head(*head)}: {shifts}", fontsize=10.5, loc="left")
    ax.legend(loc="upper left", fontsize=8.5)
    return fig


def arrows_figure(experiment: Experiment, *, top: int = 6) -> Figure:
    """The plane: arrows for the circuit's heads and for the ``top`` others that shift most, all named; dots for the rest."""
    table, n = experiment.table, common_n(experiment)
    most = _most_shifted(experiment, top)
    shown = pd.concat([table[table.in_circuit], most])
    fig = Figure(figsize=(8, 5), layout="constrained")
    ax = fig.subplots()
    rest = table[~table.in_circuit].drop(index=most.index)
    ax.scatter(rest.kl_active, rest.chi_active, s=8, color=GREY, alpha=0.5, lw=0)
    plot_shift_arrows(ax, shown, n=n, label_heads=False)
    points = list(zip(shown.kl_active, shown.chi_active, strict=True))
    middles = list(
        zip((shown.kl_active + shown.kl_control) / 2, (shown.chi_active + shown.chi_control) / 2, strict=True)
    )
    inks = [role_ink(role) if inside else GREY for role, inside in zip(shown.role, shown.in_circuit, strict=True)]
    names = head_names(shown)
    label_points(ax, points, names, inks, near=(0, 0), avoid=middles)
    what = f"the circuit's {len(shown) - len(most)} heads and the" if len(shown) > len(most) else "the"
    ax.set_title(f"{experiment.active.model}: {what} {len(most)} others that shift most", fontsize=10.5, loc="left")
    return fig


def role_matrices_figure(experiment: Experiment, *, top: int = 6) -> Figure:
    """Correlations of KL between the circuit's heads by role, and the ``top`` others that shift most: both sets, and the difference."""
    table, circuit = experiment.table.set_index(["layer", "head"]), experiment.circuit
    inside = list(circuit.heads) if circuit else []
    heads = [*inside, *heads_of(_most_shifted(experiment, top))]
    at = [head[0] * experiment.active.n_heads + head[1] for head in heads]
    coupling = experiment.coupling
    fig = Figure(figsize=(9, 3.9), layout="constrained")
    axes = fig.subplots(1, 3)
    sides = {"active": coupling.active, "control": coupling.control, "active − control": coupling.difference}
    for ax, (name, matrix) in zip(axes, sides.items(), strict=True):
        image = ax.imshow(matrix[np.ix_(at, at)], cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_title(name, fontsize=10.5, loc="left")
        ax.set_xticks([])
        ax.set_yticks(range(len(heads)), map(str, heads) if ax is axes[0] else [""] * len(heads), fontsize=6.5)
        ax.tick_params(length=0)
    for label, head in zip(axes[0].get_yticklabels(), heads, strict=True):
        label.set_color(role_ink(table.role[head]) if head in inside else GREY)
    fig.colorbar(image, ax=axes, shrink=0.75, extend="both", label="correlation of KL, or difference")
    return fig


def _most_shifted(experiment: Experiment, top: int) -> pd.DataFrame:
    """The heads outside the circuit whose KL shifts most."""
    others = experiment.table[~experiment.table.in_circuit]
    return others.loc[others.d_kl.abs().nlargest(top).index]


def plot_counts(ax: Axes, counts: pd.DataFrame) -> Axes:
    """Counts of heads that shift and of those that do not, a bar a group: the share that shifts, with both counts written.

    Args:
        counts: rows ``"shift"`` and ``"do not"``, a column a group of heads.
    """
    for x, name in enumerate(counts):
        moved, stay = counts[name]
        share = moved / max(moved + stay, 1)
        ax.bar(x, share, color=VERMILION, width=0.6)
        ax.bar(x, 1 - share, bottom=share, color=GREY, alpha=0.35, width=0.6)
        ax.text(x, share / 2, f"{moved} shift" if moved else "", ha="center", va="center", fontsize=9)
        ax.text(x, (1 + share) / 2, f"{stay} do not" if moved else f"none of {stay}", ha="center", va="center", fontsize=9)  # fmt: skip
    ax.set_xticks(range(len(counts.columns)), [f"{name} ({counts[name].sum()})" for name in counts])
    ax.set(ylim=(0, 1), ylabel="share of heads")
    return ax


def counts_figure(counts: Mapping[str, pd.DataFrame]) -> Figure:
    """`plot_counts` of several models side by side."""
    fig = Figure(figsize=(3.8 * len(counts), 3.3), layout="constrained")
    fig.suptitle("Heads that shift between the two sets of prompts (q < 0.05)", fontsize=11)
    for ax, (name, table) in zip(fig.subplots(1, len(counts), sharey=True, squeeze=False)[0], counts.items(), strict=True):  # fmt: skip
        plot_counts(ax, table).set_title(name, fontsize=10.5, loc="left")
        ax.label_outer()
    return fig


def aurocs_figure(tables: Mapping[str, pd.DataFrame], *, title: str = "") -> Figure:
    """AUROCs with intervals (`plot_scores`), a panel a table, with a legend that holds what is drawn."""
    rows = sum(max(len(table), 2) for table in tables.values())
    fig = Figure(figsize=(8, 0.9 + 0.32 * rows + 0.55 * len(tables)), layout="constrained")
    axes = fig.subplots(len(tables), 1, sharex=True, squeeze=False, height_ratios=[max(len(t), 2) for t in tables.values()])  # fmt: skip
    for ax, (name, table) in zip(axes[:, 0], tables.items(), strict=True):
        plot_scores(ax, table).set_title(name, fontsize=10.5, loc="left")
        ax.set_ylim(-0.6, max(len(table), 1) - 0.4)
        ax.label_outer()
    fig.suptitle(title, fontsize=11.5)
    needs = {f"AUROC; needs {need}" for table in tables.values() for need in table.needs}
    shown = needs | {"chance"} | ({"within layers"} if any(t.within.notna().any() for t in tables.values()) else set())
    shown |= {"layer index"} if any("layer index" in table.index for table in tables.values()) else set()
    drawn = [handle for handle in score_legend() if handle.get_label() in shown]
    fig.legend(handles=drawn, loc="outside lower center", ncols=min(3, len(drawn)), fontsize=9)
    return fig


def plot_moved(ax: Axes, changes: pd.DataFrame, *, moves: float) -> Axes:
    """How far each head's row moves between twins against how far its shape shifts; circuit heads in their role's colour.

    Args:
        changes: from `helpers.twins.row_changes`.
        moves: from where on a row counts as moving, drawn as a line.
    """
    high = 1.1 * max(float(changes.d_kl.abs().max()), 0.01)
    far = 1.1 * max(float(changes.moved.max()), 1.2 * moves)
    ax.set(
        xlim=(-0.03 * far, far), ylim=(-0.03 * high, high), ylabel=r"$|\Delta\mathrm{KL}|$ between twins  (normalised)"
    )
    ax.set_xlabel("attention that moves to other tokens  (total variation)")
    ax.axvline(moves, color=GREY, lw=1, ls="--")
    _heads(ax, changes, changes.moved, changes.d_kl.abs(), named=changes.moved >= moves)
    return ax


def plot_parts(ax: Axes, changes: pd.DataFrame, *, moves: float) -> Axes:
    """The part of each head's shift of KL that is about key 0 (BOS) against the part beyond it; dashed: they cancel."""
    for line in (ax.axhline, ax.axvline):
        line(0, color=GREY, lw=0.8)
    ax.axline((0, 0), slope=-1, color=GREY, lw=0.8, ls="--")
    sink, rest = changes.d_kl_sink_part, changes.d_kl_rest_part
    ax.scatter(sink, rest, s=0)  # ranges first: names look for free places in them
    ax.set(
        xlabel=r"part of $\Delta\mathrm{KL}$ about BOS  (normalised)", ylabel=r"part of $\Delta\mathrm{KL}$ beyond BOS"
    )
    _heads(ax, changes, sink, rest, named=changes.moved >= moves)
    return ax


def _heads(ax: Axes, changes: pd.DataFrame, x: pd.Series, y: pd.Series, *, named: pd.Series) -> None:
    """A dot a head: grey outside the circuit; ringed, in its role's colour, and named if ``named``, inside."""
    inside = changes.in_circuit
    ax.scatter(x[~inside], y[~inside], s=14, color=GREY, alpha=0.6, lw=0)
    colours = [role_colour(role) for role in changes.role[inside]]
    ax.scatter(x[inside], y[inside], s=34, c=colours, edgecolors=BLACK, linewidths=0.8, zorder=3)
    some = changes[inside & named]
    points = [(float(x[i]), float(y[i])) for i in some.index]
    names = head_names(some)
    label_points(ax, points, names, [role_ink(role) for role in some.role], near=(0, 0))


def changes_figure(changes: pd.DataFrame, *, moves: float) -> Figure:
    """Left: attention that moves against |dKL|. Right: the part of dKL that is about BOS against the part beyond it."""
    fig = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = fig.subplots(1, 2)
    plot_moved(left, changes, moves=moves).set_title("A row can move and keep its shape", fontsize=10.5, loc="left")
    plot_parts(right, changes, moves=moves).set_title("What a shift is made of", fontsize=10.5, loc="left")
    roles = [role for role in changes.role[changes.in_circuit].unique() if role not in NO_ROLES]
    role_legend(fig, roles, title="ringed: circuit heads (grey inside: no role found); dots: other heads")
    return fig
