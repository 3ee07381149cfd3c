"""Entropy, KL selectivity and susceptibility: known answers, identities, independent references, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS, Padded, Row, padded_rows, rows

from helpers.diagnostics.rows import check_rows, entropy, kl_selectivity, susceptibility

STATISTICS = [entropy, kl_selectivity, susceptibility]
Statistic = Callable[..., torch.Tensor]


def kl_nats(pi: Any, **visible: Any) -> torch.Tensor:
    return kl_selectivity(pi, normalized=False, **visible)


def chi_nats(pi: Any, **visible: Any) -> torch.Tensor:
    return susceptibility(pi, normalized=False, **visible)


IN_NATS = [entropy, kl_nats, chi_nats]


def loop_entropy(row: Row) -> float:
    """-sum p log p over the nonzero weights, one by one in float64."""
    return -math.fsum(p * math.log(p) for p in row.tolist() if p > 0)


def loop_variance(row: Row) -> float:
    """E[(log p)^2] - E[log p]^2 over the nonzero weights: not the two-pass form that the package uses."""
    pairs = [(p, math.log(p)) for p in row.tolist() if p > 0]
    return math.fsum(p * log**2 for p, log in pairs) - math.fsum(p * log for p, log in pairs) ** 2


def scores(n: int = 15, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=2.0, size=n))


# Known answers


@pytest.mark.parametrize("n", [2, 3, 7, 15, 1024])
def test_uniform_row_has_no_selectivity(n: int) -> None:
    """pi = u: H = log n, KL = 0, chi = 0."""
    row = np.full(n, 1 / n)
    assert entropy(row).item() == pytest.approx(math.log(n), rel=1e-14)
    assert kl_selectivity(row).item() == pytest.approx(0, abs=1e-14)
    assert susceptibility(row).item() == pytest.approx(0, abs=1e-25)


@pytest.mark.parametrize("n", [2, 3, 7, 15, 1024])
def test_one_hot_row_is_fully_selective(n: int) -> None:
    """pi = e_i: H = 0, KL = log n nats or exactly 1, chi = 0; the zeros count as 0 log 0 = 0."""
    row = np.eye(n)[n // 2]
    assert entropy(row).item() == 0
    assert kl_nats(row).item() == pytest.approx(math.log(n), rel=1e-15)
    assert kl_selectivity(row).item() == 1
    assert susceptibility(row).item() == 0


@pytest.mark.parametrize(("k", "n"), [(1, 4), (2, 4), (3, 4), (4, 4), (7, 15), (1000, 1024)])
def test_k_equal_weights(k: int, n: int) -> None:
    """k equal weights among n keys: KL = log(n/k) nats, chi = 0."""
    row = np.repeat([1 / k, 0.0], [k, n - k])
    assert kl_nats(row).item() == pytest.approx(math.log(n / k), abs=1e-13)
    assert kl_selectivity(row).item() == pytest.approx(math.log(n / k) / math.log(n), abs=1e-13)
    assert susceptibility(row).item() == pytest.approx(0, abs=1e-25)


def test_row_worked_out_by_hand() -> None:
    """pi = (1/2, 1/4, 1/4), L = log 2: H = 3L/2, log pi is -L or -2L with even odds, so Var = L^2/4."""
    row, log_2, log_3 = np.array([0.5, 0.25, 0.25]), math.log(2), math.log(3)
    assert entropy(row).item() == pytest.approx(1.5 * log_2, rel=1e-14)
    assert kl_selectivity(row).item() == pytest.approx((log_3 - 1.5 * log_2) / log_3, rel=1e-13)
    assert susceptibility(row).item() == pytest.approx(log_2**2 / 4 / log_3**2, rel=1e-13)


def test_single_visible_key_has_nothing_to_select() -> None:
    """n = 1: H, KL and chi are 0 nats, the only value in [0, log 1]."""
    assert [statistic([1.0]).item() for statistic in IN_NATS] == [0, 0, 0]


# Independent references


@given(rows())
def test_entropy_equals_scipy(row: Row) -> None:
    """H(pi) = scipy.stats.entropy(pi) = a plain loop over the weights."""
    assert entropy(row).item() == pytest.approx(scipy.stats.entropy(row), abs=1e-12)
    assert entropy(row).item() == pytest.approx(loop_entropy(row), abs=1e-12)


@given(rows())
def test_kl_equals_relative_entropy(row: Row) -> None:
    """KL = sum rel_entr(pi_i, 1/n) = log n - H(pi), with H from a plain loop."""
    kl = kl_nats(row).item()
    assert kl == pytest.approx(scipy.special.rel_entr(row, 1 / len(row)).sum(), abs=1e-12)
    assert kl == pytest.approx(math.log(len(row)) - loop_entropy(row), abs=1e-12)


@given(rows())
def test_chi_equals_moments_of_log_weights(row: Row) -> None:
    """chi = E[(log pi)^2] - E[log pi]^2 under pi, summed by a plain loop."""
    assert chi_nats(row).item() == pytest.approx(loop_variance(row), abs=1e-11)


@given(rows(min_n=2))
def test_normalisation_is_by_log_n(row: Row) -> None:
    """KL / log n and chi / (log n)^2 are the normalised values."""
    log_n = math.log(len(row))
    assert kl_selectivity(row).item() * log_n == pytest.approx(kl_nats(row).item(), rel=1e-14)
    assert susceptibility(row).item() * log_n**2 == pytest.approx(chi_nats(row).item(), rel=1e-14)


@pytest.mark.parametrize("n", [2, 15, 1024])
@pytest.mark.parametrize("eps", [1e-1, 1e-2, 1e-3, 1e-4])
def test_near_uniform_rows_keep_relative_precision(eps: float, n: int) -> None:
    """pi = (1 + eps d)/n with mean d = 0: KL = eps^2 <d^2>/2 - eps^3 <d^3>/6 + O(eps^4), Var = eps^2 <d^2> + O(eps^3).

    With abs d <= 1, the terms left out are below eps^2/6 of KL for eps <= 0.1, and below 2 eps of the variance.
    """
    d = np.cos(np.pi * (np.arange(n) + 0.5) / n)  # mean 0, <d^2> = 1/2, and <d^3> = 0 for these nodes
    row = (1 + eps * d) / n
    assert kl_nats(row).item() == pytest.approx(eps**2 * (d**2).mean() / 2, rel=eps**2 + 1e-6)
    assert chi_nats(row).item() == pytest.approx(eps**2 * (d**2).mean(), rel=2 * eps)


# Derivatives: what the susceptibility is the susceptibility of


def rho(z: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """log n - H(softmax(beta z)), written with torch alone."""
    log_pi = torch.log_softmax(beta * z, -1)
    return math.log(len(z)) + (log_pi.exp() * log_pi).sum()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [2, 15, 200])
def test_chi_is_the_derivative_of_kl_at_beta_one(n: int, seed: int) -> None:
    """chi(softmax(z)) = d rho / d beta at beta = 1, by automatic differentiation."""
    z, beta = scores(n, seed), torch.ones((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(rho(z, beta), beta)
    assert chi_nats(torch.softmax(z, -1)).item() == pytest.approx(slope.item(), rel=1e-10)


def test_gradients_flow_through_kl() -> None:
    """Differentiating the package's own KL gives the package's chi."""
    z, beta = scores(), torch.ones((), dtype=torch.float64, requires_grad=True)
    pi = torch.softmax(beta * z, -1)
    (slope,) = torch.autograd.grad(kl_nats(pi), beta)
    assert slope.item() == pytest.approx(chi_nats(pi.detach()).item(), rel=1e-10)


@pytest.mark.parametrize("beta", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_kl_grows_at_beta_times_variance(beta: float) -> None:
    """d rho / d beta = beta Var_{pi_beta}(z), by a central difference of the package's KL."""
    z, h = scores(), 1e-5
    pi = torch.softmax(beta * z, -1)
    variance = ((pi * z**2).sum() - (pi * z).sum() ** 2).item()
    slope = (kl_nats(torch.softmax((beta + h) * z, -1)) - kl_nats(torch.softmax((beta - h) * z, -1))) / (2 * h)
    assert slope.item() == pytest.approx(beta * variance, rel=1e-6)


