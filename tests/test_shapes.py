"""Numbers of one row by name: identities between them, where they are not defined, and the tables they end up in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from models import HEADS, KEYS, LAYERS, causal_rows, random_rows, toy_prompt, toy_record, toy_side
from scipy import stats
from scipy.optimize import minimize_scalar
from strategies import Row, rows

from helpers import AttentionRecord, analyse
from helpers.diagnostics.distances import DISTANCES
from helpers.diagnostics.heads import diagnose, diagnose_sink
from helpers.diagnostics.plane import fold, largest_chi, one_favourite, share_of_largest_chi
from helpers.diagnostics.rows import kl_selectivity, susceptibility
from helpers.diagnostics.shapes import SHAPES, shape_shift
from helpers.experiment import shape_columns
from helpers.widgets import playground, screen
from helpers.widgets.state import Draft, Result, View
from helpers.widgets.web import HeadGrid

LENGTHS = [15, 9, 4, 2]
SINK = ["BOS weight", "KL, sink part", "KL, rest part", "chi, sink part", "chi, rest part"]


def several_lengths(lengths: list[int] = LENGTHS, **fields: Any) -> AttentionRecord:
    """END rows of prompts of different lengths, 2 layers x 3 heads."""
    rows = causal_rows(lengths)
    if any(fields.get("windows", ())):
        rows[:, 1:] = causal_rows(lengths, 1, window=fields["windows"][1], seed=1)
    return toy_record(rows, query="all", lengths=lengths, **fields).at("END")


# Identities


def test_entropy() -> None:
    """H = log n (1 - KL) is scipy.stats.entropy of the visible part of each row."""
    record = several_lengths()
    found = SHAPES["entropy"](record)
    for i, layer, head in np.ndindex(found.shape):
        row = record.rows[i, layer, head, : LENGTHS[i]].double().numpy()
        assert found[i, layer, head] == pytest.approx(stats.entropy(row), rel=1e-6)


def test_largest_weight_and_the_weight_of_bos() -> None:
    """max weight = max_k pi_k and BOS weight = pi_0, of each row."""
    record = several_lengths()
    assert np.array_equal(SHAPES["max weight"](record), record.rows.numpy().max(-1))
    np.testing.assert_allclose(SHAPES["BOS weight"](record), record.rows.numpy()[..., 0], atol=1e-7)


def test_parts_of_the_sink_add_up() -> None:
    """KL = sink part + rest part and chi = sink part + rest part, to 1e-12, whatever the n of a row."""
    values = {name: shape(several_lengths()) for name, shape in SHAPES.items()}
    for name in ("KL", "chi"):
        total = values[f"{name}, sink part"] + values[f"{name}, rest part"]
        np.testing.assert_allclose(total, values[name], atol=1e-12)
        assert values[f"{name}, sink part"].std() > 0.01
        assert values[f"{name}, rest part"].std() > 0.01


def test_sink_parts_by_the_chain_rule() -> None:
    """KL, sink part = KL of (b, 1 - b) to (1/n, 1 - 1/n), over log n; rest part: (1 - b) KL of the rest to uniform."""
    record = several_lengths()
    found = diagnose_sink(record)
    for i, layer, head in np.ndindex(found.weight.shape):
        n = LENGTHS[i]
        row = record.rows[i, layer, head, :n].double().numpy()
        b = row[0] / row.sum()
        rest = (1 - b) * stats.entropy(row[1:], np.ones(n - 1)) / math.log(n)
        assert found.kl_rest[i, layer, head] == pytest.approx(rest, abs=1e-6)
        assert found.kl_sink[i, layer, head] == pytest.approx(
            stats.entropy([b, 1 - b], [1 / n, 1 - 1 / n]) / math.log(n), abs=1e-6
        )


def test_sink_of_all_queries_is_refused() -> None:
    """A record of all queries must be read at a position first."""
    with pytest.raises(ValueError, match="record: expected the rows of one query position; choose one with"):
        diagnose_sink(toy_record(causal_rows([4, 3]), query="all", lengths=[4, 3]))


# Where they are not defined


def test_no_sink_is_visible_through_a_window() -> None:
    """A layer that sees the last 3 keys has NaN for what is said of BOS (but in a prompt of 2 or 3), and no other NaN."""
    record = several_lengths([15, 9, 3, 2], windows=(0, 3))
    for name, shape in SHAPES.items():
        undefined = np.isnan(shape(record))
        assert not undefined[:, 0].any()
        assert undefined[:2, 1].all() == (name in SINK)
        assert not undefined[2:, 1].any()
        assert name in SINK or not undefined.any()


def test_one_visible_key() -> None:
    """A prompt of BOS alone: the largest weight is 1, the rest is divided by log 1 and is NaN; its neighbour keeps all."""
    record = several_lengths([1, 4])
    for name, shape in SHAPES.items():
        values = shape(record)
        assert (values[0] == 1).all() if name == "max weight" else np.isnan(values[0]).all()
        assert np.isfinite(values[1]).all()


# chi given KL


@pytest.mark.parametrize("n", [2, 3, 15, 200])
def test_one_favourite_has_all_the_chi_there_is(n: int) -> None:
    """chi given KL = 1 for one favourite over a level rest."""
    favourites = torch.from_numpy(one_favourite(1 / n + np.linspace(0.05, 0.95, 12) * (1 - 1 / n), n))
    np.testing.assert_allclose(SHAPES["chi given KL"](toy_record(favourites[:, None, None])), 1, atol=1e-3)


@pytest.mark.parametrize("n", [3, 15])
def test_ties_have_none(n: int) -> None:
    """chi given KL = 0 for 1 to n equal weights: uniform and one-hot rows, where no chi is possible, included."""
    ties = torch.stack([(torch.arange(n) < k).double() / k for k in range(1, n + 1)])
    np.testing.assert_allclose(SHAPES["chi given KL"](toy_record(ties[:, None, None])), 0, atol=1e-9)


def test_each_row_by_its_own_n() -> None:
    """Rows over 15, 9, 4 and 2 keys in one record: chi / largest_chi(KL, n) of each; two keys leave no choice but 1."""
    record = several_lengths()
    found, both = SHAPES["chi given KL"](record), diagnose(record)
    for index in np.ndindex(found.shape):
        expected = both.chi[index] / largest_chi(both.kl[index], LENGTHS[index[0]])
        assert found[index] == pytest.approx(expected, abs=1e-3)
    np.testing.assert_allclose(found[3], 1, atol=1e-3)
    assert found[:3].std() > 0.05


@given(rows(min_n=2))
def test_a_share_of_what_is_attainable(row: Row) -> None:
    """In [0, 1]; for 0.001 < KL < 0.999 it is chi / largest_chi(KL, n), found by root finding, to 1e-3."""
    kl, chi, n = kl_selectivity(row).item(), susceptibility(row).item(), len(row)
    share = float(share_of_largest_chi(kl, chi, n))
    assert 0 <= share <= 1
    if 0.001 < kl < 0.999:
        assert share == pytest.approx(min(chi / largest_chi(kl, n), 1), abs=1e-3)


def test_nothing_is_a_share_of_no_room() -> None:
    """KL = 0 and KL = 1 leave no room for chi: 0, without a division by 0; arrays keep their shape."""
    assert share_of_largest_chi([[0.0, 1.0]], [[0.0, 0.0]], 15).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="n: expected at least 2 visible keys, got 1"):
        share_of_largest_chi(0.5, 0.1, 1)


@pytest.mark.parametrize("n", [2, 3, 15, 100, 1024])
def test_fold(n: int) -> None:
    """The KL of the one-favourite row of largest chi, found by bounded search over its weight."""

    def chi(p: float) -> float:
        return p * (1 - p) * math.log(p * (n - 1) / (1 - p)) ** 2

    best = minimize_scalar(lambda p: -chi(p), bounds=(1 / n + 1e-9, 1 - 1e-9), method="bounded", options={"xatol": 1e-10}).x  # fmt: skip
    assert fold(n) == pytest.approx(kl_selectivity(one_favourite(best, n)).item(), abs=1e-3)
    assert 0.1 < fold(n) < 0.9
    assert largest_chi(fold(n), n) == pytest.approx(chi(best) / math.log(n) ** 2, abs=1e-6)


# Shifts, and the table of an experiment


def test_shift_is_the_difference_of_means() -> None:
    """shape_shift = mean over active prompts - mean over controls, for each name; swapping sides flips its sign."""
    active, control = toy_side(seed=1, n=5), toy_side(seed=2, n=4)
    for name, shape in SHAPES.items():
        shift = shape_shift(name, active, control)
        assert shift.shape == (LAYERS, HEADS)
        by_hand = [sum(side) / len(side) for side in (shape(active), shape(control))]
        np.testing.assert_allclose(shift, by_hand[0] - by_hand[1], atol=1e-14)
        np.testing.assert_allclose(shape_shift(name, control, active), -shift, atol=1e-14)


def test_shift_of_an_unknown_number() -> None:
    """The error lists the names that there are."""
    with pytest.raises(ValueError, match=r"name: expected one of KL, chi, entropy, .*, got 'rho'"):
        shape_shift("rho", toy_side(seed=1), toy_side(seed=2))


def test_every_number_has_a_column(planted: Any) -> None:
    """The table holds the shift of each of SHAPES (KL and chi as d_kl and d_chi) and each of DISTANCES, once."""
    columns = shape_columns()
    assert set(columns) | {"KL", "chi"} == set(SHAPES) | set(DISTANCES)
    assert columns["max weight"] == "d_max_weight"
    assert columns["KL, sink part"] == "d_kl_sink_part"
    assert columns["Jensen-Shannon"] == "jensen_shannon"
    assert planted.table.columns.is_unique
    for name in SHAPES:
        column = columns.get(name, f"d_{name.lower()}")
        shift = shape_shift(name, planted.active, planted.control)
        np.testing.assert_allclose(planted.table[column], shift.ravel(), atol=1e-12)


def test_distances_of_matched_sets(planted: Any) -> None:
    """Prompt k of both sets over the same keys: the mean over prompts of each distance, head by head."""
    active, control = (side.rows.double().numpy() for side in (planted.active, planted.control))
    variation = np.abs(active - control).sum(-1).mean(0) / 2
    np.testing.assert_allclose(planted.table.total_variation, variation.ravel(), atol=1e-6)
    mixture = (active + control) / 2
    divergence = (stats.entropy(active, mixture, axis=-1) + stats.entropy(control, mixture, axis=-1)) / 2
    root = np.sqrt(divergence / np.log(2)).mean(0)
    np.testing.assert_allclose(planted.table.jensen_shannon, root.ravel(), atol=1e-6)


def at_s2(token: int, seed: int) -> AttentionRecord:
    """12 prompts of `KEYS` tokens, read at S2, which is this token."""
    rows = torch.zeros(12, LAYERS, HEADS, KEYS)
    rows[..., : token + 1] = random_rows(12, LAYERS, HEADS, token + 1, seed=seed)
    return AttentionRecord([toy_prompt(KEYS, i, S2=token) for i in range(12)], rows, "S2", "toy")


UNMATCHED = {
    "other lengths": (toy_side(seed=1), toy_record(random_rows(20, LAYERS, HEADS, KEYS - 2))),
    "other number of prompts": (toy_side(seed=1), toy_side(seed=2, n=19)),
    "another query token": (at_s2(9, seed=1), at_s2(7, seed=2)),
}


@pytest.mark.parametrize(("active", "control"), UNMATCHED.values(), ids=UNMATCHED)
def test_distances_of_sets_that_are_no_pairs(active: AttentionRecord, control: AttentionRecord) -> None:
    """Rows that are not over the same keys have no distance: NaN, and every other number is there."""
    table = analyse(active, control).table
    distances = table[["total_variation", "jensen_shannon"]]
    assert distances.isna().all(axis=None)
    assert table.drop(columns=distances.columns).notna().all(axis=None)


def test_matched_at_another_position() -> None:
    """S2 at the same token of both prompts: distances are numbers."""
    assert analyse(at_s2(9, seed=1), at_s2(9, seed=2)).table.total_variation.between(0.01, 0.99).all()


# The playground's grid


@pytest.fixture(scope="module")
def undefined() -> Any:
    """An experiment with everything that can be undefined: sets of other lengths, and a layer that can't see BOS."""
    windows = (0,) * (LAYERS - 1) + (3,)
    sides = []
    for seed, keys in ((1, KEYS), (2, KEYS - 2)):
        rows = random_rows(8, LAYERS, HEADS, keys, seed=seed)
        rows[:, -1] = 0
        rows[:, -1, :, -3:] = random_rows(8, HEADS, 3, seed=seed)
        sides.append(toy_record(rows, windows=windows))
    return analyse(*sides)


