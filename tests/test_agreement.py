"""Do two models agree about scores: within-layer AUROC of resampled heads, and rank correlations with their interval."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.statistics import mean_of, rank_agreement, resampled_within, within_layer_auroc


def made_up(seed: int = 0, n_scores: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of 24 heads in four layers, seven of them causal, in three layers."""
    rng = np.random.default_rng(seed)
    causal = np.isin(np.arange(24), [0, 1, 7, 8, 9, 20, 22])
    return rng.normal(size=(24, n_scores)) + causal[:, None] * np.arange(n_scores), causal, np.repeat(range(4), 6)


def test_values_are_those_of_the_one_score_function() -> None:
    """Score by score, the value is `within_layer_auroc`, whatever is resampled."""
    scores, causal, layer = made_up()
    value, _ = resampled_within(scores, causal, layer, n_resamples=3)
    expected = [within_layer_auroc(column, causal, layer, n_permutations=0)[0] for column in scores.T]
    np.testing.assert_allclose(value, expected, atol=1e-12)


def test_a_resample_is_the_statistic_of_repeated_heads() -> None:
    """AUROC with weights = AUROC of heads written down as often as they were drawn."""
    scores, causal, layer = made_up(1)
    _, resampled = resampled_within(scores, causal, layer, n_resamples=4, seed=3)
    rng = np.random.default_rng(3)
    counts = [rng.multinomial(n, np.full(n, 1 / n), 4) for n in (causal.sum(), (~causal).sum())]
    for r in range(4):
        times = np.zeros(24, dtype=int)
        times[causal], times[~causal] = counts[0][r], counts[1][r]
        drawn = np.repeat(np.arange(24), times)
        for s in range(scores.shape[1]):
            expected, _ = within_layer_auroc(scores[drawn, s], causal[drawn], layer[drawn], n_permutations=0)
            assert resampled[r, s] == pytest.approx(expected, abs=1e-12)


def test_perfect_and_constant_scores() -> None:
    """A score that is the truth has 1 in every resample that has pairs; a constant one 0.5."""
    _, causal, layer = made_up()
    scores = np.stack([causal.astype(float), np.zeros(24)], axis=1)
    value, resampled = resampled_within(scores, causal, layer)
    assert value.tolist() == [1.0, 0.5]
    assert set(resampled[:, 0]) <= {1.0, 0.5}
    assert (resampled[:, 0] == 1).mean() > 0.99
    assert (resampled[:, 1] == 0.5).all()


def test_a_resample_without_pairs_counts_as_chance() -> None:
    """One causal head beside one other in a layer: a resample that lacks either has no pair, and 0.5."""
    causal, layer = np.array([True, False, True, False]), np.array([0, 0, 1, 2])
    value, resampled = resampled_within(np.array([[1.0], [0.0], [0.0], [0.0]]), causal, layer, n_resamples=200)
    assert value.tolist() == [1.0]
    assert set(resampled[:, 0]) == {0.5, 1.0}


def test_agreement_by_hand() -> None:
    """Same order: 1; opposite order: -1; and the interval is that of the resamples' own correlations."""
    up, down = np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.0, 3.0, 2.0, 1.0])
    assert rank_agreement((up, np.tile(up, (5, 1))), (up**3, np.tile(up, (5, 1)))) == pytest.approx((1, 1, 1))
    mixed = np.array([up] * 50 + [down] * 50)
    rho, low, high = rank_agreement((up, np.tile(up, (100, 1))), (up, mixed))
    assert (rho, low, high) == pytest.approx((1, -1, 1))


def test_means_are_taken_resample_by_resample() -> None:
    """The mean of two sides: values averaged, resamples averaged pairwise."""
    one, two = (np.array([0.0, 1.0]), np.zeros((3, 2))), (np.array([1.0, 0.0]), np.ones((3, 2)))
    value, resampled = mean_of([one, two])
    assert value.tolist() == [0.5, 0.5]
    assert (resampled == 0.5).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s, c, y: (s[:-1], c, y), "scores: expected a row for each of 24 heads, got shape"),
        (lambda s, c, y: (s[:, 0], c, y), "scores: expected a row for each of 24 heads, got shape"),
        (lambda s, c, y: (s, np.zeros(24, dtype=bool), y), "in_circuit: expected a layer with heads of both kinds"),
    ],
)
def test_what_cannot_be_ranked_is_refused(change, said: str) -> None:
    """Lengths that differ, a single column without its axis, no layer with both kinds."""
    with pytest.raises(ValueError, match=said):
        resampled_within(*change(*made_up()))
