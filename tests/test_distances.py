"""Distances between matched rows: known answers, the axioms of a metric, references that share no code."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from numpy.typing import NDArray
from scipy import stats
from strategies import SEEDS, Row, rows

from helpers.diagnostics.distances import DISTANCES, jensen_shannon, total_variation

#: Rounding of a sum near 1 is 1e-16; the Jensen-Shannon distance takes its root.
ROUNDING = {"total variation": 1e-12, "Jensen-Shannon": 1e-7}


@st.composite
def matched(draw: DrawFn, count: int) -> NDArray[np.float64]:
    """``count`` rows over the same keys (shorter ones end in zeros); all but the first drawn towards it, or onto it."""
    drawn = draw(st.lists(rows(max_n=64), min_size=count, max_size=count))
    same = np.zeros((count, max(map(len, drawn))))
    for row, short in zip(same, drawn, strict=True):
        row[: len(short)] = short
    away = np.array([1.0, *(draw(st.sampled_from([0.0, 1e-16, 1e-9, 0.5, 1.0])) for _ in drawn[1:])])
    return away[:, None] * same + (1 - away[:, None]) * same[0]


def distance(name: str, p: Row, q: Row) -> float:
    return float(DISTANCES[name](torch.from_numpy(p), torch.from_numpy(q)))


KNOWN = {
    "the same row": ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5], 0, 0),
    "no key in common": ([0.5, 0.5, 0, 0], [0, 0, 0.1, 0.9], 1, 1),
    "a quarter moves": ([0.5, 0.25, 0.25], [0.25, 0.25, 0.5], 0.25, None),
    # m = (3/4, 1/4): KL(p || m) = log(4/3) and KL(q || m) = log(4/3) / 2
    "one key and two": ([1, 0], [0.5, 0.5], 0.5, np.sqrt(0.75 * np.log2(4 / 3))),
}


@pytest.mark.parametrize(("p", "q", "variation", "root"), KNOWN.values(), ids=KNOWN)
def test_known_rows(p: list[float], q: list[float], variation: float, root: float | None) -> None:
    """Identical rows: 0. Disjoint rows: 1. (1, 0) against (1/2, 1/2): TV = 1/2, JS^2 = 3/4 log2(4/3)."""
    left, right = torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64)
    assert total_variation(left, right) == pytest.approx(variation, abs=1e-15)
    if root is not None:
        assert jensen_shannon(left, right) == pytest.approx(root, abs=1e-15)


def test_shapes_and_precision() -> None:
    """A batch (2, 3) gives (2, 3) numbers, each that of its pair alone; float32 rows are computed in float64."""
    p, q = (torch.from_numpy(np.random.default_rng(s).dirichlet(np.ones(7), (2, 3))).float() for s in (0, 1))
    for measure in DISTANCES.values():
        found = measure(p, q)
        assert (found.shape, found.dtype) == ((2, 3), np.float64)
        alone = [float(measure(p[i], q[i])) for i in np.ndindex(2, 3)]
        np.testing.assert_allclose(found.ravel(), alone, rtol=1e-14)
        np.testing.assert_allclose(found, measure(p.double(), q.double()), rtol=1e-14)


# A metric


@pytest.mark.parametrize("name", DISTANCES)
@given(pair=matched(2))
def test_symmetric_and_between_0_and_1(name: str, pair: NDArray[np.float64]) -> None:
    """d(p, q) = d(q, p) in [0, 1], d(p, p) = 0 exactly, and no NaN for rows that differ in their last digit."""
    found = distance(name, *pair)
    assert 0 <= found <= 1
    assert distance(name, *pair[::-1]) == found
    assert distance(name, pair[0], pair[0]) == 0


@pytest.mark.parametrize("name", DISTANCES)
@given(three=matched(3))
def test_triangle(name: str, three: NDArray[np.float64]) -> None:
    """d(p, r) <= d(p, q) + d(q, r)."""
    p, q, r = three
    assert distance(name, p, r) <= distance(name, p, q) + distance(name, q, r) + ROUNDING[name]


@pytest.mark.parametrize("name", DISTANCES)
@given(pair=matched(2), seed=SEEDS)
def test_names_of_keys_do_not_matter(name: str, pair: NDArray[np.float64], seed: int) -> None:
    """The same permutation of the keys of both rows changes nothing."""
    order = np.random.default_rng(seed).permutation(pair.shape[1])
    assert distance(name, *pair[:, order]) == pytest.approx(distance(name, *pair), abs=ROUNDING[name])


def test_content_is_seen() -> None:
    """A row and the same weights on other keys have one KL and one chi, but not distance 0."""
    row = np.array([0.7, 0.2, 0.1])
    assert distance("total variation", row, row[::-1].copy()) == pytest.approx(0.6)
    assert distance("Jensen-Shannon", row, row[::-1].copy()) > 0.4


# References that share no code


@given(matched(2))
def test_jensen_shannon_is_the_mean_kl_to_the_mixture(pair: NDArray[np.float64]) -> None:
    """JS^2 log 2 = (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2, by scipy.stats.entropy."""
    divergence = np.mean([stats.entropy(row, pair.mean(0)) for row in pair])
    assert distance("Jensen-Shannon", *pair) ** 2 * np.log(2) == pytest.approx(divergence, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_total_variation_is_the_largest_difference_of_any_set_of_keys(seed: int) -> None:
    """TV = max over all 16 sets of 4 keys of p(set) - q(set)."""
    p, q = np.random.default_rng(seed).dirichlet(np.ones(4), 2)
    sets = chain.from_iterable(combinations(range(4), size) for size in range(5))
    largest = max(p[list(keys)].sum() - q[list(keys)].sum() for keys in sets)
    assert distance("total variation", p, q) == pytest.approx(largest, rel=1e-12)


@given(matched(2))
def test_each_bounds_the_other(pair: NDArray[np.float64]) -> None:
    """TV^2 / (2 log 2) <= JS^2 <= TV (Pinsker; Lin 1991)."""
    variation, square = distance("total variation", *pair), distance("Jensen-Shannon", *pair) ** 2
    assert variation**2 / (2 * np.log(2)) - 1e-12 <= square <= variation + 1e-12


# Refusals


BAD = {
    "other keys": ([[0.5, 0.5]], [[0.5, 0.25, 0.25]], r"q: expected the shape of p, \(1, 2\), got \(1, 3\)"),
    "other batch": ([[0.5, 0.5]], [[0.5, 0.5]] * 2, r"q: expected the shape of p, \(1, 2\), got \(2, 2\)"),
    "p no row": ([[0.5, 0.4]], [[0.5, 0.5]], r"pi: expected rows that sum to 1 .* got a sum of 0\.9"),
    "q no row": ([[0.5, 0.5]], [[1.5, -0.5]], r"pi: expected weights >= 0, got -0\.5"),
}


@pytest.mark.parametrize("measure", DISTANCES.values(), ids=DISTANCES)
@pytest.mark.parametrize(("p", "q", "words"), BAD.values(), ids=BAD)
def test_refuses(measure: Callable[..., Any], p: list[Any], q: list[Any], words: str) -> None:
    """Rows over other keys, and rows that are no distributions, on either side."""
    with pytest.raises(ValueError, match=words):
        measure(torch.tensor(p), torch.tensor(q))
