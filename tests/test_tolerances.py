"""Every tolerance of the pure functions from both sides: what lies just inside is rounding, what lies just outside is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helpers.diagnostics.discrimination import log_likelihood_ratios
from helpers.diagnostics.plane import fold, largest_chi, one_favourite, share_of_largest_chi, upper_curve
from helpers.diagnostics.rows import check_rows, kl_selectivity
from helpers.diagnostics.tempering import tempered
from helpers.statistics import direct
from helpers.statistics.coupling import correlation_matrix, couple_heads, cross_correlation
from helpers.statistics.pairs import differences, permutation_p
from helpers.statistics.screening import passes_to_recall, screen
from helpers.statistics.shuffles import coupling_null


def accepted(pi: torch.Tensor, n: int) -> bool:
    try:
        check_rows(pi, n=n)
    except ValueError:
        return False
    return True


# Rows

#: dtype -> the largest miss that is rounding, and one that is none; exact in that precision.
MISSES = {
    torch.float64: (0.99e-4, 1.01e-4),
    torch.float32: (0.99e-4, 1.01e-4),
    torch.float16: (40 / 2**12, 41 / 2**12),
    torch.bfloat16: (10 / 2**9, 11 / 2**9),
}


@pytest.mark.parametrize(("dtype", "misses"), MISSES.items(), ids=str)
def test_sums(dtype: torch.dtype, misses: tuple[float, float]) -> None:
    """1e-4 in float64 and float32, 1e-2 in float16, 2e-2 in bfloat16: less than that below 1, and above it."""
    for miss, fine in zip(misses, (True, False), strict=True):
        assert accepted(torch.tensor([0.5, 0.5 - miss], dtype=dtype), 2) == fine
    if dtype.itemsize > 2:
        for miss, fine in zip(misses, (True, False), strict=True):
            assert accepted(torch.tensor([0.5, 0.5 + miss], dtype=dtype), 2) == fine


@pytest.mark.parametrize(("dtype", "misses"), MISSES.items(), ids=str)
def test_dust(dtype: torch.dtype, misses: tuple[float, float]) -> None:
    """The same bound holds for a weight on a key that is not visible."""
    for dust, fine in zip(misses, (True, False), strict=True):
        assert accepted(torch.tensor([0.5, 0.5, dust], dtype=dtype), 2) == fine


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_of_a_null_and_of_a_row_to_draw_from(sign: int) -> None:
    """1e-9, either way."""
    inside, outside = (np.array([0.5, 0.5 + sign * miss]) for miss in (0.9e-9, 1.2e-9))
    assert tempered([0.0, 0.0], 1.0, null=inside).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="null: expected a distribution"):
        tempered([0.0, 0.0], 1.0, null=outside)
    assert log_likelihood_ratios(inside / [1, 1], 1, trials=1).shape == (1,)
    with pytest.raises(ValueError, match="pi: expected one row"):
        log_likelihood_ratios(outside, 1, trials=1)


# The plane


def test_the_favourite_weighs_at_least_a_share() -> None:
    """1/n may be missed by 1e-12, 1 by nothing."""
    assert one_favourite(0.25 - 0.9e-12, 4)[0] < 0.25
    for weight in (0.25 - 1.2e-12, np.nextafter(1, 2)):
        with pytest.raises(ValueError, match="p: expected the favourite's weight"):
            one_favourite(weight, 4)


@pytest.mark.parametrize("n", [2, 3, 15, 64, 1024])
def test_precision_of_the_interpolated_roof(n: int) -> None:
    """chi given KL of rows on the roof is 1 to 1e-4 for 0.001 < KL < 0.995, to 2e-3 up to 0.999."""
    for top, error in ((0.995, 1e-4), (0.999, 2e-3)):
        kl = np.linspace(0.001, top, 60)
        roof = np.array([largest_chi(x, n) for x in kl])
        assert np.abs(share_of_largest_chi(kl, 0.5 * roof, n) / 0.5 - 1).max() < error


def test_no_room_is_a_roof_below_a_billionth() -> None:
    """The share is 0 where the roof (2 KL / log n near the uniform row) is below 1e-9, and a share above that."""
    roof = 2 * np.array([0.8e-9, 1.3e-9]) / 2
    kl = roof * math.log(15) / 2
    assert share_of_largest_chi(kl, roof, 15).tolist() == [0, pytest.approx(1, abs=0.05)]


@pytest.mark.parametrize("n", [2, 15, 1024])
def test_precision_of_the_fold(n: int) -> None:
    """KL of the top of the curve, to 2e-4: chi of one favourite is largest where its slope in p is 0."""
    p = np.linspace(1 / n, 1, 200_001)[1:-1]
    chi = p * (1 - p) * np.log(p * (n - 1) / (1 - p)) ** 2
    assert fold(n) == pytest.approx(kl_selectivity(one_favourite(p[chi.argmax()], n)).item(), abs=2e-4)


def test_points_of_the_curve() -> None:
    """400 unless another number is asked for."""
    assert [len(side) for side in (*upper_curve(15), *upper_curve(15, 7))] == [400, 400, 7, 7]


# Statistics


@pytest.mark.parametrize("sign", [1, -1])
def test_movement_starts_above_the_resolution(sign: int) -> None:
    """|d| = 2^-18 (32 eps of float32) is none, the next number is."""
    d = sign * np.array([2**-18, np.nextafter(2**-18, 1)])
    assert differences(d, np.zeros(2)).tolist() == [0, d[1]]


def test_ties_with_the_observed_value() -> None:
    """A draw counts if it reaches the observed value to 1e-12; the observed value is one draw more."""
    null = 0.5 - np.array([0.9e-12, 1.1e-12, 0.1, -0.1])
    assert permutation_p(0.5, null) == (1 + 2) / (1 + 4)
    assert permutation_p(np.array([2.0, -1.0]), np.zeros((9, 2))).tolist() == [1 / 10, 10 / 10]


@pytest.mark.parametrize(("sd", "varies"), [(0.49 * 2**-18, False), (0.51 * 2**-18, True)])
def test_heads_that_vary(sd: float, varies: bool) -> None:
    """A head whose values differ by 2^-18 at most is constant, for all correlations and for the coupling null alike."""
    values = np.random.default_rng(0).normal(size=(40, 1, 3))
    values[:, 0, 2] = 0.3 + sd * np.tile([1, -1], 20)
    assert coupling_null(values, values, n_permutations=1).n_heads == 2 + varies
    partial = direct.partial_correlations(values, method="ledoit-wolf")
    assert np.isnan(partial[2]).all() == (not varies)
    assert np.isnan(couple_heads(values, values).active[2]).all() == (not varies)
    assert np.isnan(cross_correlation(values, values)[2]).all() == (not varies)


@pytest.mark.parametrize(("size", "varies"), [(0.9e-12, False), (1.1e-12, True)])
@pytest.mark.parametrize("place", [1.0, -5.0])
def test_correlations_of_rounding(place: float, size: float, varies: bool) -> None:
    """A spread of 1e-12 of the largest value is rounding, and has no correlation."""
    pattern = np.tile([1.0, -1.0], 8)
    values = np.stack([pattern, place * (1 + size * pattern)], axis=1)
    found = correlation_matrix(values)[0, 1]
    assert found == pytest.approx(np.sign(place), abs=1e-3) if varies else np.isnan(found)


def test_recall_that_rounding_misses() -> None:
    """A recall is reached if it is missed by less than 1e-12."""
    curve = screen([3.0, 2.0, 1.0], [True] * 3, screening=0)
    assert passes_to_recall(curve, curve.recall[1] + 0.9e-12) == 2
    assert passes_to_recall(curve, curve.recall[1] + 1.1e-12) == 4
