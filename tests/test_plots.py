"""Figures of the experiment, read back from their artists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from models import CIRCUIT, HEADS, KEYS, LAYERS, random_rows, toy_record, toy_side

from helpers import analyse, kl_selectivity, susceptibility
from helpers.heads import pairs_of
from helpers.plots.coupling import plot_correlation_matrix, plot_coupling_scatter
from helpers.plots.figures import FIGURES, all_figures, heads_figure, most_shifted
from helpers.plots.plane import common_n, plot_attainable, plot_head, plot_shift_arrows
from helpers.plots.shifts import plot_shift_by_layer, plot_shift_distribution
from helpers.plots.style import ACTIVE, CONTROL, GREY, NO_ROLES, RC, ROLE_COLOURS, label_points, role_colour, use_style
from helpers.reference import published
from helpers.reference.circuits import IOI_POST, Circuit
from helpers.statistics.coupling import strongest_pairs, upper_triangle


@pytest.fixture
def ax() -> Iterator[Axes]:
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def arrows(ax: Axes) -> list[Any]:
    """The arrow annotations: (control place, active place)."""
    return [(text.xyann, text.xy) for text in ax.texts if text.arrow_patch is not None]


def labels(ax: Axes) -> list[str]:
    """The texts that are no arrows."""
    return [text.get_text() for text in ax.texts if text.get_text()]


# Style


def test_roles_of_the_circuits_have_colours() -> None:
    """Every role of the post's circuit has a colour of its own, no two alike; everything else is grey."""
    colours = [role_colour(role) for role in IOI_POST.roles]
    assert len(set(colours)) == len(colours)
    assert GREY not in colours
    assert role_colour("other") == role_colour("unknown") == GREY
    assert all(to_hex(colour).lower() == colour.lower() for colour in ROLE_COLOURS.values())


def test_style_is_applied_only_when_asked() -> None:
    """Drawing leaves matplotlib's settings alone; use_style applies RC."""
    with matplotlib.rc_context():
        use_style()
        assert matplotlib.rcParams["figure.figsize"] == list(RC["figure.figsize"])
        assert all(matplotlib.rcParams[key] == value for key, value in RC.items() if key != "figure.figsize")
    assert matplotlib.rcParams["svg.hashsalt"] != RC["svg.hashsalt"]


def test_neighbours_share_one_name(ax: Axes) -> None:
    """Two points closer than ``near`` get one text in black (their colours differ), a far one its own in its colour."""
    ax.set(xlim=(0, 1), ylim=(0, 1))
    points = [(0.1, 0.1), (0.11, 0.1), (0.5, 0.5)]
    label_points(ax, points, ["0.1", "0.2", "3.4"], [ACTIVE, CONTROL, GREY], near=(0.05, 0.05))
    assert [(text.get_text(), text.get_color()) for text in ax.texts] == [("0.1 0.2", "#000000"), ("3.4", GREY)]


def test_roles_without_a_colour_of_their_own() -> None:
    """A role that no list has keeps one colour that is not grey; heads outside, and those without a role, are grey."""
    assert role_colour("acts at C1") == role_colour("acts at C1") != GREY
    assert {role_colour(role) for role in NO_ROLES} == {GREY}


def boxes(fig: Figure, ax: Axes) -> list[Any]:
    """Where the texts of a panel really stand once it is drawn."""
    fig.canvas.draw()
    return [text.get_window_extent() for text in ax.texts if text.get_text()]


def test_names_of_a_crowd_do_not_cover_each_other(ax: Axes) -> None:
    """Six points in a row, two letters apart: as drawn no two names overlap, and all lie in the panel."""
    ax.set(xlim=(0, 1), ylim=(0, 1))
    points = [(0.85 + 0.03 * i, 0.5) for i in range(5)] + [(0.99, 0.99)]
    label_points(ax, points, [f"1{i}.1" for i in range(6)], [ACTIVE] * 6, near=(0, 0))
    drawn = boxes(ax.figure, ax)
    assert not [(a, b) for i, a in enumerate(drawn) for b in drawn[:i] if a.overlaps(b)]
    panel = ax.get_window_extent()
    assert all(panel.x0 <= box.x0 and box.x1 <= panel.x1 + 2 and box.y1 <= panel.y1 + 2 for box in drawn)


