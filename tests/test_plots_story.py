"""The pictures of notebook 03, read back from their artists."""

from __future__ import annotations

import matplotlib

matplotlib.use("agg")

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from models import CIRCUIT, HEADS, LAYERS
from test_story import Story, toy_story

from helpers.plots import (
    arrows_figure,
    aurocs_figure,
    changes_figure,
    counts_figure,
    heads_in_plane_figure,
    pair_table,
    plot_counts,
    plot_flow,
    plot_moved,
    plot_named_arrows,
    plot_pair_changes,
    plot_parts,
    plot_twin_rows,
    published_arrows_figure,
    role_colour,
    role_matrices_figure,
    twin_rows_figure,
)
from helpers.plots.published import spread
from helpers.reference import FLOW, published, published_aurocs, working_at_end
from helpers.story import aurocs, shift_counts
from helpers.twins import row_changes


@pytest.fixture
def ax() -> Iterator[Axes]:
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


@pytest.fixture(scope="module")
def story() -> Story:
    return toy_story()


def texts(ax: Axes) -> list[str]:
    return [text.get_text().strip() for text in ax.texts if text.get_text().strip()]


def test_every_arrow_has_its_own_name(ax: Axes) -> None:
    """23 published heads, 23 names, each in its role's colour; ranges are those asked for."""
    table = published.circuit_heads()
    plot_named_arrows(ax, table, n=15, ranges=((0.2, 1.0), (0.0, 0.3)))
    assert sorted(texts(ax)) == sorted(f"{a}.{b}" for a, b in zip(table.layer, table["head"], strict=True))
    colours = {text.get_text(): to_hex(text.get_color()).upper() for text in ax.texts}
    assert colours["9.6"] == role_colour("Name Mover").upper()
    assert colours["4.11"] == role_colour("Previous Token").upper()
    assert ax.get_xlim() == (0.2, 1.0)


def test_published_arrows_count_what_they_show() -> None:
    """Titles have the two numbers of heads and the number that rises in both; every tip lies inside its panel."""
    at_end, earlier = working_at_end(True), working_at_end(False)
    fig = published_arrows_figure(at_end, earlier)
    left, right = fig.axes
    assert left.get_title(loc="left") == "17 heads that work at END: 13 rise in both"
    assert right.get_title(loc="left").startswith("6 that work earlier")
    for panel, table in ((left, at_end), (right, earlier)):
        for side in ("active", "control"):
            assert table[f"kl_{side}"].between(*panel.get_xlim()).all()
            assert table[f"chi_{side}"].between(*panel.get_ylim()).all()


def test_discs_stand_at_mean_places(ax: Axes) -> None:
    """A disc a role at the mean KL and chi of its heads; an arrow for each step of the flow between roles that are there."""
    table = published.circuit_heads()
    plot_flow(ax, table, FLOW, n=15)
    means = table.groupby("role", sort=False)[["kl_active", "chi_active"]].mean()
    assert np.allclose(ax.collections[-1].get_offsets(), means)
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None) is not None]
    assert len(arrows) == len(FLOW)
    assert "Backup Name Mover (8)" in texts(ax)


def test_lines_of_pairs_end_at_their_correlations(ax: Axes) -> None:
    """A line a pair from its control to its active correlation, named after its two heads."""
    pairs = pair_table(published.outlier_pairs())
    plot_pair_changes(ax, pairs)
    *drawn, zero = (line.get_ydata() for line in ax.lines)
    assert list(zero) == [0, 0]
    expected = pairs.sort_values("c_active")[["c_control", "c_active"]]
    assert np.allclose(drawn, expected)
    assert sorted(texts(ax)) == sorted(pairs.name)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.floats(0.01, 2))
def test_spread_places_are_apart_and_in_order(values: list[float], gap: float) -> None:
    """Neighbours are at least the gap apart, values that are apart already stay, and mirrored values give mirrored places."""
    ordered = np.sort(values)
    places = spread(ordered, gap)
    assert (np.diff(places) >= gap - 1e-9).all()
    assert np.allclose(spread(-ordered[::-1], gap), -places[::-1])
    if (np.diff(ordered) >= gap).all():
        assert np.allclose(places, ordered)


def test_strips_show_both_twins(ax: Axes, story: Story) -> None:
    """Two strips a head, with that row's weights, BOS by that name, and labels that say which prompt it is."""
    plot_twin_rows(ax, story.pairs, [(1, 2), (3, 0)], pair=4)
    image = np.asarray(ax.images[0].get_array())
    rows = [
        record.rows[4][head].numpy()
        for head in ((1, 2), (3, 0))
        for record in (story.pairs.active, story.pairs.control)
    ]
    assert np.allclose(image, rows)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1.2, IOI", "1.2, twin", "3.0, IOI", "3.0, twin"]
    assert texts(ax).count("BOS") == 4


