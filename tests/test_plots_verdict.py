"""The pictures of the verdict, by their artists: lines and dots stand where the numbers say."""

from __future__ import annotations

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from models import CIRCUIT

from helpers.heads import head_index
from helpers.plots import (
    bills_figure,
    plot_bill,
    plot_both_models,
    plot_edge_precision,
    plot_heads_by_position,
    plot_steps,
    plot_two_orders,
    role_colour,
    steps_figure,
)


@pytest.fixture
def ax() -> Axes:
    return plt.figure().subplots()


def made_up_steps() -> pd.DataFrame:
    rows = [
        (model, task, step, value, value / 2)
        for model, task, values in (("smollm2", "ioi", (0.1, 0.5)), ("demo", "ioi", (0.2, 0.9)), ("demo", "x", (0.4, 0.7)))
        for step, value in zip(("depth", "a gradient"), values, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "task", "step", "auroc", "within"])


def test_steps_are_lines(ax: Axes) -> None:
    """In order of the table: a line a demo, their median, a line a real task; a star where something is quoted."""
    plot_steps(ax, made_up_steps(), "auroc", quoted={"a gradient": (0.8, "quoted")})
    lines = [list(map(float, line.get_ydata())) for line in ax.lines[1:]]
    assert lines == [[0.2, 0.9], [0.4, 0.7], [pytest.approx(0.3), pytest.approx(0.8)], [0.1, 0.5], [0.8]]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["depth", "a gradient"]
    assert [t.get_text() for t in ax.texts] == ["quoted"]


def test_steps_figure_has_both_numbers_and_a_legend() -> None:
    """Upper panel AUROC, lower within layers; the legend names the tasks, and stars only where there are some."""
    fig = steps_figure(made_up_steps())
    assert [ax.get_ylabel() for ax in fig.axes] == ["AUROC", "AUROC within layers"]
    np.testing.assert_allclose(fig.axes[1].lines[-1].get_ydata(), [0.05, 0.25])
    said = [t.get_text() for t in fig.legends[0].get_texts()]
    assert "SmolLM2, IOI" in said
    assert "GPT-2 small, published" not in said
    fig = steps_figure(made_up_steps(), {"auroc": {"depth": (0.7, "")}})
    assert "GPT-2 small, published" in [t.get_text() for t in fig.legends[0].get_texts()]


def made_up_bill() -> pd.DataFrame:
    bill = pd.DataFrame({"75 %": [50.0, 20.0], "100 %": [100.0, 40.0]}, index=["random order", "a score"])
    bill.attrs["all"] = 100
    return bill


def test_bills_are_shares_of_patching_all(ax: Axes) -> None:
    """First row on top; each a bar from 75 % to all, a dot and an end; the baseline's 75 % as a line."""
    plot_bill(ax, made_up_bill(), baselines=["random order"])
    assert [list(map(float, line.get_xdata())) for line in ax.lines] == [
        [0.2, 0.4], [0.2], [0.4], [0.5, 1.0], [0.5], [1.0], [0.5, 0.5],
    ]  # fmt: skip
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a score", "random order"]


def test_bills_figure_switches_empty_places_off() -> None:
    """Four bills: two rows of three, titles on four, the other two off."""
    fig = bills_figure({str(k): made_up_bill() for k in range(4)}, baselines=["random order"])
    assert [ax.get_title() or ax.get_title("left") for ax in fig.axes[:4]] == list("0123")
    assert [ax.axison for ax in fig.axes] == [True] * 4 + [False] * 2
    assert "random order, 75 %" in [t.get_text() for t in fig.legends[0].get_texts()]


def test_edges_are_multiples_of_the_base_rate(ax: Axes) -> None:
    """0.04 at a base rate of 0.02 stands at 2; an interval above 1 has another colour than one that holds 1."""
    table = pd.DataFrame(
        {"average precision": [0.04, 0.02], "low": [0.03, 0.01], "high": [0.08, 0.04], "base rate": 0.02},
        index=["good", "chance"],
    )
    plot_edge_precision(ax, table)
    lower, _, upper, dot, _ = ax.lines
    assert dot.get_xdata()[0] == pytest.approx(2)
    assert upper.get_color() != lower.get_color()
    assert [t.get_text() for t in ax.texts] == ["0.02", "0.04"]


def test_two_orders_are_shares_of_heads_below(ax: Axes) -> None:
    """Ranks over the number of heads: the largest value is at 1; every head of the circuit is named."""
    heads = head_index(CIRCUIT.n_layers, CIRCUIT.n_heads)
    rng = np.random.default_rng(0)
    heads["a"], heads["b"] = rng.normal(size=(2, len(heads)))
    plot_two_orders(ax, heads, CIRCUIT, names=("a", "b"), labels=("x", "y"))
    drawn = np.asarray(ax.collections[0].get_offsets())
    assert drawn.max(0).tolist() == [1, 1]
    assert drawn[heads.a.to_numpy().argmax(), 0] == 1
    assert {t.get_text() for t in ax.texts} == {str(head) for head in CIRCUIT.heads}


def test_heads_by_position_are_rows_of_the_circuit(ax: Axes) -> None:
    """One row a head in the circuit's order, its name in its role's colour; a symmetric range; gaps are not drawn."""
    shifts = np.random.default_rng(1).normal(size=(CIRCUIT.n_layers, CIRCUIT.n_heads, 4))
    shifts[..., 0] = np.nan
    plot_heads_by_position(ax, shifts, list("abcd"), CIRCUIT)
    image = ax.images[0]
    np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), [shifts[head] for head in CIRCUIT.heads])
    low, high = image.get_clim()
    assert low == -high
    first = CIRCUIT.heads[0]
    assert ax.get_yticklabels()[0].get_text() == str(first)
    assert ax.get_yticklabels()[0].get_color() == role_colour(CIRCUIT.role(*first))


def test_scores_on_both_models_are_dots_by_kind(ax: Axes) -> None:
    """Demos to the right, the real model up; one series a kind, in the order of the table; only the named are named."""
    table = pd.DataFrame(
        {"SmolLM2": [0.5, 0.7, 0.9], "demos": [0.4, 0.8, 0.6], "kind": ["row", "gradient", "row"]},
        index=["a", "b", "c"],
    )
    plot_both_models(ax, table, named=["b"])
    _, row, gradient = ax.lines
    assert (list(row.get_xdata()), list(row.get_ydata())) == ([0.4, 0.6], [0.5, 0.9])
    assert (list(gradient.get_xdata()), list(gradient.get_ydata())) == ([0.8], [0.7])
    assert [t.get_text() for t in ax.texts] == ["b"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["row", "gradient"]