def test_names_keep_off_what_is_to_be_avoided(ax: Axes) -> None:
    """With something in the usual place, above at the right, the name goes elsewhere; without, it is there."""
    ax.set(xlim=(0, 1), ylim=(0, 1))
    for avoid in ([], [(0.5 + dx, 0.5 + dy) for dx in (0.02, 0.04, 0.06) for dy in (0.02, 0.04)]):
        label_points(ax, [(0.5, 0.5)], ["3.4"], [ACTIVE], near=(0, 0), avoid=avoid)
    usual, other = (text.xyann for text in ax.texts)
    assert usual == (4, 4)
    assert other != (4, 4)


# The plane


@pytest.mark.parametrize("n", [4, 15])
def test_attainable_region_holds_random_rows(n: int, ax: Axes) -> None:
    """The line ends at (0, 0) and (1, 0), and no random row lies above it."""
    assert plot_attainable(ax, n) is ax
    (line,) = ax.lines
    kl, chi = line.get_data()
    assert (kl[0], chi[0], kl[-1], chi[-1]) == pytest.approx((0, 0, 1, 0), abs=1e-12)
    rows = random_rows(300, n, spread=3)
    edge = np.interp(kl_selectivity(rows), kl, chi)
    assert (susceptibility(rows).numpy() <= edge + 2e-3).all()
    assert f"n = {n}" in line.get_label()


def test_one_head(planted: Any, ax: Axes) -> None:
    """A point for each prompt of either set in the set's colour; an arrow from the control mean to the active mean."""
    assert plot_head(ax, planted, 2, 5) is ax
    control, active = ax.collections
    for points, diagnostics, colour in (
        (control, planted.kl_chi_control, CONTROL),
        (active, planted.kl_chi_active, ACTIVE),
    ):
        expected = np.stack([diagnostics.kl[:, 2, 5], diagnostics.chi[:, 2, 5]], axis=1)
        np.testing.assert_allclose(points.get_offsets(), expected)
        assert to_rgba(points.get_facecolor()[0], 1) == to_rgba(colour)
    ((start, end),) = arrows(ax)
    assert start == pytest.approx(tuple(control.get_offsets().mean(0)))
    assert end == pytest.approx(tuple(active.get_offsets().mean(0)))


def test_grid_of_heads(planted: Any) -> None:
    """A panel a head, in order, titled by head and role in its colour, one range for all; spare panels are off."""
    fig = heads_figure(planted, [(0, 3), (1, 2), (1, 3), (2, 0)], columns=3)
    axes = fig.axes[:4]
    assert [ax.get_title().split() for ax in axes] == [
        ["0.3", "Induction"],
        ["1.2", "Name", "Mover"],
        ["1.3"],
        ["2.0", "Name", "Mover"],
    ]
    assert [to_hex(ax.title.get_color()) for ax in axes] == [
        to_hex(role_colour(role)) for role in ("Induction", "Name Mover", "other", "Name Mover")
    ]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in axes}) == 1
    assert [ax.axison for ax in fig.axes] == [True] * 4 + [False] * 2
    assert all(len(ax.lines) == 1 for ax in axes)  # the edge of what is attainable, for the common n


def test_no_edge_without_a_common_n() -> None:
    """Prompts of 15 and of 13 tokens have no common edge, so none is drawn."""
    mixed = analyse(toy_side(seed=1), toy_record(random_rows(9, LAYERS, HEADS, 13)))
    assert common_n(mixed) is None
    (ax,) = heads_figure(mixed, [(0, 0)], columns=1).axes
    assert not ax.lines


def test_common_n(planted: Any) -> None:
    """All rows of the synthetic records see 15 keys."""
    assert common_n(planted) == KEYS


def test_points_lie_inside_the_fixed_ranges(planted: Any) -> None:
    """The grid's fixed ranges hold every point of the experiment: none is silently cut off."""
    for ax in heads_figure(planted, CIRCUIT.heads).axes[: len(CIRCUIT.heads)]:
        for points in ax.collections[1:]:  # after the shading
            x, y = np.asarray(points.get_offsets()).T
            assert ax.get_xlim()[0] <= x.min() <= x.max() <= ax.get_xlim()[1]
            assert ax.get_ylim()[0] <= y.min() <= y.max() <= ax.get_ylim()[1]


@pytest.mark.parametrize("n", [6, 10, 15, 1024])
def test_ranges_hold_every_attainable_row(n: int, ax: Axes, planted: Any) -> None:
    """The plane's ranges contain the whole attainable region, for short prompts too: no head is cut off silently."""
    plot_shift_arrows(ax, planted.table, n=n)
    (line,) = ax.lines
    assert line.get_ydata().max() <= ax.get_ylim()[1]


