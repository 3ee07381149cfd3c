"""Correlations between heads over prompts, and between the two diagnostics over heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from helpers.heads import PAIR, pairs_of
from helpers.reference import published
from helpers.statistics.coupling import (
    Coupling,
    correlation_matrix,
    correlations,
    couple_heads,
    cross_correlation,
    strongest_pairs,
    upper_triangle,
)


def coupled(n: int = 60, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """2 layers x 3 heads; heads 0.1 and 1.2 rise together on active prompts and against each other on control."""
    rng = np.random.default_rng(seed)
    active, control = rng.normal(size=(2, n, 2, 3))
    active[:, 1, 2] = active[:, 0, 1] + 0.1 * rng.normal(size=n)
    control[:, 1, 2] = -control[:, 0, 1] + 0.1 * rng.normal(size=n)
    return active, control


def test_equals_numpy() -> None:
    """C_active and C_control are np.corrcoef over prompts, heads in reading order; sides may differ in length."""
    active, control = coupled()
    found = couple_heads(active, control[:40])
    np.testing.assert_allclose(found.active, np.corrcoef(active.reshape(60, 6).T), atol=1e-12)
    np.testing.assert_allclose(found.control, np.corrcoef(control[:40].reshape(40, 6).T), atol=1e-12)
    np.testing.assert_allclose(found.difference, found.active - found.control, atol=0)
    np.testing.assert_allclose(np.diag(found.active), 1, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.3, -7.1, 1e9])
def test_constant_head_is_nan(value: float) -> None:
    """A head that never varies has no correlation, with itself neither, even where its mean is not exact in binary."""
    active, control = coupled()
    active[:, 0, 2] = value
    found = couple_heads(active, control)
    assert np.isnan(found.active[2]).all()
    assert np.isnan(found.active[:, 2]).all()
    kept = np.ix_([0, 1, 3, 4, 5], [0, 1, 3, 4, 5])
    np.testing.assert_allclose(found.active[kept], np.corrcoef(active.reshape(60, 6)[:, [0, 1, 3, 4, 5]].T), atol=1e-12)
    assert not np.isnan(found.control).any()


def test_small_variation_is_no_constant() -> None:
    """A head that varies by 1e-6 around 0.5 (float32's own steps) keeps its correlation."""
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=50), rng.normal(size=50)], axis=1)
    values[:, 1] = 0.5 + 1e-6 * (values[:, 0] + values[:, 1])
    assert correlation_matrix(values)[0, 1] == pytest.approx(np.corrcoef(values.T)[0, 1], abs=1e-6)


def test_scale_and_place_do_not_matter() -> None:
    """corr(a x + b, y) = sign(a) corr(x, y), and the matrix is symmetric within [-1, 1]."""
    active, _ = coupled()
    scale, place = np.array([1e-3, -5, 7, 1e4, -1, 0.5]), np.array([0, 100, -3, 0.1, 9, 0])
    moved = correlation_matrix(active.reshape(60, 6) * scale + place)
    np.testing.assert_allclose(
        moved, correlation_matrix(active.reshape(60, 6)) * np.sign(scale[:, None] * scale), atol=1e-9
    )
    assert np.array_equal(moved, moved.T)
    assert np.abs(couple_heads(active, active).active).max() <= 1


def test_strongest_pair_is_the_planted_one() -> None:
    """The pair that turns from +1 to -1 comes first, by name, with C_diff near 2 in sds of all 15 differences."""
    coupling = couple_heads(*coupled())
    pairs = strongest_pairs(coupling, 3, top=4)
    first = pairs.iloc[0]
    assert pairs_of(pairs)[0] == ((0, 1), (1, 2))
    assert first.c_active == pytest.approx(coupling.active[1, 5])
    assert first.c_control == pytest.approx(coupling.control[1, 5])
    assert first.c_diff == pytest.approx(first.c_active - first.c_control) == pytest.approx(2, abs=0.1)
    differences = upper_triangle(coupling.difference)
    assert first.sds == pytest.approx(first.c_diff / np.std(differences, ddof=1))
    np.testing.assert_allclose(pairs.c_diff.abs(), np.sort(np.abs(differences))[::-1][:4])


def test_strongest_pairs_names_every_pair_once() -> None:
    """6 heads make 15 pairs, none with itself; a constant head takes its 5 pairs away."""
    active, control = coupled()
    pairs = strongest_pairs(couple_heads(active, control), 3, top=100)
    names = {frozenset(pair) for pair in pairs_of(pairs)}
    assert len(pairs) == len(names) == 15
    assert all(len(pair) == 2 for pair in names)
    active[:, 0, 0] = 1.0
    pairs = strongest_pairs(couple_heads(active, control), 3, top=100)
    assert len(pairs) == 10
    assert (0, 0) not in {head for pair in pairs_of(pairs) for head in pair}


