"""Hypothesis strategies for attention rows, float64 arrays of shape ``(n,)`` that sum to 1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from numpy.typing import NDArray

Row = NDArray[np.float64]

SEEDS = st.integers(0, 2**32 - 1)


def counts(min_n: int = 1, max_n: int = 1024) -> SearchStrategy[int]:
    """Numbers of visible keys: mostly tiny, sometimes up to ``max_n``."""
    return st.integers(min_n, min(8, max_n)) | st.integers(min_n, max_n)


def _normalised(weights: Row) -> Row:
    return weights / weights.sum()


@st.composite
def tied_rows(draw: DrawFn, min_n: int = 1) -> Row:
    """Short rows made of few distinct weights: zeros and ties."""
    weights = draw(st.lists(st.integers(0, 4), min_size=min_n, max_size=12).filter(any))
    return _normalised(np.array(weights, dtype=float))


@st.composite
def rough_rows(draw: DrawFn, min_n: int = 1) -> Row:
    """Short rows whose weights differ by many orders of magnitude, down to subnormal numbers."""
    logs = draw(st.lists(st.floats(-740.0, 0.0), min_size=min_n - 1, max_size=9))
    return _normalised(np.exp(np.array([0.0, *logs])))


@st.composite
def dirichlet_rows(draw: DrawFn, min_n: int = 1, max_n: int = 1024) -> Row:
    """Rows of every sharpness: Dirichlet draws with concentration from 0.01 (one-hot) to 100 (uniform)."""
    n, sharpness = draw(counts(min_n, max_n)), draw(st.sampled_from([0.01, 0.1, 1.0, 10.0, 100.0]))
    weights = np.random.default_rng(draw(SEEDS)).gamma(sharpness, size=n)
    return _normalised(weights if weights.sum() > 0 else np.ones(n))


@st.composite
def near_uniform_rows(draw: DrawFn, min_n: int = 1, max_n: int = 1024) -> Row:
    """Rows whose weights differ from 1/n by a relative 1e-12 to 1e-1 (or not at all)."""
    n, eps = draw(counts(min_n, max_n)), draw(st.sampled_from([0.0, 1e-12, 1e-8, 1e-4, 1e-1]))
    noise = np.random.default_rng(draw(SEEDS)).uniform(-1, 1, size=n)
    return _normalised(1 + eps * noise)


@st.composite
def near_one_hot_rows(draw: DrawFn, min_n: int = 1, max_n: int = 1024) -> Row:
    """Rows with all but 1e-300 to 1e-1 of the weight (or all of it) on one key."""
    n, eps = draw(counts(min_n, max_n)), draw(st.sampled_from([0.0, 1e-300, 1e-15, 1e-8, 1e-1]))
    row = eps * np.random.default_rng(draw(SEEDS)).uniform(size=n)
    row[draw(st.integers(0, n - 1))] = 1.0
    return _normalised(row)


def rows(min_n: int = 1, max_n: int = 1024) -> SearchStrategy[Row]:
    """Attention rows of every kind above over ``min_n`` to ``max_n`` (at least 12) keys."""
    return st.one_of(
        tied_rows(min_n),
        rough_rows(min_n),
        dirichlet_rows(min_n, max_n),
        near_uniform_rows(min_n, max_n),
        near_one_hot_rows(min_n, max_n),
    )


class Padded(NamedTuple):
    """A row, and the same row with keys added that it does not see."""

    row: Row
    padded: Row
    mask: NDArray[np.bool_]


@st.composite
def padded_rows(draw: DrawFn, min_n: int = 1, *, at_end: bool = False) -> Padded:
    """Rows with 1 to 6 masked keys: all behind the row (``at_end``) or strewn among its keys."""
    row, extra = draw(rows(min_n, 64)), draw(st.integers(1, 6))
    mask = np.repeat([True, False], [len(row), extra])
    if not at_end:
        mask = np.random.default_rng(draw(SEEDS)).permutation(mask)
    padded = np.zeros(len(mask))
    padded[mask] = row
    return Padded(row, padded, mask)
