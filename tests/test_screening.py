"""Screen, then patch: recall for passes, by hand and against every order of ties."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.statistics.screening import expected_passes, passes_to_recall, screen

HEADS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=30).filter(
    lambda heads: any(causal for _, causal in heads)
)


def test_curve_by_hand() -> None:
    """Scores 4, 1, 3, 2, the first and the last causal: patched in the order 1, 3, 4, 2 of places; found 1, 1, 2, 2."""
    curve = screen([4, 1, 3, 2], [True, False, False, True], screening=3)
    assert list(curve.columns) == ["patched", "passes", "recall"]
    assert curve.patched.tolist() == [0, 1, 2, 3, 4]
    assert curve.passes.tolist() == [3, 5, 7, 9, 11]
    assert curve.recall.tolist() == [0, 0.5, 0.5, 1, 1]


def test_passes() -> None:
    """passes(k) = screening + k per_head, with a cost of a head that may be a fraction."""
    curve = screen(np.arange(6.0), np.ones(6), screening=2.5, per_head=0.5)
    np.testing.assert_allclose(curve.passes, 2.5 + 0.5 * np.arange(7))
    assert screen([1.0], [True], screening=0).passes.tolist() == [0, 2]


def test_best_and_worst_order() -> None:
    """The causal heads first: recall rises to 1 at once; last: it stays 0 until only they are left."""
    causal = np.arange(10) < 3
    first, last = (screen(sign * causal, causal, screening=0).recall for sign in (1.0, -1.0))
    np.testing.assert_allclose(first, [0, 1 / 3, 2 / 3, *[1] * 8])
    np.testing.assert_allclose(last, [*[0] * 8, 1 / 3, 2 / 3, 1])


def test_a_constant_score_is_the_straight_line() -> None:
    """No order at all: recall = k / heads, whichever heads are causal."""
    curve = screen(np.full(8, 0.3), [1, 0, 0, 1, 0, 1, 0, 0], screening=1)
    np.testing.assert_allclose(curve.recall, np.arange(9) / 8)


def test_ties_are_the_average_over_their_orders() -> None:
    """Recall is the mean over all 720 orders of 6 heads that respect the scores, by brute force."""
    score, causal = np.array([2, 1, 1, 3, 1, 2]), np.array([0, 1, 0, 0, 1, 1])
    curves = []
    for order in permutations(range(6)):
        if (np.diff(score[list(order)]) <= 0).all():
            curves.append(np.cumsum(causal[list(order)]) / 3)
    assert len(curves) == 1 * 2 * 6
    np.testing.assert_allclose(screen(score, causal, screening=0).recall[1:], np.mean(curves, axis=0))


@given(HEADS, st.randoms(use_true_random=False))
def test_order_of_heads_does_not_matter(heads: list[tuple[int, bool]], random: Any) -> None:
    """The same heads listed in another order, or scores through a rising function: the same curve from 0 up to 1."""
    curve = screen(*map(list, zip(*heads, strict=True)), screening=1)
    assert curve.recall[0] == 0
    assert curve.recall.iloc[-1] == pytest.approx(1)
    assert (np.diff(curve.recall) >= 0).all()
    shuffled = random.sample(heads, len(heads))
    pd.testing.assert_frame_equal(screen(*map(list, zip(*shuffled, strict=True)), screening=1), curve)
    score, causal = map(list, zip(*heads, strict=True))
    pd.testing.assert_frame_equal(screen(np.exp(score) - 5, causal, screening=1), curve)


@pytest.mark.parametrize(
    ("score", "causal", "words"),
    [
        ([1, 2], [True], "causal: expected one value a head, .*got 1 true of 1 for 2 scores"),
        ([1, 2], [False, False], "at least one of them true, got 0 true of 2 for 2 scores"),
        ([[1, 2]], [[True, False]], "expected one value a head"),
        ([1, np.nan, np.inf], [True, False, False], "score: expected finite values, got 2 others"),
    ],
)
def test_refuses(score: Any, causal: Any, words: str) -> None:
    """Lengths that differ, no causal head, a table of scores, and scores that are no numbers."""
    with pytest.raises(ValueError, match=words):
        screen(score, causal, screening=1)


# Passes to a recall


def test_passes_to_recall() -> None:
    """The first point at which recall is reached, exactly reached included: 0.5 at 5 passes, more at 9, 0 for the screen."""
    curve = screen([4, 1, 3, 2], [True, False, False, True], screening=3)
    assert [passes_to_recall(curve, recall) for recall in (0, 0.2, 0.5, 0.51, 1)] == [3, 5, 5, 9, 9]


@pytest.mark.parametrize("n", range(1, 12))
def test_rounding_costs_no_head(n: int) -> None:
    """n causal heads first among 20: recall k/n is reached after k heads, and 1 after n, whatever 1/n is in binary."""
    curve = screen(-np.arange(20.0), np.arange(20) < n, screening=0)
    assert [passes_to_recall(curve, k / n) for k in range(n + 1)] == [2 * k for k in range(n + 1)]
    constant = screen(np.zeros(20), np.arange(20) < n, screening=0)
    assert passes_to_recall(constant, 1) == 40


@pytest.mark.parametrize("recall", [-0.1, 1.1, np.nan])
def test_recall_is_a_share(recall: float) -> None:
    """A recall outside [0, 1] is never reached."""
    with pytest.raises(ValueError, match=rf"recall: expected a share in \[0, 1\], got {recall}"):
        passes_to_recall(screen([1.0], [True], screening=0), recall)


@given(HEADS, st.sampled_from([0.0, 0.5, 0.75, 1.0]))
def test_expected_passes_of_ties_is_the_mean_over_their_orders(heads: list[tuple[int, bool]], recall: float) -> None:
    """Up to seven heads: passes to a recall, averaged over every order that the scores allow."""
    heads = heads[:7]
    if not any(causal for _, causal in heads):
        heads[0] = (heads[0][0], True)
    score, causal = (np.array(column) for column in zip(*heads, strict=True))
    wanted = int(np.ceil(recall * causal.sum()))
    costs = []
    for order in permutations(range(len(heads))):
        if all(score[a] >= score[b] for a, b in pairwise(order)):
            found = np.concatenate([[0], np.cumsum(causal[list(order)])])
            costs.append(3 + 2 * int(np.flatnonzero(found == wanted)[0]))
    assert expected_passes(score, causal, recall, screening=3) == pytest.approx(np.mean(costs))


def test_expected_passes_without_ties_is_where_the_curve_gets_there() -> None:
    """Distinct scores: the same as `passes_to_recall` of the curve."""
    score, causal = np.random.default_rng(0).permutation(20), np.arange(20) % 3 == 0
    for recall in (0.3, 0.75, 1):
        assert expected_passes(score, causal, recall, screening=4) == passes_to_recall(
            screen(score, causal, screening=4), recall
        )
