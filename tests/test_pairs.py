"""Minimal pairs: sign-flip tests, the scan over positions, and how many prompts either design needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from helpers.diagnostics.resolution import RESOLUTION
from helpers.statistics.pairs import _found, paired_tests, position_scan, power_curve

Sides = tuple[NDArray[np.float64], NDArray[np.float64]]


def pairs(n: int = 20, heads: tuple[int, int] = (2, 3), *, seed: int = 0, effect: float = 0.0) -> Sides:
    """Both members share a large prompt effect (sd 3) and have noise of their own; head 0.1 moves by ``effect``."""
    rng = np.random.default_rng(seed)
    shared = 3 * rng.normal(size=(n, *heads))
    active, control = (shared + 0.5 * rng.normal(size=shared.shape) for _ in range(2))
    active[:, 0, 1] += effect
    return active, control


def adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini-Hochberg by its definition: q_i = min over p_j >= p_i of p_j m / #{p <= p_j}, at most 1."""
    return np.array([min(1.0, *(pj * len(p) / (p <= pj).sum() for pj in p if pj >= pi)) for pi in p])


# Sign flips


@pytest.mark.parametrize("n", [3, 6, 9])
def test_p_is_the_exact_permutation_test(n: int) -> None:
    """p = scipy.stats.permutation_test of pairs over all 2^n flips, head by head, to simulation error."""
    active, control = pairs(n, seed=n, effect=1.0)
    table = paired_tests(active, control)
    for row in table.itertuples():
        sides = [side[:, row.layer, row.head] for side in (active, control)]
        exact = stats.permutation_test(
            sides, lambda a, c: np.mean(a - c), permutation_type="samples", n_resamples=np.inf
        ).pvalue
        assert row.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 10_000) + 1e-3)


def test_table() -> None:
    """Heads in reading order; shift = mean of the differences; low <= shift <= high; q by its definition."""
    active, control = pairs(effect=1.0)
    table = paired_tests(active, control)
    assert list(table.columns) == ["layer", "head", "shift", "low", "high", "p", "q"]
    assert table[["layer", "head"]].to_numpy().tolist() == [[i, j] for i in range(2) for j in range(3)]
    np.testing.assert_allclose(table["shift"], (active - control).mean(0).ravel(), rtol=1e-12)
    assert ((table.low < table["shift"]) & (table["shift"] < table.high)).all()
    np.testing.assert_allclose(table.q, adjusted(table.p.to_numpy()), rtol=1e-12)
    moved = table[table.q < 0.05]
    assert moved[["layer", "head"]].to_numpy().tolist() == [[0, 1]]


def test_intervals_have_the_textbook_width() -> None:
    """Width of the 95 % interval over pairs: 2 x 1.96 sd(d) / sqrt(n), not the far larger one of two separate sets."""
    active, control = pairs(300)
    table = paired_tests(active, control, n_flips=100)
    error = (active - control).std(0, ddof=1).ravel() / np.sqrt(300)
    np.testing.assert_allclose((table.high - table.low) / error, 2 * 1.96, rtol=0.1)


@pytest.fixture(scope="module")
def null() -> pd.DataFrame:
    """2000 heads for which the members of a pair are exchangeable."""
    return paired_tests(*pairs(12, (20, 100), seed=5), n_flips=2000, n_resamples=50)


def test_p_is_uniform_under_the_null(null: pd.DataFrame) -> None:
    """Share of p < a is a, for 2000 heads that do not move, to 4 sds of its binomial."""
    for level in (0.05, 0.2, 0.5, 0.8):
        assert (null.p < level).mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 2000))
    assert (null.q < 0.05).sum() <= 1


def test_exchanging_sides() -> None:
    """d -> -d: the same p and q, the opposite shift and interval."""
    active, control = pairs(effect=0.5)
    table, swapped = paired_tests(active, control), paired_tests(control, active)
    np.testing.assert_allclose(swapped.p, table.p, rtol=1e-12)
    np.testing.assert_allclose(swapped["shift"], -table["shift"], rtol=1e-12)
    np.testing.assert_allclose(swapped[["low", "high"]], -table[["high", "low"]], atol=1e-12)


def test_exchanging_members_of_some_pairs_keeps_the_null_distribution() -> None:
    """|mean d| changes, but what it is compared with does not: p falls as |shift| rises, whichever pairs are flipped."""
    active, control = pairs(8, (1, 2))
    flips = np.random.default_rng(0).random((30, 8)) < 0.5
    tables = []
    for flip in flips[:, :, None, None]:
        tables.append(paired_tests(np.where(flip, control, active), np.where(flip, active, control)).iloc[0])
    found = pd.DataFrame(tables).sort_values("shift", key=np.abs)
    assert (np.diff(found.p) <= 0.03).all()
    assert found.p.iloc[0] > found.p.iloc[-1]