@given(SEEDS, st.integers(2, 1024), st.floats(0.01, 10))
def test_chi_is_the_variance_of_the_scores(seed: int, n: int, scale: float) -> None:
    """log pi = z - log Z: Var_pi(log pi) = Var_pi(z), and a constant added to z changes nothing."""
    z = scale * np.random.default_rng(seed).normal(size=n)
    pi = scipy.special.softmax(z)
    mean = pi @ z
    assert chi_nats(pi).item() == pytest.approx(pi @ (z - mean) ** 2, rel=1e-9)
    assert chi_nats(scipy.special.softmax(z + 7)).item() == pytest.approx(chi_nats(pi).item(), rel=1e-9)


# Invariances and ranges


@given(rows(), SEEDS)
def test_order_of_keys_does_not_matter(row: Row, seed: int) -> None:
    """H, KL and chi are symmetric functions of the weights."""
    shuffled = np.random.default_rng(seed).permutation(row)
    for statistic in IN_NATS:
        assert statistic(shuffled).item() == pytest.approx(statistic(row).item(), abs=1e-12)


@given(rows(min_n=2))
def test_ranges(row: Row) -> None:
    """0 <= H <= log n, 0 <= KL <= 1, chi >= 0, all finite."""
    assert -1e-12 <= entropy(row).item() <= math.log(len(row)) + 1e-12
    assert 0 <= kl_selectivity(row).item() <= 1 + 1e-12
    assert 0 <= susceptibility(row).item() < math.inf