def test_the_grid_offers_every_number() -> None:
    """Each further column is a measure: shifts by "shift of ...", distances by their own name."""
    assert set(shape_columns().values()) <= set(playground.MEASURES.values())
    assert playground.MEASURES["shift of max weight"] == "d_max_weight"
    assert playground.MEASURES["total variation"] == "total_variation"


@pytest.mark.parametrize("measure", playground.MEASURES)
def test_the_grid_says_what_is_undefined(undefined: Any, measure: str) -> None:
    """NaN has no number in the grid, is "n/a" in tooltip and picture, and never the strongest; other heads have a number."""
    missing = np.isnan(playground.grid_values(undefined, measure))
    of_bos = measure.removeprefix("shift of ") in SINK
    assert missing.all() == (measure in DISTANCES)
    assert missing[-1].all() == (measure in DISTANCES or of_bos)
    assert measure in DISTANCES or not missing[:-1].any()
    result = Result(Draft("toy"), undefined, (undefined.active, undefined.control))
    shown = HeadGrid(**screen.grid_data(result, View(measure=measure))).content
    assert [[value is None for value in row] for row in shown["values"]] == missing.tolist()
    columns = screen.table_data(result, View(measure=measure))["columns"]
    assert sum(column["label"] == measure for column in columns) == (
        playground.MEASURES[measure] not in ("d_kl", "d_kl_q", "d_chi", "d_chi_q")
    )
    tips = np.array([[f"{measure}: n/a" in tip for tip in row] for row in shown["tips"]])
    assert tips.tolist() == missing.tolist()
    if not missing.all():
        assert not missing[playground.strongest(undefined, measure)]
    texts = [text.get_text() for text in playground.grid_figure(undefined, measure).axes[0].texts]
    assert texts.count("n/a") == missing.sum()
    assert len(texts) == LAYERS * HEADS