@pytest.mark.parametrize("factor", [0.01, 7.0, 1e4])
def test_the_unit_does_not_matter(factor: float) -> None:
    """p(c d) = p(d) for c > 0; shift and interval are multiplied by c."""
    active, control = pairs(effect=0.5)
    table, scaled = paired_tests(active, control), paired_tests(factor * active, factor * control)
    np.testing.assert_allclose(scaled.p, table.p, rtol=1e-12)
    np.testing.assert_allclose(scaled[["shift", "low", "high"]], factor * table[["shift", "low", "high"]], rtol=1e-9)


def test_rounding_is_no_movement() -> None:
    """Differences of 1e-8, all of one sign: p = 1, shift 0 and an interval as wide as the resolution, to either side.

    Of 1e-5: p is the smallest there is. Other heads: as before.
    """
    active, control = pairs(20)
    expected = paired_tests(active, control).iloc[2:]
    active[:, 0, 0], active[:, 0, 1] = control[:, 0, 0] + 1e-8, control[:, 0, 1] + 1e-5
    table = paired_tests(active, control)
    assert table.loc[0, ["shift", "low", "high", "p", "q"]].tolist() == [0, -RESOLUTION, RESOLUTION, 1, 1]
    assert table.p[1] == pytest.approx(2 / 2**20 + 1 / 10_001, abs=2e-4)
    np.testing.assert_array_equal(table.p[2:], expected.p)


def test_reproducible() -> None:
    """The same seed gives the same table, another one other p and intervals and the same shifts."""
    active, control = pairs()
    table, other = paired_tests(active, control), paired_tests(active, control, seed=1)
    assert table.equals(paired_tests(active, control))
    assert not table.p.equals(other.p)
    assert not table.low.equals(other.low)
    assert table["shift"].equals(other["shift"])


# Positions

NAMES = ["IO", "S1", "S1+1", "S2", "END"]


def at_positions(n: int = 20, heads: tuple[int, int] = (2, 3), count: int = 5, *, seed: int = 0) -> Sides:
    """Independent noise at every position, on both sides."""
    return tuple(np.random.default_rng(seed).normal(size=(2, n, *heads, count)))  # type: ignore[return-value]


def planted(shift: float = 2.0) -> Sides:
    """Head 1.2 moves down at S2, and nothing else moves."""
    active, control = at_positions()
    active[:, 1, 2, 3] -= shift
    return active, control


def test_family_wise_error_holds() -> None:
    """400 heads that move nowhere, 20 positions: p < 0.05 for 5 % of them, where the best single p is for over 40 %."""
    active, control = at_positions(15, (20, 20), 20, seed=3)
    table = position_scan(active, control, [str(i) for i in range(20)], n_flips=1000)
    assert (table.p < 0.05).mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 400))
    best = stats.ttest_rel(active, control).pvalue.min(-1)
    assert (best < 0.05).mean() > 0.4


def test_a_planted_position_is_found() -> None:
    """The head that moves is the only one with q < 0.05; position, shift and t = sum d / sqrt(sum d^2) are those of S2."""
    active, control = planted()
    table = position_scan(active, control, NAMES)
    (row,) = table[table.q < 0.05].itertuples()
    d = (active - control)[:, 1, 2, 3]
    assert (row.layer, row.head, row.position) == (1, 2, "S2")
    assert row.shift == pytest.approx(d.mean())
    assert row.t == pytest.approx(d.sum() / np.sqrt((d**2).sum()))
    assert row.t < 0
    np.testing.assert_allclose(table.q, adjusted(table.p.to_numpy()), rtol=1e-12)


def test_t_and_students_t_rank_positions_alike() -> None:
    """t = sum d / sqrt(sum d^2) = T / sqrt(1 + (T^2 - 1)/n), T Student's: its largest |t| is the largest |T|."""
    active, control = planted(1.0)
    student = stats.ttest_rel(active, control).statistic
    best = np.abs(student).argmax(-1)
    table = position_scan(active, control, NAMES)
    assert list(table.position) == [NAMES[b] for b in best.ravel()]
    largest, n = np.take_along_axis(student, best[..., None], -1).ravel(), len(active)
    np.testing.assert_allclose(table.t, largest * np.sqrt(n / (n - 1 + largest**2)), rtol=1e-12)


