"""The causal rule at its boundary, and shares of a gap against a bootstrap by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.statistics.effects import DIRECTIONS, OTHER_THRESHOLDS, THRESHOLD, is_causal, shares_of_gap


def one_head(way: str, effect: float, low: float, high: float) -> pd.DataFrame:
    """A table of one head that does nothing in the other direction."""
    row = {f"{name}{bound}": 0.0 for name in DIRECTIONS for bound in ("", "_low", "_high")}
    return pd.DataFrame([row | {way: effect, f"{way}_low": low, f"{way}_high": high}])


@pytest.mark.parametrize("way", DIRECTIONS)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("threshold", [THRESHOLD, *OTHER_THRESHOLDS])
def test_size_at_its_boundary(threshold: float, sign: int, way: str) -> None:
    """More than the threshold counts, the threshold itself does not; in each direction alone, with either sign."""
    above, below = np.nextafter(threshold, 1), np.nextafter(threshold, 0)
    for size, causal in ((above, True), (threshold, False), (below, False)):
        bounds = sorted((sign * 0.001, sign * 0.9))
        assert is_causal(one_head(way, sign * size, *bounds), threshold).tolist() == [causal]


@pytest.mark.parametrize("way", DIRECTIONS)
def test_interval_at_its_boundary(way: str) -> None:
    """An interval that ends at 0 holds 0; one that ends a hair from it does not."""
    hair = np.nextafter(0, 1)
    for low, high, causal in ((0.0, 0.9, False), (hair, 0.9, True), (-hair, 0.9, False)):
        assert is_causal(one_head(way, 0.3, low, high)).tolist() == [causal]
        assert is_causal(one_head(way, -0.3, -high, -low)).tolist() == [causal]


def test_size_and_interval_must_be_of_one_direction() -> None:
    """A large effect with 0 in its interval, and a small one without, are not a causal head together."""
    table = one_head("denoising", 0.3, -0.1, 0.7).assign(noising=0.01, noising_low=0.005, noising_high=0.015)
    assert not is_causal(table).any()
    assert is_causal(table.assign(noising=0.06)).all()


def test_heads_that_were_not_patched_are_not_causal() -> None:
    """NaN in both directions is not causal; NaN in one leaves the other to decide."""
    nan = float("nan")
    assert not is_causal(
        one_head("noising", nan, nan, nan).assign(denoising=nan, denoising_low=nan, denoising_high=nan)
    )
    assert is_causal(one_head("noising", nan, nan, nan).assign(denoising=0.2, denoising_low=0.1, denoising_high=0.3))


def test_shares_against_scipy_by_hand() -> None:
    """Effect = mean(moved)/mean(gap); bounds = percentiles of that ratio over pairs resampled together, row by row."""
    rng = np.random.default_rng(3)
    gap = rng.normal(4, 1, 25)
    moved = np.stack([0.4 * gap + rng.normal(0, 1, 25), rng.normal(0, 1, 25), 0.1 * gap])
    effect, low, high = shares_of_gap(moved, gap, level=0.9, n_resamples=500, seed=7)
    np.testing.assert_allclose(effect, moved.mean(1) / gap.mean())
    np.testing.assert_allclose((effect[2], low[2], high[2]), 0.1)
    for row in range(2):
        by_hand = stats.bootstrap(
            (moved[row], gap), lambda m, g, axis: m.mean(axis) / g.mean(axis), paired=True, confidence_level=0.9,
            n_resamples=40_000, method="percentile", rng=np.random.default_rng(1),
        ).confidence_interval  # fmt: skip
        np.testing.assert_allclose((low[row], high[row]), by_hand, atol=0.02)
        assert low[row] < effect[row] < high[row]


def test_a_row_does_not_depend_on_the_others() -> None:
    """All rows are resampled with the same pairs: one row alone has the bounds that it has among others."""
    rng = np.random.default_rng(0)
    gap, moved = rng.normal(2, 0.2, 12), rng.normal(1, 1, (5, 12))
    together = np.stack(shares_of_gap(moved, gap, level=0.95, n_resamples=200, seed=0))
    for row in range(5):
        alone = np.stack(shares_of_gap(moved[row : row + 1], gap, level=0.95, n_resamples=200, seed=0))
        np.testing.assert_allclose(alone[:, 0], together[:, row])


def test_no_rows_and_no_gap() -> None:
    """No row gives no shares; a mean gap of 0 is refused, for there is nothing to be a share of."""
    nothing = shares_of_gap(np.zeros((0, 4)), np.ones(4), level=0.95, n_resamples=9, seed=0)
    assert [part.shape for part in nothing] == [(0,)] * 3
    with pytest.raises(ValueError, match="expected clean and corrupt runs of different mean logit difference"):
        shares_of_gap(np.ones((2, 2)), np.array([1.0, -1.0]), level=0.95, n_resamples=9, seed=0)
