"""One contract for every function that gives an interval: percentiles of the resampled statistic, at its level, 95 % by default.

Where few items are resampled, every resample can be listed: n prompts have n^n of them, equally likely. If the statistic is
the mean of one 1 and n - 1 zeros its resampled values are binomial, k/n with chance C(n, k) (n - 1)^(n - k) / n^n, and their
quantiles are known. They are far from symmetric about the estimate, so that no other bootstrap interval has these ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from helpers.patching.heads import PatchingRun, head_effects
from helpers.statistics.direct import average_precision_interval, edge_table, rank_edges
from helpers.statistics.effects import shares_of_gap
from helpers.statistics.pairs import paired_tests
from helpers.statistics.ranking import auroc_gain, rank_heads
from helpers.statistics.shifts import head_shifts
from helpers.statistics.shuffles import coupling_intervals

Interval = Callable[..., Any]


def one_in(n: int) -> np.ndarray:
    """n values, one of them 1 and the others 0, ``(n, 1, 1)``."""
    return np.eye(n)[:, :1, None]


def ends(table: pd.DataFrame, low: str = "low", high: str = "high") -> tuple[float, float]:
    return float(table[low].iloc[0]), float(table[high].iloc[0])


def shift(n: int, *, of_control: bool = False, **level: float) -> tuple[float, float]:
    """Active prompts are resampled, all controls are 0 (or the other way round, which turns the interval)."""
    sides = (one_in(n), np.zeros((2, 1, 1)))
    return ends(head_shifts(*(sides[::-1] if of_control else sides), n_resamples=5000, resolution=0, **level))


def paired(n: int, **level: float) -> tuple[float, float]:
    return ends(paired_tests(one_in(n), np.zeros((n, 1, 1)), n_flips=1, n_resamples=5000, resolution=0, **level))


def share(n: int, **level: float) -> tuple[float, float]:
    """Every gap is 1: the share is the mean of what moved."""
    options = {"level": 0.95} | level  # this one has no default
    _, low, high = shares_of_gap(one_in(n)[:, 0].T, np.ones(n), n_resamples=5000, seed=0, **options)
    return float(low[0]), float(high[0])


def effect(n: int, way: str, **level: float) -> tuple[float, float]:
    """One head, gaps of 1; it restores (or destroys) one gap and leaves the others."""
    moved = {"denoising": np.zeros((1, 1, n)), "noising": np.zeros((1, 1, n))} | {way: one_in(n).T}
    run = PatchingRun(np.ones(n), np.zeros(n), moved["denoising"], 1 - moved["noising"])
    return ends(head_effects(run, n_resamples=5000, **level), f"{way}_low", f"{way}_high")


def of_ranks(n: int) -> tuple[np.ndarray, np.ndarray]:
    """n circuit heads, one above and n - 1 below five other heads that are all alike: AUROC is a mean of one 1."""
    return np.concatenate([one_in(n).ravel(), np.full(5, 0.5)]), np.arange(n + 5) < n


def ranking(n: int, **level: float) -> tuple[float, float]:
    found = rank_heads(*of_ranks(n), np.zeros(n + 5), n_permutations=1, n_resamples=5000, **level)
    return found.low, found.high


def gain(n: int, **level: float) -> tuple[float, float]:
    """Over a baseline that knows nothing: AUROC - 1/2."""
    score, labels = of_ranks(n)
    _, low, high = auroc_gain(score, np.zeros(n + 5), labels, n_resamples=5000, **level)
    return low + 0.5, high + 0.5


ALL: dict[str, Interval] = {
    "head_shifts": shift,
    "paired_tests": paired,
    "shares_of_gap": share,
    "head_effects, denoising": partial(effect, way="denoising"),
    "head_effects, noising": partial(effect, way="noising"),
    "rank_heads": ranking,
    "auroc_gain": gain,
}


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("level", [0.3, 0.85, 0.97])
@pytest.mark.parametrize("interval", ALL.values(), ids=ALL)
def test_ends_are_binomial_quantiles(interval: Interval, level: float, n: int) -> None:
    """low and high are the (1 - level)/2 and (1 + level)/2 quantiles of Binomial(n, 1/n) / n."""
    expected = stats.binom(n, 1 / n).ppf([(1 - level) / 2, (1 + level) / 2]) / n
    assert interval(n, level=level) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize("interval", ALL.values(), ids=ALL)
def test_default_level_is_95_percent(interval: Interval) -> None:
    """Without a level the ends are those at 95 %: 1 for n = 3 (from 92.6 % on), 3/5 for n = 5 (up to 98.6 %)."""
    assert stats.binom(3, 1 / 3).ppf([0.962, 0.964]).tolist() == [2, 3]
    assert stats.binom(5, 1 / 5).ppf([0.993, 0.994]).tolist() == [3, 4]
    assert interval(3) == pytest.approx((0, 1), abs=1e-12)
    assert interval(5) == pytest.approx((0, 0.6), abs=1e-12)


def test_controls_are_resampled_too() -> None:
    """Prompts and controls exchanged: the interval of the negative shift, with its ends exchanged."""
    for n in (3, 5):
        low, high = shift(n)
        assert shift(n, of_control=True) == pytest.approx((-high, -low), abs=1e-12)


# Average precision: of all items together


SCORE, TRUTH = np.array([4.0, 3.0, 2.0, 1.0]), np.array([False, False, True, False])


@pytest.fixture(scope="module")
def precisions() -> np.ndarray:
    """Average precision of all resamples of four items that hold the true one, which is third."""
    every = (list(some) for some in product(range(4), repeat=4))
    return np.array([average_precision_score(TRUTH[some], SCORE[some]) for some in every if TRUTH[some].any()])


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_average_precision_of_every_resample(level: float, precisions: np.ndarray) -> None:
    """Ends are the quantiles over all 175 of the 256 resamples that hold the true item."""
    assert len(precisions) == 175
    expected = np.quantile(precisions, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    _, low, high = average_precision_interval(SCORE, TRUTH, n_resamples=800, level=level)
    assert (low, high) == pytest.approx(tuple(expected), abs=1e-12)


def test_default_level_of_average_precision() -> None:
    """The default is 95 %, here and in rank_edges, and other levels have other ends."""
    rng = np.random.default_rng(0)
    table = edge_table({"noise": rng.normal(size=(6, 6))}, 2, 3).assign(causal=np.arange(9) % 3 == 0)
    score, truth = table.noise.to_numpy(), table.causal.to_numpy()
    at = {level: average_precision_interval(score, truth, n_resamples=100, level=level) for level in (0.9, 0.95, 0.99)}
    assert at[0.9][2] - at[0.9][1] < at[0.95][2] - at[0.95][1] < at[0.99][2] - at[0.99][1]
    assert average_precision_interval(score, truth, n_resamples=100) == at[0.95]
    ranked = rank_edges(table, ["noise"], n_resamples=100).loc["noise"]
    assert tuple(ranked[["average precision", "low", "high"]]) == at[0.95]


# Correlations between heads


def test_default_level_of_coupling() -> None:
    """The default is 95 %; 90 % lies inside it and 99 % around it."""
    sides = np.random.default_rng(0).normal(size=(2, 20, 1, 3))
    table, *others = (coupling_intervals(*sides, n_resamples=200, **at) for at in ({}, {"level": 0.95}, {"level": 0.9}))
    assert table.equals(others[0])
    assert ((table.low < others[1].low) & (others[1].high < table.high)).all()
    wide = coupling_intervals(*sides, n_resamples=200, level=0.99)
    assert ((wide.low < table.low) & (table.high < wide.high)).all()


def test_seeds() -> None:
    """Resamples are those of seed 0 unless another is asked for."""
    rng = np.random.default_rng(0)
    active, control = rng.normal(size=(2, 12, 1, 3))
    score, labels, layer = rng.normal(size=12), np.arange(12) % 2 == 0, np.repeat([0, 1], 6)
    run = PatchingRun(active[:, 0, 0], control[:, 0, 0] - 9, active.T, control.T)
    calls: list[Callable[..., Any]] = [
        partial(head_shifts, active, control, n_resamples=50),
        partial(paired_tests, active, control, n_flips=50, n_resamples=50),
        partial(coupling_intervals, active, control, n_resamples=50),
        partial(head_effects, run, n_resamples=50),
        lambda **seed: pd.DataFrame(
            [vars(rank_heads(score, labels, layer, n_permutations=50, n_resamples=50, **seed))]
        ),
        lambda **seed: pd.DataFrame([auroc_gain(score, -score, labels, n_resamples=50, **seed)]),
        lambda **seed: pd.DataFrame([average_precision_interval(score, labels, n_resamples=50, **seed)]),
    ]
    for call in calls:
        assert call().equals(call(seed=0))
        assert not call().equals(call(seed=1))