def test_never_below_the_uncorrected_p() -> None:
    """p >= p of the sign-flip test at the chosen position alone, for the same flips, and <= positions times that."""
    active, control = planted(0.8)
    table = position_scan(active, control, NAMES)
    for i, row in enumerate(table.itertuples()):
        at = NAMES.index(row.position)
        alone = paired_tests(active[..., at], control[..., at]).p[i]
        assert alone <= row.p <= len(NAMES) * alone + 0.02
        assert alone > 0.9 or row.p > alone


def test_copies_of_a_position_cost_nothing() -> None:
    """Positions that move together are one position: p is the p of the sign-flip test, and the first name is given."""
    active, control = (np.repeat(side, 4, axis=-1) for side in at_positions(count=1))
    table = position_scan(active, control, list("abcd"))
    np.testing.assert_allclose(table.p, paired_tests(active[..., 0], control[..., 0]).p, rtol=1e-12)
    assert set(table.position) == {"a"}


def test_the_scale_of_a_position_does_not_matter() -> None:
    """A diagnostic a thousand times as large at one position: the same position, t and p."""
    active, control = planted(1.0)
    table = position_scan(active, control, NAMES)
    scale = np.array([1, 1e3, 1, 1e-2, 1])
    scaled = position_scan(scale * active, scale * control, NAMES)
    assert list(scaled.position) == list(table.position)
    np.testing.assert_allclose(scaled[["t", "p", "q"]], table[["t", "p", "q"]], rtol=1e-9)


def test_a_head_that_moves_nowhere() -> None:
    """Equal sides, or equal to 1e-8: t = 0, shift 0 and p = 1; a single constant position is never chosen."""
    active, control = at_positions()
    active[:, 0, 0] = control[:, 0, 0] + 1e-8
    active[:, 0, 1, 2] = control[:, 0, 1, 2]
    table = position_scan(active, control, NAMES)
    assert table.loc[0, ["t", "shift", "p", "q"]].tolist() == [0, 0, 1, 1]
    assert table.position[1] != "S1+1"


# Power

POOL = pairs(60, (2, 3), seed=2)
MOVED = (POOL[0] + np.array([1.0, 1.0, 1.0, 0, 0, 0]).reshape(2, 3), POOL[1])


@pytest.fixture(scope="module")
def power() -> pd.DataFrame:
    """Three of six heads move by 1; the sd of a difference is 0.7 within a pair and over 4 between two prompts."""
    return power_curve(*MOVED, [5, 10, 30], draws=150)


def test_pairs_need_fewer_prompts(power: pd.DataFrame) -> None:
    """A prompt effect that pairs share cancels in d: 10 pairs find the three heads, 30 prompts a side hardly one."""
    found = power.pivot_table("found", "n", "design")
    assert found.loc[10, "pairs"] > 2.7
    assert found.loc[30, "two sets"] < 1
    assert found.loc[5, "pairs"] < 2
    assert list(power.n) == [5, 5, 10, 10, 30, 30]
    assert list(power.design) == ["pairs", "two sets"] * 3


def test_quantiles_surround_the_mean(power: pd.DataFrame) -> None:
    """10 % of draws find fewer than low and 10 % more than high: 0 to 3 of the heads with 5 pairs, no fewer than 3 with 30."""
    few, many = (power[(power.n == n) & (power.design == "pairs")].iloc[0] for n in (5, 30))
    assert (few.low, few.high) == (0, 3)
    assert few.low < few.found < few.high
    assert (many.low, many.high) == (3, 3)


def test_false_alarms_are_rare() -> None:
    """No head moves: a head is found in about alpha of the draws, in both designs, and in the null draws likewise."""
    pool = np.random.default_rng(1).normal(size=(2, 200, 2, 3))
    table = power_curve(*pool, [12], draws=300, alpha=0.1)
    assert (table.false_alarm < 0.1 + 4 * np.sqrt(0.1 * 0.9 / 300)).all()
    assert (table.false_alarm > 0.02).all()
    assert (table.found < 0.25).all()


def test_null_draws_do_not_see_the_effect() -> None:
    """All heads move by 100 sds: found = 6 of 6 every time, false alarms stay rare (signs flipped; controls only)."""
    rng = np.random.default_rng(0)
    active, control = rng.normal(size=(2, 80, 2, 3))
    table = power_curve(active + 100, control, [10], draws=100)
    assert (table[["found", "low", "high"]] == 6).all(axis=None)
    assert (table.false_alarm < 0.2).all()


