"""The figures of the experiment, composed from the thin plot functions; every title is computed from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from helpers.experiment import RANKED_SHIFTS, Experiment
from helpers.heads import Head, HeadLike, heads_of
from helpers.plots.coupling import LARGE, plot_correlation_matrix, plot_coupling_scatter
from helpers.plots.plane import (
    common_n,
    label_plane,
    plane_ranges,
    plot_attainable,
    plot_head,
    plot_shift_arrows,
)
from helpers.plots.shifts import plot_shift_by_layer, plot_shift_distribution
from helpers.plots.style import (
    ACTIVE,
    CHI_LABEL,
    CONTROL,
    KL_LABEL,
    RC,
    role_colour,
    role_legend,
)
from helpers.reference import published
from helpers.statistics.coupling import upper_triangle


def head_figure(experiment: Experiment, head: HeadLike | None = None) -> Figure:
    """The prompts of one head in the plane; default: the head whose KL shifts most (of the circuit, if there is one)."""
    layer, number = head or most_shifted(experiment, 1, inside=experiment.circuit is not None)[0]
    row = experiment.table.query("layer == @layer and head == @number").iloc[0]
    fig = Figure(figsize=(6.4, 4.2))
    ax = fig.subplots()
    if n := common_n(experiment):
        plot_attainable(ax, n)
    plot_head(ax, experiment, layer, number)
    label_plane(ax, common_n(experiment)).legend(loc="upper left", fontsize=9)
    ax.set_title(f"Head {Head(layer, number)} of {experiment.active.model}: "
                 f"ΔKL = {row.d_kl:+.3f}, Δχ = {row.d_chi:+.3f}")  # fmt: skip
    return fig


def heads_figure(experiment: Experiment, heads: Sequence[HeadLike], *, columns: int = 4) -> Figure:
    """Small multiples of `plot_head` with shared ranges, titled in the role's colour; below them what the points' colours are."""
    height, legend = 0.7 + 1.8 * -(-len(heads) // columns), 0.3
    fig = Figure(figsize=(8, height))
    above, below = fig.subfigures(2, 1, height_ratios=(height - legend, legend))  # type: ignore[misc]
    _fill_grid(above, experiment, heads, columns)
    sides = (("control prompts", CONTROL), ("active prompts", ACTIVE))
    handles = [Line2D([], [], marker="o", lw=0, ms=4, color=colour, label=name) for name, colour in sides]
    handles.append(Line2D([], [], color="black", lw=1.4, label="arrow: from mean to mean"))
    below.legend(handles=handles, loc="center", ncols=len(handles), fontsize=9)
    return fig


def circuit_heads_figure(experiment: Experiment) -> Figure | None:
    """Every circuit head, by role."""
    if experiment.circuit is None:
        return None
    heads = experiment.circuit.heads
    up = int((experiment.table[experiment.table.in_circuit].d_kl > 0).sum())
    fig = heads_figure(experiment, heads)
    fig.suptitle(f"{experiment.circuit.name}: KL is higher on active prompts in {up} of {len(heads)}", fontsize=11.5)
    return fig


def other_heads_figure(experiment: Experiment, count: int = 12) -> Figure:
    """The heads outside the circuit that shift most."""
    heads = most_shifted(experiment, count, inside=False)
    fig = heads_figure(experiment, heads)
    where = "outside the circuit" if experiment.circuit else "of all"
    fig.suptitle(f"The {len(heads)} heads {where} whose KL shifts most", fontsize=11.5)
    return fig


def all_heads_figure(experiment: Experiment) -> Figure:
    """Every head as an arrow from control to active."""
    fig = Figure(figsize=(7.4, 5.0))
    ax = fig.subplots()
    plot_shift_arrows(ax, experiment.table, n=common_n(experiment))
    ax.set_title(f"{experiment.active.model}: each arrow is a head, from control prompts to active prompts")
    return fig


def published_heads_figure(experiment: Experiment) -> Figure:
    """The same picture of GPT-2 small's 23 circuit heads, from the published means."""
    fig = Figure(figsize=(7.4, 5.0))
    ax = fig.subplots()
    plot_shift_arrows(ax, published.circuit_heads(), n=15)
    ax.set_title("GPT-2 small, the 23 circuit heads (published: Fields 2026), control to active")
    return fig


def shift_distributions_figure(experiment: Experiment) -> Figure | None:
    """|dKL| and |dchi|, circuit against others."""
    return _two_scores(experiment, plot_shift_distribution, "AUROC {r.auroc:.2f} ({r.low:.2f} to {r.high:.2f})")


def shifts_by_layer_figure(experiment: Experiment) -> Figure | None:
    """|dKL| and |dchi| against the layer, the baseline that costs nothing."""
    return _two_scores(
        experiment,
        plot_shift_by_layer,
        "layer alone {r.layer_auroc:.2f}, within layers {r.within_auroc:.2f}",
        legend_title="ringed: circuit heads",
    )


