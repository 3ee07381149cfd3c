"""Rank correlations of heads' scores, over all heads and within layers: against scipy and pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.statistics.ranks import rank_correlation


def test_rank_correlation_is_spearmans_and_blind_to_depth_within_layers() -> None:
    """rho is scipy's; a score that is the layer and noise goes with depth over all heads, and with nothing within layers."""
    rng = np.random.default_rng(0)
    layer = np.repeat(np.arange(10), 8)
    target, noise = layer + rng.normal(size=80) / 5, rng.normal(size=80)
    deep = rank_correlation(layer + noise / 5, target, layer)
    assert deep.rho == pytest.approx(stats.spearmanr(layer + noise / 5, target).statistic)
    assert deep.rho > 0.9
    assert abs(deep.within) < 0.3
    assert deep.p > 0.05
    same = rank_correlation(target**3, target, layer)
    assert (same.rho, same.within) == (pytest.approx(1), pytest.approx(1))
    assert same.p == pytest.approx(1 / 2001)
    assert same.null_low < 0 < same.null_high
    assert np.isnan(rank_correlation(layer, target, layer).within)


def test_within_is_the_correlation_of_centred_ranks() -> None:
    """Against pandas: ranks less their layer's mean, Pearson; its interval holds it."""
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"layer": np.repeat(np.arange(5), 6), "a": rng.normal(size=30)})
    table["b"] = table.a + rng.normal(size=30) + table.layer
    ranks = table[["a", "b"]].rank()
    expected = (ranks - ranks.groupby(table.layer).transform("mean")).corr().loc["a", "b"]
    found = rank_correlation(table.a, table.b, table.layer)
    assert found.within == pytest.approx(expected)
    assert found.within_low < found.within < found.within_high


@pytest.mark.parametrize(
    ("score", "sentence"), [([1.0, 2.0], "got shapes"), ([1.0, np.nan, 2.0], "expected finite values, got 1 others")]
)
def test_bad_scores_are_refused(score: list[float], sentence: str) -> None:
    """Too few, of other lengths, or not finite: one sentence."""
    with pytest.raises(ValueError, match=sentence):
        rank_correlation(score, [1.0, 2.0, 3.0], [0, 0, 1])