@pytest.mark.parametrize("alpha", [0.05, 0.5])
def test_counts_of_found_heads_are_those_of_scipy(alpha: float) -> None:
    """Paired t-test and Welch's t-test of scipy, Benjamini-Hochberg by its definition."""
    active, control = (side.reshape(15, -1) for side in pairs(15, (3, 4), effect=1.0, seed=4))
    active[:, 5:9] += 2
    paired = stats.ttest_rel(active, control).pvalue
    welch = stats.ttest_ind(active, control[:9], equal_var=False).pvalue
    assert _found(alpha, active - control) == (adjusted(paired) < alpha).sum() > 0
    assert _found(alpha, active, control[:9]) == (adjusted(welch) < alpha).sum()


@pytest.mark.parametrize("n", [3, 10])
def test_found_means_below_alpha(n: int) -> None:
    """One head, whose q is its p: it is found if alpha is above p, not if alpha is p; by scipy's paired and Welch's p."""
    active, control = (side[:, 0, 1:] for side in pairs(n, (1, 2), effect=1.0))
    p = stats.ttest_rel(active, control).pvalue[0], stats.ttest_ind(active, control, equal_var=False).pvalue[0]
    for value, sides in zip(p, ((active - control,), (active, control)), strict=True):
        assert _found(value * (1 + 1e-9), *sides) == 1
        assert _found(value * (1 - 1e-9), *sides) == 0


def test_constant_heads_are_not_found() -> None:
    """A head that is one number, or one up to float32 rounding between the sets, does not move in either design."""
    active, control = np.full((2, 20, 1, 2), 0.3)
    active[:, 0, 1] += 3e-8
    table = power_curve(active, control, [3, 10], draws=5)
    assert (table[["found", "false_alarm"]] == 0).all(axis=None)


def test_power_is_reproducible() -> None:
    """The same seed gives the same table."""
    assert power_curve(*MOVED, [5], draws=5).equals(power_curve(*MOVED, [5], draws=5))
    assert not power_curve(*MOVED, [5], draws=5).equals(power_curve(*MOVED, [5], draws=5, seed=1))


# Refusals

BAD: dict[str, tuple[Callable[[Any, Any], tuple[Any, Any]], str]] = {
    "other numbers": (lambda a, c: (a, c[:19]), r"expected at least 2 pairs, got shapes \(20, 2, 3\) and \(19, 2, 3\)"),
    "one pair": (lambda a, c: (a[:1], c[:1]), "expected at least 2 prompts"),
    "NaN": (lambda a, c: (np.where(a > 2, np.nan, a), c), r"expected finite values, got \d+ others"),
    "inf on both": (lambda a, c: (a + np.inf, c + np.inf), r"expected finite values, got \d+ others"),
    "flat": (lambda a, c: (a[:, 0], c[:, 0]), r"active: .*\(prompt, layer, head\), got shape \(20, 3\)"),
}


@pytest.mark.parametrize("function", [paired_tests, lambda a, c: power_curve(a, c, [5])], ids=["tests", "power"])
@pytest.mark.parametrize(("spoil", "words"), BAD.values(), ids=BAD)
def test_refuses_sides(spoil: Any, words: str, function: Callable[..., Any]) -> None:
    """Sides that are no pairs, or not finite."""
    with pytest.raises(ValueError, match=words):
        function(*spoil(*pairs()))


@pytest.mark.parametrize(
    ("spoil", "names", "words"),
    [
        (lambda a, c: (a, c), NAMES[:4], "positions: expected a name for each of 5 positions, got 4"),
        (lambda a, c: (a, c[:-1]), NAMES, "expected at least 2 pairs, got shapes"),
        (lambda a, c: (a, c[:, :1]), NAMES, "expected at least 2 pairs, got shapes"),
        (lambda a, c: (a[:1], c[:1]), NAMES, "expected at least 2 pairs, got shapes"),
        (lambda a, c: (np.where(a > 2, np.nan, a), c), NAMES, r"expected finite values, got \d+ others"),
    ],
)
def test_scan_refuses(spoil: Any, names: list[str], words: str) -> None:
    """Names that do not fit, sides that are no pairs, and values that are not finite."""
    with pytest.raises(ValueError, match=words):
        position_scan(*spoil(*at_positions()), names)


@pytest.mark.parametrize("sizes", [[2], [5, 31], [1000]])
def test_power_refuses_sizes(sizes: list[int]) -> None:
    """Below 3 there is no test, and above half of the pool there are no controls of other pairs."""
    with pytest.raises(ValueError, match=rf"sizes: expected 3 to 30 .*pool of 60 pairs\), got \[{sizes[0]}"):
        power_curve(*POOL, sizes)