def test_arrows_of_all_heads(planted: Any, ax: Axes) -> None:
    """24 arrows from control to active means; circuit heads are named in their colours; a legend of the roles."""
    assert plot_shift_arrows(ax, planted.table) is ax
    expected = {
        (round(r.kl_control, 9), round(r.chi_control, 9), round(r.kl_active, 9), round(r.chi_active, 9))
        for r in planted.table.itertuples()
    }
    assert {tuple(round(float(v), 9) for v in (*start, *end)) for start, end in arrows(ax)} == expected
    assert sorted(" ".join(labels(ax)).split()) == sorted(f"{layer}.{head}" for layer, head in CIRCUIT.heads)
    assert {t.get_text() for t in ax.get_legend().get_texts()} == {"Name Mover", "Induction", "other"}
    assert "log n" in ax.get_xlabel()
    assert r"\chi" in ax.get_ylabel()


def test_arrows_of_the_published_figures(ax: Axes) -> None:
    """The published table draws by the same function: 23 arrows, 23 names."""
    plot_shift_arrows(ax, published.circuit_heads(), n=15)
    assert len(arrows(ax)) == len(" ".join(labels(ax)).split()) == 23


# Shifts


@pytest.mark.parametrize("column", ["d_kl", "d_chi"])
def test_distribution_of_shifts(column: str, planted: Any, ax: Axes) -> None:
    """Heights are |shift|, circuit at 0 and others at 1, a line at each mean; ticks count the heads."""
    assert plot_shift_distribution(ax, planted.table, column) is ax
    dots, means = ax.collections[::2], ax.collections[1::2]
    for x, inside, points, mean in zip((0, 1), (True, False), dots, means, strict=True):
        size = planted.table.loc[planted.table.in_circuit == inside, column].abs()
        np.testing.assert_allclose(points.get_offsets()[:, 1], size)
        assert (np.abs(points.get_offsets()[:, 0] - x) < 0.2).all()
        assert mean.get_segments()[0][:, 1] == pytest.approx([size.mean()] * 2)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["circuit (5)", "others (19)"]
    assert ax.get_ylim()[0] == 0


def test_shifts_by_layer(planted: Any, ax: Axes) -> None:
    """(layer, |shift|) of every head; named are the circuit's heads, ringed, and the three others that shift most, in grey."""
    assert plot_shift_by_layer(ax, planted.table, "d_chi", top=3) is ax
    others, circuit = (collection.get_offsets() for collection in ax.collections)
    table = planted.table
    np.testing.assert_allclose(others, table.loc[~table.in_circuit, ["layer", "d_chi"]].abs())
    np.testing.assert_allclose(circuit, table.loc[table.in_circuit, ["layer", "d_chi"]].abs())
    first = table[~table.in_circuit].assign(size=lambda t: t.d_chi.abs()).nlargest(3, "size")
    named = [*CIRCUIT.heads, *zip(first.layer, first["head"], strict=True)]
    assert sorted(" ".join(labels(ax)).split()) == sorted(f"{layer}.{head}" for layer, head in named)
    assert [collection.get_linewidths().max() > 0 for collection in ax.collections] == [False, True]
    inks = {name: text.get_color() for text in ax.texts for name in text.get_text().split()}
    assert all((inks[f"{layer}.{head}"] == GREY) == ((layer, head) not in CIRCUIT.heads) for layer, head in named)


# Correlations


def test_correlation_matrix(planted: Any, ax: Axes) -> None:
    """The image is the matrix on -limit to limit, with a tick in the middle of each layer's block."""
    assert plot_correlation_matrix(ax, planted.coupling.difference, HEADS, limit=2.0) is ax
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), planted.coupling.difference)
    assert image.get_clim() == (-2, 2)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "2", "3"]
    np.testing.assert_allclose(ax.get_xticks(), [2.5, 8.5, 14.5, 20.5])
    np.testing.assert_allclose(ax.get_yticks(), ax.get_xticks())


def test_coupling_scatter(planted: Any, ax: Axes) -> None:
    """24 heads make 276 dots (control, active); the six pairs that change most are marked and named."""
    plot_coupling_scatter(ax, planted.coupling, HEADS)
    dots, marked = (collection.get_offsets() for collection in ax.collections)
    assert len(dots) == 276
    i, j = np.triu_indices(24, k=1)
    np.testing.assert_allclose(dots, np.stack([planted.coupling.control[i, j], planted.coupling.active[i, j]], axis=1))
    pairs = strongest_pairs(planted.coupling, HEADS, top=6)
    np.testing.assert_allclose(marked, pairs[["c_control", "c_active"]])
    assert sorted(" ".join(labels(ax)).split()) == sorted(f"{one}–{two}" for one, two in pairs_of(pairs))


