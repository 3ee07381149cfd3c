"""Shifts of heads between two prompt sets: means, bootstrap intervals, Mann-Whitney tests and false-discovery rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from helpers.diagnostics.resolution import RESOLUTION
from helpers.heads import head_index
from helpers.statistics.shifts import head_shifts, head_tests, smallest_p


def sides(n: tuple[int, int] = (20, 30), heads: tuple[int, int] = (2, 3), seed: int = 0) -> tuple[Any, Any]:
    """Two sets of prompts; head (0, 1) is shifted by 2 sds, head (1, 0) constant and equal on both sides."""
    rng = np.random.default_rng(seed)
    active, control = (rng.normal(size=(count, *heads)) for count in n)
    active[:, 0, 1] += 2
    active[:, 1, 0] = control[:, 1, 0] = 0.3
    return active, control


def adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini-Hochberg by its definition: q_i = min over p_j >= p_i of p_j m / #{p <= p_j}, at most 1."""
    return np.array([min(1.0, *(pj * len(p) / (p <= pj).sum() for pj in p if pj >= pi)) for pi in p])


def test_head_index_is_reading_order() -> None:
    """Layer by layer, head by head."""
    assert head_index(2, 3).to_numpy().tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


# Shifts and intervals


def test_shift_is_the_difference_of_means() -> None:
    """active and control are means over prompts, shift their difference, head by head."""
    active, control = sides()
    table = head_shifts(active, control)
    assert list(table.columns) == ["layer", "head", "active", "control", "shift", "low", "high"]
    for row in table.itertuples():
        a, c = active[:, row.layer, row.head], control[:, row.layer, row.head]
        assert (row.active, row.control) == pytest.approx((sum(a) / len(a), sum(c) / len(c)))
        assert row.shift == pytest.approx(row.active - row.control)


def test_intervals_contain_the_estimate_and_have_the_textbook_width() -> None:
    """low <= shift <= high; for normal data the width is near 2 x 1.96 sqrt(s1^2/n1 + s2^2/n2); constant heads: -+ the resolution."""
    active, control = sides((200, 300))
    table = head_shifts(active, control)
    assert ((table.low <= table["shift"]) & (table["shift"] <= table.high)).all()
    error = np.sqrt(active.var(0, ddof=1) / 200 + control.var(0, ddof=1) / 300).ravel()
    varies = error > 1e-12
    np.testing.assert_allclose((table.high - table.low)[varies] / error[varies], 2 * 1.96, rtol=0.1)
    assert (table.loc[~varies, ["shift", "low", "high"]] == [0, -RESOLUTION, RESOLUTION]).all(axis=None)


def test_intervals_agree_with_a_bootstrap_by_hand() -> None:
    """Percentiles of the difference of means, each side resampled by itself, to simulation error."""
    active, control = sides()
    table = head_shifts(active, control, n_resamples=20_000)
    rng = np.random.default_rng(99)
    means = [
        side.reshape(len(side), -1)[rng.integers(0, len(side), (20_000, len(side)))].mean(1)
        for side in (active, control)
    ]
    expected = np.quantile(means[0] - means[1], [0.025, 0.975], axis=0)
    np.testing.assert_allclose([table.low, table.high], expected, atol=0.02)


def test_intervals_cover_the_truth_at_their_level() -> None:
    """Of 600 true shifts (0 or 1), 90 % intervals hold between 84 % and 94 %; wider levels give wider intervals."""
    rng = np.random.default_rng(3)
    truth = np.repeat([0.0, 1.0], 300).reshape(20, 30)
    active, control = rng.normal(size=(30, 20, 30)) + truth, rng.normal(size=(25, 20, 30))
    table = head_shifts(active, control, level=0.9, n_resamples=500)
    covered = (table.low <= truth.ravel()) & (truth.ravel() <= table.high)
    assert 0.84 < covered.mean() < 0.94
    wide = head_shifts(active, control, level=0.99, n_resamples=500)
    assert ((wide.high - wide.low) > (table.high - table.low)).mean() > 0.99


def test_identical_sides_do_not_shift() -> None:
    """The same prompts on both sides: every shift is exactly 0, every interval holds 0, every p is 1 to rounding."""
    active, _ = sides()
    shifts, tests = head_shifts(active, active), head_tests(active, active)
    assert (shifts["shift"] == 0).all()
    assert ((shifts.low <= 0) & (shifts.high >= 0)).all()
    assert (tests.p > 0.98).all()
    assert (tests.q > 0.98).all()


def test_shifts_are_reproducible() -> None:
    """Same seed, same intervals; another seed, others; swapping sides flips the shift."""
    active, control = sides()
    table = head_shifts(active, control)
    assert table.equals(head_shifts(active, control))
    assert not table.low.equals(head_shifts(active, control, seed=1).low)
    np.testing.assert_allclose(head_shifts(control, active)["shift"], -table["shift"])


# Tests