def correlation_matrices_figure(experiment: Experiment) -> Figure:
    """C_active, C_control and C_diff in one colour range, in which differences beyond 1 look like 1."""
    coupling, n_heads = experiment.coupling, experiment.active.n_heads
    is_large = len(coupling.active) > LARGE
    fig = Figure(figsize=(9, 8.4) if is_large else (9, 3.4))
    axes = list(fig.subplots(2, 2).ravel() if is_large else fig.subplots(1, 3))
    named = {"active": coupling.active, "control": coupling.control, "difference": coupling.difference}
    for ax, (name, matrix) in zip(axes, named.items(), strict=False):
        plot_correlation_matrix(ax, matrix, n_heads)
        values = upper_triangle(matrix)
        ax.set_title(f"{name}: sd {values.std():.2f}" if len(values) else f"{name}: none (no two heads vary)")
    for ax in axes[len(named) :]:
        ax.set_axis_off()
    label = "correlation, or difference"
    where = {"cax": axes[-1].inset_axes((0.05, 0.1, 0.06, 0.8))} if is_large else {"ax": axes, "shrink": 0.8}
    fig.colorbar(axes[len(named) - 1].images[0], label=label, extend="both", **where)
    return fig


def coupling_scatter_figure(experiment: Experiment) -> Figure:
    """C_active against C_control, pair by pair."""
    fig = Figure(figsize=(5.6, 5.4))
    ax = fig.subplots()
    plot_coupling_scatter(ax, experiment.coupling, experiment.active.n_heads)
    changes = abs(upper_triangle(experiment.coupling.difference))
    found = f"the largest change is {changes.max():.2f}" if len(changes) else "none, as no two vary on both sides"
    ax.set_title(f"Correlations between heads: {found}")
    return fig


FIGURES: dict[str, Callable[[Experiment], Figure | None]] = {
    "1_one_head": head_figure,
    "2_circuit_heads": circuit_heads_figure,
    "3_other_heads": other_heads_figure,
    "4_all_heads": all_heads_figure,
    "5_shift_distributions": shift_distributions_figure,
    "6_shifts_by_layer": shifts_by_layer_figure,
    "7_correlation_matrices": correlation_matrices_figure,
    "8_coupling_scatter": coupling_scatter_figure,
    "9_gpt2_small_published": published_heads_figure,
}


def all_figures(experiment: Experiment) -> dict[str, Figure]:
    """Every figure that this experiment has, by name (those about a circuit need one)."""
    with rc_context(RC):  # type: ignore[arg-type]
        drawn = {name: draw(experiment) for name, draw in FIGURES.items()}
    return {name: fig for name, fig in drawn.items() if fig is not None}


def most_shifted(experiment: Experiment, count: int, *, inside: bool) -> list[Head]:
    """The heads with the largest |dKL|, inside the circuit or outside."""
    group = experiment.table[experiment.table.in_circuit == inside]
    chosen = group.loc[group.d_kl.abs().nlargest(count).index]
    return heads_of(chosen)


def _fill_grid(fig: SubFigure, experiment: Experiment, heads: Sequence[HeadLike], columns: int) -> None:
    grid = fig.subplots(-(-len(heads) // columns), columns, sharex=True, sharey=True, squeeze=False).ravel()
    n = common_n(experiment)
    for ax, (layer, head) in zip(grid, heads, strict=False):
        if n:
            plot_attainable(ax, n, label=False)
        plot_head(ax, experiment, layer, head, size=6)
        role = experiment.circuit.role(layer, head) if experiment.circuit else "other"
        title = f"{Head(layer, head)} {role if role != 'other' else ''}"
        ax.set_title(title, fontsize=8.5, color=role_colour(role))
        ax.set(**plane_ranges(n))
        ax.tick_params(labelsize=8)
    for ax in grid[len(heads) :]:
        ax.set_axis_off()
    for ax in grid[max(0, len(heads) - columns) : len(heads)]:  # the lowest of each column, also above an empty place
        ax.tick_params(labelbottom=True)
    fig.supxlabel(KL_LABEL, fontsize=10)
    fig.supylabel(CHI_LABEL, fontsize=10)


def _two_scores(experiment: Experiment, plot: Callable, title: str, legend_title: str | None = None) -> Figure | None:
    if not experiment.rankings:
        return None
    fig = Figure(figsize=(8.4, 3.9))
    for ax, (score, column) in zip(fig.subplots(1, 2), RANKED_SHIFTS.items(), strict=True):
        plot(ax, experiment.table, column)
        ax.set_title(f"{score}: " + title.format(r=experiment.rankings[score]))
    role_legend(fig, [*experiment.circuit.roles, "other"] if experiment.circuit else [], title=legend_title)
    return fig
