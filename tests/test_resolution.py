"""The resolution of KL and chi: what rounding can do to them, and that no test, interval or ranking takes it for movement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from helpers.diagnostics.distances import jensen_shannon, total_variation
from helpers.diagnostics.resolution import (
    RESOLUTION,
    ROUNDING,
    chi_resolution,
    flatten,
    kl_resolution,
    rounding,
    settle,
    tie,
    widen,
)
from helpers.diagnostics.rows import kl_selectivity, susceptibility
from helpers.statistics.coupling import couple_heads, cross_correlation
from helpers.statistics.direct import average_precision_interval, partial_correlations
from helpers.statistics.effects import shares_of_gap
from helpers.statistics.pairs import paired_tests, position_scan, power_curve, row_scan
from helpers.statistics.ranking import auroc, auroc_gain, rank_heads, within_layer_auroc
from helpers.statistics.screening import screen
from helpers.statistics.shifts import head_shifts, head_tests
from helpers.statistics.shuffles import coupling_null

RNG = np.random.default_rng(0)
N = 30
#: 30 prompts, 2 layers x 3 heads: each head has its value, the same on every prompt but for rounding, upwards on one side.
EQUAL = np.broadcast_to(RNG.uniform(0.1, 0.9, (2, 3)), (N, 2, 3))
ROUNDED = EQUAL + 1e-7 * (1 + RNG.random((N, 2, 3))), EQUAL - 1e-7 * (1 + RNG.random((N, 2, 3)))


# What rounding can do


@pytest.mark.parametrize("n", [2, 3, 15, 1000])
@pytest.mark.parametrize("sharpness", [0.0, 0.1, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("e", [1e-6, 1e-3])
def test_weights_off_by_a_share_move_kl_and_chi_within_the_resolution(n: int, sharpness: float, e: float) -> None:
    """Weights times 1 + e_i with |e_i| <= e, in float64: |d KL| <= e s and |d chi| <= 2 e s (s + 1 / log 2), to second order."""
    rng = np.random.default_rng(n)
    rows = torch.softmax(torch.tensor(sharpness * rng.normal(size=(200, n))), -1)
    shares = torch.tensor(
        e * np.where(rng.random((200, 1)) < 0.5, rng.uniform(-1, 1, (200, n)), rng.choice([-1, 1], (200, n)))
    )
    moved = rows * (1 + shares)
    moved = moved / moved.sum(-1, keepdim=True)
    chi = susceptibility(rows).numpy()
    slack = 1 + 10 * e
    assert ((kl_selectivity(moved) - kl_selectivity(rows)).abs().numpy() <= slack * kl_resolution(chi, e) + 1e-15).all()
    assert (np.abs(susceptibility(moved).numpy() - chi) <= slack * chi_resolution(chi, e) + 1e-15).all()


def test_the_bound_of_kl_is_reached() -> None:
    """Two keys of weights 0.6 and 0.4, moved by +e and -e: |d KL| = 2 e p (1 - p) |log(p / (1 - p))| / log 2, 98 % of e s."""
    e, p = 1e-6, 0.6
    row, moved = (torch.tensor(w, dtype=torch.float64) for w in ([p, 1 - p], [p * (1 + e), (1 - p) * (1 - e)]))
    change = (kl_selectivity(moved / moved.sum()) - kl_selectivity(row)).item()
    assert change == pytest.approx(2 * e * p * (1 - p) * np.log(p / (1 - p)) / np.log(2), rel=1e-4)
    assert 0.97 < change / kl_resolution(susceptibility(row).numpy(), e) < 1


def test_units() -> None:
    """Raw KL is normalised KL times log n, raw chi times (log n)^2: so are their resolutions, and e is all that dtypes say."""
    chi = np.array([0.0, 0.25])
    np.testing.assert_allclose(kl_resolution(chi, 0.01), [1e-4, 0.0051])
    np.testing.assert_allclose(
        chi_resolution(chi, 0.01), [2e-4 * (0.01 + 1 / np.log(2)), 0.0102 * (0.51 + 1 / np.log(2))]
    )
    eps = {name: torch.finfo(getattr(torch, name)).eps for name in ROUNDING}
    assert {name: e / eps[name] for name, e in ROUNDING.items()} == {
        "float64": 32,
        "float32": 32,
        "float16": 4,
        "bfloat16": 4,
    }


def test_the_coarsest_dtype_counts() -> None:
    """Torch's and numpy's dtypes and their names say the same; what is no such dtype says nothing."""
    assert rounding(torch.float32) == rounding("float32") == rounding(np.dtype("float32")) == RESOLUTION == 2**-18
    assert rounding(torch.float32, "bfloat16", "int4", None) == rounding(torch.bfloat16) == 2**-5


@pytest.mark.parametrize(("dtypes", "got"), [((), "none"), (("int8", None), "int8, None")])
def test_refuses_what_is_no_dtype(dtypes: tuple[Any, ...], got: str) -> None:
    """One sentence that lists the known names."""
    with pytest.raises(ValueError, match=f"^dtypes: expected one of float64, float32, float16, bfloat16, got {got}$"):
        rounding(*dtypes)


# The rule


def test_settle() -> None:
    """0 up to the resolution, the difference itself above it, with one resolution or one a column."""
    d = np.array([[1e-6, -1e-6, 2e-6], [-3e-6, 0.0, 1e-5]])
    assert settle(d, 1e-6).tolist() == [[0, 0, 2e-6], [-3e-6, 0, 1e-5]]
    assert settle(d, np.array([0.0, 1.0, 2e-6])).tolist() == [[1e-6, 0, 0], [-3e-6, 0, 1e-5]]
    assert settle(["0.5", "1e-9"]).tolist() == [0.5, 0]  # a column that was read as text


def tied_one_by_one(values: np.ndarray, resolution: float) -> list[float]:
    """Each value becomes the smallest of its group, found by walking upwards."""
    groups: dict[float, float] = {}
    smallest = -np.inf
    for value in sorted(set(values.tolist())):
        smallest = smallest if value <= smallest + resolution else value
        groups[value] = smallest
    return [groups[value] for value in values.tolist()]


@pytest.mark.parametrize("spread", [0.5, 5.0, 500.0])
def test_tie(spread: float) -> None:
    """Groups from the smallest value up, none wider than the resolution; column by column; tying again changes nothing."""
    values = spread * np.random.default_rng(1).random((40, 3))
    values[5:9] = values[1]
    resolution = np.array([0.1, 1.0, 0.0])
    tied = tie(values, resolution)
    for column in range(3):
        assert tied[:, column].tolist() == tied_one_by_one(values[:, column], resolution[column])
        assert tie(values[:, column], resolution[column]).tolist() == tied[:, column].tolist()
    assert (np.abs(tied - values) <= resolution).all()
    np.testing.assert_array_equal(tie(tied, resolution), tied)


def test_values_further_apart_stay_as_they_are() -> None:
    """No two values within the resolution: every bit of every value."""
    values = np.random.default_rng(2).permutation(40)[:, None] * 1.01e-3
    assert tie(values, 1e-3).tolist() == values.tolist()
    assert flatten(values, 1e-3).tolist() == values.tolist()


def test_flatten() -> None:
    """All the same where the largest and the smallest are within the resolution, as they are just beyond it; nothing of nothing."""
    assert flatten([0.0, 0.75, 1.0], 1).tolist() == [0, 0, 0]
    assert flatten([0.0, 0.75, np.nextafter(1, 2)], 1).tolist() == [0, 0.75, np.nextafter(1, 2)]
    assert flatten([]).tolist() == []


def test_widen() -> None:
    """Each end by itself: at least the resolution from the estimate, and where it was if that is further."""
    low, high = widen([1.0, 1.0], [0.5, 1.0], [1.0, 3.0], [0.25, 0.25])
    assert (low.tolist(), high.tolist()) == ([0.5, 0.75], [1.25, 3.0])


# Sides that are equal but for rounding


def test_rounding_shifts_no_head() -> None:
    """Every active value above every control by 2e-7 to 4e-7: shift 0, interval -+ the resolution, p = q = 1."""
    assert (stats.mannwhitneyu(*ROUNDED, axis=0, method="asymptotic").pvalue < 1e-10).all()
    table = head_shifts(*ROUNDED)
    assert (table[["shift", "low", "high"]] == [0, -RESOLUTION, RESOLUTION]).all(axis=None)
    assert (head_tests(*ROUNDED)[["p", "q"]] == 1).all(axis=None)


def test_rounding_moves_no_pair() -> None:
    """Sign flips, scans over positions and rows, and the t-tests of the power curve: p = 1, nothing found, no false alarm."""
    assert (paired_tests(*ROUNDED, n_flips=99)[["shift", "p", "q"]] == [0, 1, 1]).all(axis=None)
    places = [np.stack([side, side[:, :, ::-1]], -1) for side in ROUNDED]
    assert (position_scan(*places, ["a", "b"], n_flips=99)[["shift", "t", "p", "q"]] == [0, 0, 1, 1]).all(axis=None)
    rows = np.broadcast_to([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], (N, 2, 3, 2, 3))
    scan = row_scan(rows * (1 + 1e-7), rows, ["a", "b"], n_flips=99)
    assert (scan[["distance", "directed", "p"]] == [0, 0, 1]).all(axis=None)
    assert (power_curve(*ROUNDED, [5, 15], draws=20)[["found", "false_alarm"]] == 0).all(axis=None)


def test_rounding_is_coupled_to_nothing() -> None:
    """Heads 0.0 and 0.1 rise and fall together by 1e-7: NaN, as for a constant head, and left out of null and partial."""
    varying = RNG.normal(size=(2, N, 2, 3))
    for side in varying:
        side[:, 0, :2] = 0.5 + 1e-7 * RNG.normal(size=(N, 1))
    coupling = couple_heads(*varying)
    some = np.array([True, True, False, False, False, False])
    for matrix in (
        coupling.active,
        coupling.control,
        cross_correlation(*varying),
        partial_correlations(varying[0], method="ledoit-wolf"),
    ):
        np.testing.assert_array_equal(np.isnan(matrix), some[:, None] | some)
    assert coupling_null(*varying, n_permutations=9).n_heads == 4


def test_a_score_made_of_rounding_ranks_nothing() -> None:
    """Circuit heads above all others by 1e-7: AUROC 0.5 everywhere, no p below 1/2, recall a straight line, base rate."""
    labels, layer = np.arange(40) % 4 == 0, np.arange(40) // 10
    score = 0.3 + 1e-7 * labels
    ranking = rank_heads(score, labels, layer, n_permutations=99, n_resamples=50)
    assert (ranking.auroc, ranking.within_auroc, ranking.within_p) == (0.5, 0.5, 1)
    assert (ranking.low, ranking.high) == (pytest.approx(0.5), pytest.approx(0.5))
    assert (ranking.u, ranking.p) == (150, 1)
    assert auroc(score, labels) == 0.5
    assert within_layer_auroc(score, labels, layer, n_permutations=99) == (0.5, 1)
    assert auroc_gain(score, np.zeros(40), labels, n_resamples=9) == (0, 0, 0)
    np.testing.assert_allclose(np.diff(screen(score, labels, screening=0).recall), 1 / 40)
    assert average_precision_interval(score, labels, n_resamples=9)[0] == 0.25


def test_rows_that_differ_by_rounding_are_at_no_distance() -> None:
    """Weights off by 1e-7 of themselves in float32: total variation and Jensen-Shannon 0. In float64 that is a difference."""
    rows = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]])
    moved = rows * torch.tensor([1.0, 1 + 1.2e-7, 1 - 1.2e-7])
    for distance in (total_variation, jensen_shannon):
        assert distance(rows, moved).tolist() == [0, 0]
        assert (distance(rows.double(), moved.double()) > 0).all()


def test_a_gap_of_rounding_is_no_gap() -> None:
    """Effects as shares of a mean gap within the resolution are refused, beyond it they are not."""
    moved = np.full((1, 4), 1e-7)
    with pytest.raises(ValueError, match=r"got a mean gap of 3e-07$"):
        shares_of_gap(moved, np.full(4, 3e-7), level=0.95, n_resamples=9, seed=0)
    assert shares_of_gap(moved, np.full(4, 1e-5), level=0.95, n_resamples=9, seed=0)[0] == pytest.approx(0.01)


def test_rounding_in_half_of_the_prompts_does_not_carry_a_test() -> None:
    """32 of 40 prompts share their text and are above by 1e-7; the others are of one distribution: p as if those were tied."""
    rng = np.random.default_rng(0)
    active, control = rng.normal(0.5, 0.1, (2, 40, 1, 1))
    active[:32] = control[:32] = 0.5
    expected = stats.mannwhitneyu(active, control, axis=0, method="asymptotic").pvalue.item()
    active[:32] += 1e-7 * (1 + rng.random((32, 1, 1)))
    carried = stats.mannwhitneyu(active, control, axis=0, method="asymptotic").pvalue.item()
    assert carried < 0.01 < 0.1 < expected
    assert head_tests(active, control).p.item() == pytest.approx(expected, rel=1e-9)


def test_a_shift_within_the_resolution_has_p_1_however_dense_the_values() -> None:
    """Values spread over 3 resolutions, all of one side up by 0.8: ties can't undo that, Mann-Whitney's p is tiny; p = 1."""
    control = 0.5 + 3 * RESOLUTION * np.random.default_rng(0).random((200, 1, 1))
    active = control + 0.8 * RESOLUTION
    tied = np.split(tie(np.concatenate([active, control]).ravel()), 2)
    assert stats.mannwhitneyu(*tied, method="asymptotic").pvalue < 1e-6
    assert head_tests(active, control).p.item() == 1
    assert head_tests(active, control, resolution=RESOLUTION / 2).p.item() < 1e-6


# What is no rounding


def test_a_shift_beyond_the_resolution_keeps_its_p_and_interval() -> None:
    """Mann-Whitney's and the sign flips' p and the bootstrap's interval to the last bit, though some values lie within rounding."""
    active, control = np.random.default_rng(3).normal(size=(2, 60, 2, 3)) * 0.1
    active += np.array([0.0, 0.02, 0.05])
    active[0], active[1] = control[1] + 1e-8, control[0] - 1e-7
    exact = stats.mannwhitneyu(*(side.reshape(60, 6) for side in (active, control)), axis=0, method="asymptotic").pvalue
    assert head_tests(active, control).p.tolist() == exact.tolist()
    for test in (head_shifts, paired_tests):
        pd.testing.assert_frame_equal(test(active, control), test(active, control, resolution=0.0), check_exact=True)