@given(rows(min_n=2))
def test_chi_vanishes_only_for_equal_weights(row: Row) -> None:
    """chi = 0 where all nonzero weights are equal, and else not: the spread within the largest weight m and the
    smallest nonzero weight s alone is m s (log m - log s)^2 / (m + s)."""
    most, least = row.max(), row[row > 0].min()
    bound = least / (1 + least / most) * (math.log(most) - math.log(least)) ** 2
    sigma = math.sqrt(chi_nats(row).item())
    assert sigma >= math.sqrt(bound) - 1e-13
    if most == least:
        assert sigma == pytest.approx(0, abs=1e-13)


# Visible keys


@given(padded_rows(at_end=True))
def test_keys_behind_the_visible_ones_change_nothing(case: Padded) -> None:
    """Keys appended behind the n visible ones change nothing, whether told by n= or by mask=."""
    for statistic in IN_NATS:
        alone = statistic(case.row).item()
        assert statistic(case.padded, n=len(case.row)).item() == pytest.approx(alone, abs=1e-12)
        assert statistic(case.padded, mask=case.mask).item() == pytest.approx(alone, abs=1e-12)


@given(padded_rows(min_n=2))
def test_masked_keys_change_nothing_anywhere(case: Padded) -> None:
    """Masked keys strewn among the visible ones change neither normalised nor plain values."""
    for statistic in STATISTICS:
        assert statistic(case.padded, mask=case.mask).item() == pytest.approx(statistic(case.row).item(), abs=1e-12)


@given(padded_rows(min_n=2))
def test_unseen_keys_count_unless_masked(case: Padded) -> None:
    """Without n or mask, a zero weight is a key not attended: KL grows by log(all keys / visible keys)."""
    growth = math.log(len(case.padded) / len(case.row))
    assert kl_nats(case.padded).item() == pytest.approx(kl_nats(case.row).item() + growth, abs=1e-12)


@pytest.mark.parametrize("visible", [{"n": 2}, {"mask": [True, True, False]}], ids=["n", "mask"])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_dust_on_masked_keys_is_swept_away(statistic: Statistic, visible: dict[str, Any]) -> None:
    """A weight below the tolerance on a masked key is dropped, not counted: the row is that of its visible keys."""
    expected = statistic(np.array([0.75, 0.25])).item()
    assert statistic(np.array([0.75, 0.25, 5e-5]), **visible).item() == pytest.approx(expected, rel=1e-14)


def test_causal_matrix_with_its_own_n_in_every_row() -> None:
    """In a causal matrix query t sees n = t + 1 keys: n=, mask= and cutting each row agree; a uniform row has KL 0."""
    z = np.random.default_rng(3).normal(size=(6, 6))
    causal = np.tri(6, dtype=bool)
    pi = scipy.special.softmax(np.where(causal, z, -np.inf), axis=-1)
    cut = [pi[t, : t + 1] for t in range(6)]
    for statistic in IN_NATS:
        expected = [statistic(row).item() for row in cut]
        np.testing.assert_allclose(statistic(pi, n=np.arange(1, 7)), expected, atol=1e-13)
        np.testing.assert_allclose(statistic(pi, mask=causal), expected, atol=1e-13)
    level = causal / causal.sum(-1, keepdims=True)
    np.testing.assert_allclose(kl_nats(level, n=np.arange(1, 7)), np.zeros(6), atol=1e-14)