def test_p_is_mann_whitney_head_by_head() -> None:
    """p = scipy.stats.mannwhitneyu, two-sided, of that head alone; q by the definition of Benjamini and Hochberg."""
    active, control = sides()
    table = head_tests(active, control)
    for row in table.itertuples():
        if (row.layer, row.head) == (1, 0):
            continue
        expected = stats.mannwhitneyu(
            active[:, row.layer, row.head],
            control[:, row.layer, row.head],
            alternative="two-sided",
            method="asymptotic",
        )
        assert row.p == pytest.approx(expected.pvalue, rel=1e-12)
    np.testing.assert_allclose(table.q, adjusted(table.p.to_numpy()), rtol=1e-12)
    moved = table.set_index(["layer", "head"]).q < 0.01
    assert list(moved[moved].index) == [(0, 1)]


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 5), (20, 30)])
def test_smallest_p_is_that_of_sets_that_do_not_overlap(n: int, m: int) -> None:
    """No two sets without equal values have a smaller p; sets that do not overlap have it, whatever their values."""
    rng = np.random.default_rng(0)
    apart = head_tests(rng.uniform(1, 2, (n, 1, 5)), rng.uniform(0, 1, (m, 1, 5))).p
    np.testing.assert_allclose(apart, smallest_p(n, m))
    mixed = head_tests(rng.normal(size=(n, 10, 10)), rng.normal(size=(m, 10, 10))).p
    assert mixed.min() >= smallest_p(n, m) * (1 - 1e-12)
    assert mixed.max() > smallest_p(n, m)


def test_false_discovery_rates_by_hand() -> None:
    """p = 0.01, 0.02, 0.03, 1 over four heads: q = 0.04, 0.04, 0.04, 1 by hand; the table's own p through the same rule."""
    np.testing.assert_allclose(adjusted(np.array([0.01, 0.02, 0.03, 1.0])), [0.04, 0.04, 0.04, 1])
    rng = np.random.default_rng(0)
    active, control = rng.normal(size=(12, 4, 5)) + np.linspace(0, 2, 20).reshape(4, 5), rng.normal(size=(9, 4, 5))
    table = head_tests(active, control)
    np.testing.assert_allclose(table.q, adjusted(table.p.to_numpy()), rtol=1e-12)
    assert (table.q >= table.p).all()


def test_constant_heads_did_not_move() -> None:
    """A head that is the same number on every prompt of both sides has p = 1, and its neighbours keep theirs."""
    active, control = sides()
    table = head_tests(active, control).set_index(["layer", "head"])
    assert table.p[1, 0] == 1
    constant = np.full((5, 1, 1), 0.2)
    assert head_tests(constant, constant).p.tolist() == [1.0]


def test_constant_on_each_side_but_different_moved() -> None:
    """0.2 on all of 10 active prompts and 0.3 on all of 10 controls: complete separation, p < 1e-4."""
    assert head_tests(np.full((10, 1, 1), 0.2), np.full((10, 1, 1), 0.3)).p[0] < 1e-4


def test_constant_heads_with_rounding_noise() -> None:
    """A head that is constant up to a last digit that differs between the sets (1 and 1 - 2^-53) has shift 0 to 1e-15."""
    active, control = np.ones((10, 1, 1)), np.full((10, 1, 1), 1 - 2**-53)
    assert abs(head_shifts(active, control)["shift"][0]) < 1e-15


# Refusals


BAD: dict[str, tuple[Callable[[Any, Any], tuple[Any, Any]], str]] = {
    "one prompt": (lambda a, c: (a[:1], c), r"active: expected at least 2 prompts, .*got shape \(1, 2, 3\)"),
    "no control": (lambda a, c: (a, c[:0]), r"control: expected at least 2 prompts, .*got shape \(0, 2, 3\)"),
    "flat": (lambda a, c: (a.reshape(20, 6), c), r"active: .*\(prompt, layer, head\), got shape \(20, 6\)"),
    "all queries": (lambda a, c: (a, c[..., None]), r"control: .*got shape \(30, 2, 3, 1\)"),
    "other heads": (lambda a, c: (a, c[:, :, :2]), r"control: expected the heads of active, \(2, 3\), got \(2, 2\)"),
    "NaN": (lambda a, c: (np.where(a > 2, np.nan, a), c), r"active: expected finite values, got \d+ others"),
    "inf": (lambda a, c: (a, np.where(c > 1, np.inf, c)), r"control: expected finite values, got \d+ others"),
}  # fmt: skip


@pytest.mark.parametrize("function", [head_shifts, head_tests])
@pytest.mark.parametrize(("spoil", "words"), BAD.values(), ids=BAD)
def test_refuses_sides(spoil: Any, words: str, function: Callable[..., Any]) -> None:
    """Sides that can't be compared head by head are refused by one sentence that names the side."""
    with pytest.raises(ValueError, match=words):
        function(*spoil(*sides()))