# Whole figures


def test_every_figure_with_a_circuit(planted: Any) -> None:
    """All nine are drawn, and every panel with data has axis labels or a shared one."""
    drawn = all_figures(planted)
    assert set(drawn) == set(FIGURES)
    for fig in drawn.values():
        fig.canvas.draw()


def test_figures_without_a_circuit(uncharted: Any) -> None:
    """What needs a circuit is left out; the rest is drawn."""
    drawn = all_figures(uncharted)
    assert set(FIGURES) - set(drawn) == {"2_circuit_heads", "5_shift_distributions", "6_shifts_by_layer"}
    for fig in drawn.values():
        fig.canvas.draw()
    assert "of all" in drawn["3_other_heads"].get_suptitle()


def test_drawing_opens_no_windows_and_changes_no_settings(planted: Any) -> None:
    """Figures are not pyplot's (nothing to close, no leak), and rcParams are as before."""
    before, numbers = dict(matplotlib.rcParams), plt.get_fignums()
    all_figures(planted)
    assert plt.get_fignums() == numbers
    assert dict(matplotlib.rcParams) == before


def test_titles_are_computed(planted: Any) -> None:
    """Titles carry this experiment's numbers, and follow when the numbers change."""
    drawn = all_figures(planted)
    row = planted.table.set_index(["layer", "head"]).loc[most_shifted(planted, 1, inside=True)[0]]
    title = drawn["1_one_head"].axes[0].get_title(loc="left")
    assert f"ΔKL = {row.d_kl:+.3f}" in title
    assert f"Δχ = {row.d_chi:+.3f}" in title
    assert "toy circuit: KL is higher on active prompts in 5 of 5" in drawn["2_circuit_heads"].get_suptitle()
    assert "12 heads outside the circuit" in drawn["3_other_heads"].get_suptitle()
    for ax, (score, r) in zip(drawn["5_shift_distributions"].axes, planted.rankings.items(), strict=True):
        assert ax.get_title(loc="left") == f"{score}: AUROC {r.auroc:.2f} ({r.low:.2f} to {r.high:.2f})"
    for ax, (score, r) in zip(drawn["6_shifts_by_layer"].axes, planted.rankings.items(), strict=True):
        assert (
            ax.get_title(loc="left") == f"{score}: layer alone {r.layer_auroc:.2f}, within layers {r.within_auroc:.2f}"
        )
    largest = np.abs(upper_triangle(planted.coupling.difference)).max()
    assert f"{largest:.2f}" in drawn["8_coupling_scatter"].axes[0].get_title(loc="left")
    flipped = replace(planted, table=planted.table.assign(d_kl=-planted.table.d_kl))
    assert "in 0 of 5" in FIGURES["2_circuit_heads"](flipped).get_suptitle()


def test_matrices_share_their_range(planted: Any) -> None:
    """C_active, C_control and C_diff on -1 to 1 with one colour bar, that says what lies beyond; each with its sd."""
    fig = FIGURES["7_correlation_matrices"](planted)
    images = [ax.images[0] for ax in fig.axes if ax.images]
    assert [image.get_clim() for image in images] == [(-1, 1)] * 3
    assert len(fig.axes) == 4
    assert images[-1].colorbar.extend == "both"
    for ax, name in zip(fig.axes, ("active", "control", "difference"), strict=False):
        sd = upper_triangle(getattr(planted.coupling, name)).std()
        assert f"{name}: sd {sd:.2f}" in {ax.get_title(loc=side) for side in ("left", "center")}


def of_many_heads() -> Any:
    """Records of a 30 x 9 model with a circuit of 40 heads, seven of them with a role of their own."""
    roles = {f"acts at {at}": ((layer, 0),) for layer, at in enumerate(("END", "S2", "B", "NOUN", "YY", "C1", "A1"))}
    many = {"acts in between": tuple((layer, head) for layer in range(7, 18) for head in (1, 4, 8))}
    sides = [toy_record(random_rows(6, 30, 9, KEYS, seed=seed)) for seed in (0, 1)]
    return analyse(*sides, Circuit("many", 30, 9, roles | many, "made up"))