@pytest.mark.parametrize("statistic", IN_NATS)
def test_n_broadcasts_over_batch(statistic: Statistic) -> None:
    """A scalar n, n per query and n for the whole batch are the same statement."""
    pi = np.zeros((2, 3, 5))
    pi[..., :3] = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 3))
    expected = statistic(pi[..., :3])
    for n in (3, [3, 3, 3], torch.full((2, 3), 3)):
        torch.testing.assert_close(statistic(pi, n=n), expected)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_batch_is_row_by_row(statistic: Statistic) -> None:
    """Shape (2, 3, 4, key) gives shape (2, 3, 4), each value that of its row alone."""
    pi = np.random.default_rng(0).dirichlet(np.ones(5), size=(2, 3, 4))
    values = statistic(pi)
    assert values.shape == (2, 3, 4)
    for index in np.ndindex(2, 3, 4):
        assert values[index].item() == pytest.approx(statistic(pi[index]).item(), rel=1e-14)


# Kinds of input


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_low_precision_rows_are_computed_in_float64(statistic: Statistic, dtype: torch.dtype) -> None:
    """A float16 row gives what its weights, read as float64 and divided by their float64 sum, give."""
    pi = torch.softmax(scores(64).float(), -1).to(dtype)
    exact = pi.double() / pi.double().sum()
    value = statistic(pi)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(statistic(exact).item(), rel=1e-13)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_lists_arrays_and_tensors_agree(statistic: Statistic) -> None:
    """A list of Python floats, a float64 array and a float64 tensor hold the same numbers, so give the same value."""
    row = [0.1, 0.2, 0.7]
    expected = statistic(torch.tensor(row, dtype=torch.float64)).item()
    assert statistic(np.array(row)).item() == expected
    assert statistic(row).item() == pytest.approx(expected, rel=1e-14)


@pytest.fixture
def warn_always() -> Iterator[None]:
    """Let torch repeat the warnings that it gives once per process, so that no earlier test can use them up."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.usefixtures("warn_always")
@pytest.mark.parametrize("statistic", STATISTICS)
def test_read_only_array(statistic: Statistic) -> None:
    """An array that must not be written to (a pandas column, a memory map) is read without a warning."""
    row = np.array([0.1, 0.2, 0.7])
    expected = statistic(row).item()
    row.flags.writeable = False
    assert statistic(row).item() == expected


@pytest.mark.parametrize("statistic", STATISTICS)
def test_reversed_array(statistic: Statistic) -> None:
    """A view with a negative stride, e.g. ``row[::-1]``, is read like any other array."""
    row = np.array([0.1, 0.2, 0.7])
    assert statistic(row[::-1]).item() == pytest.approx(statistic(row).item(), rel=1e-14)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_input_is_left_alone(statistic: Statistic) -> None:
    """The caller's tensor is not written to, although masked and off-sum weights are corrected inside."""
    pi = torch.tensor([0.5, 0.49999, 1e-6], dtype=torch.float64)
    before = pi.clone()
    statistic(pi, n=2)
    assert torch.equal(pi, before)


@given(rows(), st.floats(-9e-5, 9e-5))
def test_small_miss_of_one_is_divided_out(row: Row, miss: float) -> None:
    """Rows within 1e-4 of summing to 1 are scaled to 1: the values do not change, and check_rows returns the row."""
    pi, n = check_rows(row * (1 + miss))
    assert n.item() == len(row)
    np.testing.assert_allclose(pi, row, rtol=1e-12, atol=1e-300)
    assert kl_nats(row * (1 + miss)).item() == pytest.approx(kl_nats(row).item(), abs=1e-12)


# Refusals

GOOD = [0.5, 0.25, 0.25]