def test_each_head_has_its_own_resolution() -> None:
    """A shift of 1e-6 in every head: movement where the resolution is 1e-7, none where it is 1e-5."""
    active, control = EQUAL + 1e-6, EQUAL
    resolution = np.array([[1e-7, 1e-5, 1e-7], [1e-5, 1e-5, 1e-7]])
    moves = (resolution < 1e-6).ravel()
    for table in (
        head_tests(active, control, resolution=resolution),
        paired_tests(active, control, resolution=resolution),
    ):
        assert (table.q < 0.05).tolist() == moves.tolist()
    table = head_shifts(active, control, resolution=resolution)
    assert ((table.low > 0) | (table.high < 0)).tolist() == moves.tolist()
    assert (table["shift"] != 0).tolist() == moves.tolist()


@pytest.mark.parametrize("resolution", [-1e-6, np.nan, np.ones(3), np.array([[1, 1, 1], [1, 1, -2.0]])])
@pytest.mark.parametrize("test", [head_shifts, head_tests, paired_tests, couple_heads, coupling_null])
def test_refuses_resolutions(test: Callable[..., Any], resolution: Any) -> None:
    """One sentence with the rule and the value."""
    with pytest.raises(ValueError, match=r"^resolution: expected a number >= 0, or an array of shape \(2, 3\), got"):
        test(*ROUNDED, resolution=resolution)