def test_matrices_of_many_heads() -> None:
    """270 heads: panels of their own size, neighbours averaged, at most twelve ticks, one colour bar."""
    fig = FIGURES["7_correlation_matrices"](of_many_heads())
    shown = [ax for ax in fig.axes if ax.images]
    assert [ax.images[0].get_interpolation() for ax in shown] == ["antialiased"] * 3
    assert [t.get_text() for t in shown[0].get_xticklabels()] == [str(layer) for layer in range(0, 30, 3)]
    fig.canvas.draw()
    assert min(ax.get_window_extent().width for ax in shown) > 0.35 * fig.bbox.width


def test_names_of_a_large_circuit() -> None:
    """Of 40 circuit heads the 25 that shift most are named by layer, and three others."""
    experiment = of_many_heads()
    fig = FIGURES["6_shifts_by_layer"](experiment)
    table = experiment.table.assign(size=experiment.table.d_kl.abs())
    largest = pd.concat([table[table.in_circuit].nlargest(25, "size"), table[~table.in_circuit].nlargest(3, "size")])
    named = sorted(f"{layer}.{head}" for layer, head in zip(largest.layer, largest["head"], strict=True))
    assert sorted(" ".join(labels(fig.axes[0])).split()) == named


@pytest.mark.parametrize("name", ["5_shift_distributions", "6_shifts_by_layer"])
def test_roles_are_in_a_legend(name: str, planted: Any) -> None:
    """Every colour of the two panels is named once, in one legend below both."""
    (legend,) = FIGURES[name](planted).legends
    assert [text.get_text() for text in legend.get_texts()] == ["Name Mover", "Induction", "other"]
    colours = [to_hex(handle.get_color()) for handle in legend.legend_handles]
    assert colours == [to_hex(role_colour(role)) for role in ("Name Mover", "Induction", "other")]


def test_grids_say_what_their_colours_are(planted: Any) -> None:
    """Blue is control and vermilion is active, in a legend below the panels that covers none of them."""
    fig = FIGURES["2_circuit_heads"](planted)
    fig.canvas.draw()
    (legend,) = fig.subfigs[1].legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:2] == ["control prompts", "active prompts"]
    assert [to_hex(handle.get_color()) for handle in legend.legend_handles[:2]] == [to_hex(CONTROL), to_hex(ACTIVE)]
    assert not [ax for ax in fig.axes if ax.axison and ax.get_tightbbox().overlaps(legend.get_window_extent())]


def test_published_figure_shows_no_measurement(planted: Any, uncharted: Any) -> None:
    """The published picture says so, and is the same whatever was measured."""
    first, second = (FIGURES["9_gpt2_small_published"](experiment).axes[0] for experiment in (planted, uncharted))
    assert "published: Fields 2026" in first.get_title()
    assert arrows(first) == arrows(second)


def test_most_shifted(planted: Any) -> None:
    """Heads by |dKL|, inside or outside of the circuit; plain integers."""
    inside = most_shifted(planted, 99, inside=True)
    assert set(inside) == set(CIRCUIT.heads)
    sizes = planted.table.set_index(["layer", "head"]).d_kl.abs()
    assert [sizes[head] for head in inside] == sorted((sizes[head] for head in inside), reverse=True)
    assert not set(most_shifted(planted, 12, inside=False)) & set(CIRCUIT.heads)
    assert all(type(number) is int for head in inside for number in head)


def test_constant_heads_can_be_drawn() -> None:
    """A head whose KL never changes (NaN correlations) and identical sides (no shift at all) draw without a warning."""
    rows = random_rows(10, LAYERS, HEADS, KEYS)
    rows[:, 1, 1] = 1 / KEYS
    record = toy_record(rows)
    for fig in all_figures(analyse(record, record, CIRCUIT)).values():
        fig.canvas.draw()


def test_prompts_that_are_all_alike_can_be_drawn() -> None:
    """No head varies over prompts that are all alike, on one side or on both: there is no correlation, and titles say so."""
    many = random_rows(3, LAYERS, HEADS, KEYS)
    alike, other = many[:1].repeat(3, 1, 1, 1), random_rows(1, LAYERS, HEADS, KEYS, seed=1).repeat(3, 1, 1, 1)
    for control, said in ((other, "control: none (no two heads vary)"), (many, "control: sd ")):
        drawn = all_figures(analyse(toy_record(alike), toy_record(control)))
        titles = [ax.get_title(loc="left") for ax in drawn["7_correlation_matrices"].axes[:3]]
        assert titles[0] == "active: none (no two heads vary)"
        assert titles[1].startswith(said)
        title = drawn["8_coupling_scatter"].axes[0].get_title(loc="left")
        assert title == "Correlations between heads: none, as no two vary on both sides"