REFUSED_ROWS = {
    "negative": ([1.25, -0.25], r"pi: expected weights >= 0, got -0\.25"),
    "nan": ([0.5, math.nan], r"pi: expected finite weights, got nan"),
    "inf": ([0.5, math.inf], r"pi: expected finite weights, got inf"),
    "minus inf": ([1.0, -math.inf], r"pi: expected finite weights, got -inf"),
    "sum": ([0.5, 0.25], r"sum to 1 over the last axis .*got a sum of 0\.75"),
    "zero": ([0.0, 0.0], r"sum to 1 over the last axis .*got a sum of 0\.0"),
    "second row": ([[0.5, 0.5], [0.5, 0.75]], r"got a sum of 1\.25"),
    "keys on axis 0": ([[0.5, 0.25], [0.5, 0.75]], r"got a sum of 0\.75; if another axis holds the keys, move it"),
    "integer": ([1, 0], r"pi: expected floating-point attention rows, got torch\.int64"),
    "boolean": ([True, False], r"pi: expected floating-point attention rows, got torch\.bool"),
    "complex": ([1 + 0j], r"pi: expected floating-point attention rows, got torch\.complex\d+"),
    "empty": ([], r"at least one key, got \(0,\)"),
    "no keys": (np.zeros((3, 0)), r"at least one key, got \(3, 0\)"),
    "scalar": (1.0, r"expected shape \(\*batch, key\) .*got \(\)"),
}


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize(("pi", "words"), REFUSED_ROWS.values(), ids=REFUSED_ROWS)
def test_refuses_rows(statistic: Statistic, pi: Any, words: str) -> None:
    """Rows that are no distributions are refused by one sentence that names the rule and the value."""
    with pytest.raises(ValueError, match=words):
        statistic(pi)


REFUSED_VISIBLE = {
    "unseen weight, n": ([0.5, 0.25, 0.25], {"n": 2}, r"weight 0 on keys that are not visible, got 0\.25"),
    "unseen weight, mask": (GOOD, {"mask": [False, True, True]}, r"weight 0 on keys that are not visible, got 0\.5"),
    "unseen weight behind dust": (
        np.array([0.5, 1e-9, 0.5]),
        {"n": 1},
        r"weight 0 on keys that are not visible, got 0\.5",
    ),
    "n = 0": (GOOD, {"n": 0}, r"n: expected 1 to 3 visible keys a row, got 0"),
    "n negative": (GOOD, {"n": -1}, r"n: expected 1 to 3 visible keys a row, got -1"),
    "n too large": (GOOD, {"n": 4}, r"n: expected 1 to 3 visible keys a row, got 4"),
    "n too large in one row": ([GOOD, GOOD], {"n": [3, 7]}, r"n: expected 1 to 3 visible keys a row, got 7"),
    "n is a float": (GOOD, {"n": 3.0}, r"n: expected whole numbers of visible keys, got torch\.float\d+"),
    "nothing visible": (GOOD, {"mask": [False] * 3}, r"mask: expected 1 to 3 visible keys a row, got 0"),
    "n and mask": (GOOD, {"n": 3, "mask": [True] * 3}, r"n, mask: expected one of them, got both"),
}


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize(("pi", "visible", "words"), REFUSED_VISIBLE.values(), ids=REFUSED_VISIBLE)
def test_refuses_visible_keys(statistic: Statistic, pi: Any, visible: dict[str, Any], words: str) -> None:
    """A wrong statement of the visible keys is refused by one sentence that names the argument and the value."""
    with pytest.raises(ValueError, match=words):
        statistic(pi, **visible)


@pytest.mark.parametrize(
    ("dtype", "miss", "accepted"),
    [
        (torch.float64, 2e-4, False),
        (torch.float32, 2e-4, False),
        (torch.float16, 5e-3, True),
        (torch.float16, 3e-2, False),
        (torch.bfloat16, 1.5e-2, True),
        (torch.bfloat16, 4e-2, False),
    ],
)
def test_tolerance_follows_the_precision(dtype: torch.dtype, miss: float, accepted: bool) -> None:
    """The sum may miss 1 by 1e-4 in float32 and float64, 1e-2 in float16, 2e-2 in bfloat16, and no more."""
    pi = torch.tensor([0.5, 0.5 - miss], dtype=torch.float64).to(dtype)
    if accepted:
        assert check_rows(pi)[0].sum().item() == pytest.approx(1, abs=1e-15)
    else:
        with pytest.raises(ValueError, match="sum to 1 over the last axis"):
            check_rows(pi)


@pytest.mark.parametrize(("statistic", "what"), [(kl_selectivity, "KL"), (susceptibility, "chi")])
@pytest.mark.parametrize(("pi", "n"), [([1.0], None), ([[1.0, 0.0], [0.5, 0.5]], [1, 2])])
def test_single_visible_key_cannot_be_normalised(statistic: Statistic, what: str, pi: Any, n: Any) -> None:
    """n = 1 makes log n = 0: the refusal says so, and says what to do."""
    with pytest.raises(ValueError, match=rf"normalised {what} divides by log n.*normalized=False"):
        statistic(pi, n=n)