def test_strips_of_no_such_pair_or_head_are_refused(ax: Axes, story: Story) -> None:
    """The refusal names what was asked for and what there is."""
    with pytest.raises(ValueError, match=r"pair: expected 0 to 15, got 16"):
        plot_twin_rows(ax, story.pairs, [(0, 0)], pair=16)
    with pytest.raises(ValueError, match=rf"heads: expected heads of {LAYERS} x {HEADS}, got \({LAYERS}, 0\)"):
        plot_twin_rows(ax, story.pairs, [(LAYERS, 0)])


def test_bars_are_shares(ax: Axes) -> None:
    """Of 1 in 4 and 0 in 5 heads the bars are 0.25 and 0, up to 1 each, and both counts are written."""
    plot_counts(ax, pd.DataFrame({"circuit": [1, 3], "others": [0, 5]}, index=["shift", "do not"]))
    assert [bar.get_height() for bar in ax.patches] == [0.25, 0.75, 0.0, 1.0]
    assert texts(ax) == ["1 shift", "3 do not", "none of 5"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["circuit (4)", "others (5)"]


def test_moved_and_parts_have_a_dot_a_head(ax: Axes, story: Story) -> None:
    """Dots of both groups are at (moved, |dKL|), and at the two parts; heads that move are named in the circuit alone."""
    changes = row_changes(story.pairs)
    inside = changes.in_circuit
    plot_moved(ax, changes, moves=0.1)
    others, circuit = ax.collections
    assert np.allclose(others.get_offsets(), np.column_stack([changes.moved, changes.d_kl.abs()])[~inside])
    assert np.allclose(circuit.get_offsets(), np.column_stack([changes.moved, changes.d_kl.abs()])[inside])
    assert len(texts(ax)) == (inside & (changes.moved >= 0.1)).sum()
    ax.clear()
    plot_parts(ax, changes, moves=0.1)
    expected = changes[["d_kl_sink_part", "d_kl_rest_part"]].to_numpy()
    assert np.allclose(ax.collections[-1].get_offsets(), expected[inside])


def test_arrows_are_of_the_circuit_and_the_others_that_shift_most(story: Story) -> None:
    """All circuit heads and the three others with the largest |dKL| are named, the rest are dots; the title counts them."""
    fig = arrows_figure(story.sets, top=3)
    table = story.sets.table
    most = table[~table.in_circuit].d_kl.abs().nlargest(3).index
    expected = [*CIRCUIT.heads, *(divmod(int(i), HEADS) for i in most)]
    assert sorted(texts(fig.axes[0])) == sorted(f"{a}.{b}" for a, b in expected)
    assert "the circuit's 5 heads and the 3 others" in fig.axes[0].get_title(loc="left")


def test_matrices_are_the_coupling_of_those_heads(story: Story) -> None:
    """Rows and columns are the circuit's heads and the two others that shift most; the third panel is the difference."""
    fig = role_matrices_figure(story.sets, top=2)
    panels = [np.asarray(ax.images[0].get_array()) for ax in fig.axes[:3]]
    assert np.allclose(panels[2], panels[0] - panels[1])
    first = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert first[: len(CIRCUIT.heads)] == [f"{a}.{b}" for a, b in CIRCUIT.heads]
    at = [a * HEADS + b for a, b in CIRCUIT.heads]
    assert np.allclose(panels[0][:5, :5], story.sets.coupling.active[np.ix_(at, at)])


def test_legends_name_what_is_drawn(story: Story) -> None:
    """The legend of AUROCs has an entry for each need that a table has, and for within layers only where that is known."""
    shown = [text.get_text() for text in aurocs_figure({"toy": aurocs(story.sets)}).legends[0].get_texts()]
    assert {"AUROC; needs nothing", "AUROC; needs two sets", "within layers", "layer index", "chance"} == {*shown}
    table = published_aurocs().loc[["|dKL| at END"]]
    assert "within layers" not in [t.get_text() for t in aurocs_figure({"one": table}).legends[0].get_texts()]


def test_figures_can_be_drawn(story: Story) -> None:
    """Every whole figure renders, with a panel for each thing it was asked for."""
    changes = row_changes(story.pairs)
    counts = {"a": shift_counts(story.sets), "b": shift_counts(story.sets)}
    figures = {
        twin_rows_figure(story.pairs, [(0, 0)]): 1,
        heads_in_plane_figure(story.sets, [(0, 0), (1, 1)]): 2,
        counts_figure(counts): 2,
        changes_figure(changes, moves=0.1): 2,
    }
    for fig, panels in figures.items():
        FigureCanvasAgg(fig).draw()
        assert len(fig.axes) == panels