def test_names_of_heads_above_nine() -> None:
    """Index 107 of a 12 x 12 matrix is head 8.11, as in the published pairs."""
    zero, one = np.eye(144), np.eye(144)
    one[97, 114] = one[114, 97] = 1.0
    (pair,) = pairs_of(strongest_pairs(Coupling(one, zero), 12, top=1))
    assert pair == pairs_of(published.top_pairs())[0] == ((8, 1), (9, 6))


def test_strongest_pairs_are_numbered_from_0() -> None:
    """Columns of a pair, c_active, c_control, c_diff, sds, and nothing else; rows 0, 1, 2."""
    pairs = strongest_pairs(couple_heads(*coupled()), 3, top=3)
    assert list(pairs.columns) == [*PAIR, "c_active", "c_control", "c_diff", "sds"]
    assert list(pairs.index) == [0, 1, 2]


def test_heads_of_very_different_size() -> None:
    """Each head's rounding is measured by its own size: one of 1e-15 beside one of 1e3 keeps its correlation."""
    active, _ = coupled()
    values = active.reshape(60, 6) * np.array([1e-15, 1e3, 1, 1, 1, 1e-15])
    np.testing.assert_allclose(correlation_matrix(values), np.corrcoef(active.reshape(60, 6).T), atol=1e-9)


def test_upper_triangle() -> None:
    """Entries above the diagonal, row by row, without NaN."""
    matrix = np.array([[1, 2, 3], [4, 5, np.nan], [7, 8, 9.0]])
    assert upper_triangle(matrix).tolist() == [2, 3]


def test_refuses_sides() -> None:
    """The refusals of head_shifts."""
    active, control = coupled()
    with pytest.raises(ValueError, match="active: expected at least 2 prompts"):
        couple_heads(active[:1], control)
    with pytest.raises(ValueError, match="control: expected the heads of active"):
        couple_heads(active, control[:, :1])


# Over heads


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """A per-head table of 4 x 6 heads with made-up numbers, 7 of them in the circuit."""
    rng = np.random.default_rng(1)
    columns = {name: rng.normal(size=24) for name in ("kl_active", "chi_active", "d_kl", "d_chi")}
    columns["d_chi"] += columns["d_kl"]
    return pd.DataFrame({"layer": np.repeat(np.arange(4), 6), "in_circuit": np.arange(24) % 7 < 2, **columns})


def test_correlations_equal_scipy(table: pd.DataFrame) -> None:
    """Each entry = scipy.stats.pearsonr of the two columns over the heads that its name says."""
    found = correlations(table)
    inside, outside = table[table.in_circuit], table[~table.in_circuit]

    def r(x: Any, y: Any) -> float:
        return stats.pearsonr(x, y).statistic

    expected = {
        "KL, chi (active means)": r(table.kl_active, table.chi_active),
        "dKL, dchi (all heads)": r(table.d_kl, table.d_chi),
        "dKL, dchi (circuit)": r(inside.d_kl, inside.d_chi),
        "dKL, dchi (others)": r(outside.d_kl, outside.d_chi),
        "|dKL|, |dchi|": r(table.d_kl.abs(), table.d_chi.abs()),
        "layer, KL (others, active)": r(outside.layer, outside.kl_active),
        "layer, chi (others, active)": r(outside.layer, outside.chi_active),
    }
    assert found.to_dict() == pytest.approx(expected)


def test_correlations_have_the_published_names(table: pd.DataFrame) -> None:
    """Measured and published correlations stand side by side: same keys, same order."""
    assert list(correlations(table).index) == list(published.CORRELATIONS.index)


def test_without_a_circuit(table: pd.DataFrame) -> None:
    """No labelled head: the circuit's correlation is NaN, "others" are all heads."""
    found = correlations(table.assign(in_circuit=False))
    assert np.isnan(found["dKL, dchi (circuit)"])
    assert found["dKL, dchi (others)"] == pytest.approx(found["dKL, dchi (all heads)"])


def test_cross_correlation_is_pearson() -> None:
    """Entry (i, j) = scipy's correlation of head i on one side with head j on the other; with itself, couple_heads."""
    first, second = np.random.default_rng(3).normal(size=(2, 20, 2, 3))
    found = cross_correlation(first, second)
    for i, j in ((0, 0), (1, 4), (5, 2)):
        expected = stats.pearsonr(first.reshape(20, 6)[:, i], second.reshape(20, 6)[:, j]).statistic
        assert found[i, j] == pytest.approx(expected)
    np.testing.assert_allclose(cross_correlation(first, first), couple_heads(first, first).active, atol=1e-12)


def test_cross_correlation_refuses_other_prompts() -> None:
    """A correlation over prompts needs the same prompts on both sides."""
    first, second = np.random.default_rng(3).normal(size=(2, 20, 2, 3))
    with pytest.raises(ValueError, match="second: expected the 20 prompts of first, got 19"):
        cross_correlation(first, second[:19])
