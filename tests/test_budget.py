"""Softmax as the solution of the budget problem: optimality, the way from beta to rho and back, null distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import rel_entr, softmax
from strategies import SEEDS

from helpers.diagnostics.tempering import beta_for_budget, budget, budget_ceiling, tempered

Vector = NDArray[np.float64]

SCORES = np.array([1.5, -0.3, 0.2, 0.9, -2.0, 0.0])
NULL = np.array([0.1, 0.2, 0.3, 0.0, 0.15, 0.25])


def random_problem(seed: int, n: int) -> tuple[Vector, Vector]:
    """Scores and a null distribution."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=n), rng.dirichlet(np.ones(n))


def kl(pi: Vector, m: Vector | float) -> float:
    return float(rel_entr(pi, m).sum())


# pi_beta


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 3.0, 200.0])
def test_tempered_is_softmax(beta: float) -> None:
    """Against the uniform null pi_beta = softmax(beta z); beta = 0 gives u."""
    np.testing.assert_allclose(tempered(SCORES, beta), softmax(beta * SCORES), rtol=1e-12)
    np.testing.assert_allclose(tempered(SCORES, 0.0), np.full(6, 1 / 6), rtol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_tempered_against_a_null(beta: float) -> None:
    """pi_beta = m exp(beta z) / sum of the same; beta = 0 gives m back."""
    weights = NULL * np.exp(beta * SCORES)
    np.testing.assert_allclose(tempered(SCORES, beta, null=NULL), weights / weights.sum(), rtol=1e-12)


@pytest.mark.parametrize("visible", [1, 3, 6])
def test_null_with_zeros_is_a_causal_mask(visible: int) -> None:
    """A null that is uniform on the first keys and 0 behind them gives the softmax of the first scores, and exact 0."""
    null = np.repeat([1 / visible, 0.0], [visible, 6 - visible])
    pi = tempered(SCORES, 2.0, null=null)
    np.testing.assert_allclose(pi[:visible], softmax(2 * SCORES[:visible]), rtol=1e-12)
    assert (pi[visible:] == 0).all()
    assert budget(SCORES, 2.0, null=null) == pytest.approx(budget(SCORES[:visible], 2.0), abs=1e-14)


def test_geometric_null_is_a_position_bias() -> None:
    """m_i proportional to exp(-s d_i) adds ALiBi's bias -s d_i to the scores."""
    distance, slope = np.arange(6)[::-1], 0.5
    pi = tempered(SCORES, 2.0, null=softmax(-slope * distance))
    np.testing.assert_allclose(pi, softmax(2 * SCORES - slope * distance), rtol=1e-12)


# rho(beta)


@pytest.mark.parametrize("null", [None, NULL], ids=["uniform", "null"])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 4.0])
def test_budget_is_kl_to_the_null(beta: float, null: Vector | None) -> None:
    """rho(beta) = beta <z> - log sum m exp(beta z): the log-partition form, which contains no log pi."""
    m = np.full(6, 1 / 6) if null is None else null
    weights = m * np.exp(beta * SCORES)
    expected = beta * (weights @ SCORES) / weights.sum() - math.log(weights.sum())
    assert budget(SCORES, beta, null=null) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("null", [None, NULL], ids=["uniform", "null"])
@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0, 2.0, 5.0])
def test_budget_grows_at_beta_times_variance(beta: float, null: Vector | None) -> None:
    """d rho / d beta = beta Var_{pi_beta}(z), by a central difference."""
    h, pi = 1e-5, tempered(SCORES, beta, null=null)
    slope = (budget(SCORES, beta + h, null=null) - budget(SCORES, beta - h, null=null)) / (2 * h)
    assert slope == pytest.approx(beta * (pi @ SCORES**2 - (pi @ SCORES) ** 2), rel=1e-6)


@given(SEEDS, st.integers(2, 60), st.booleans())
def test_budget_increases_from_zero_to_the_ceiling(seed: int, n: int, uniform: bool) -> None:
    """rho(0) = 0, rho increases strictly, and rho(beta) -> budget_ceiling for large beta."""
    z, m = random_problem(seed, n)
    null = None if uniform else m
    values = [budget(z, beta, null=null) for beta in (0.0, 0.1, 0.2, 0.5, 1.0)]
    assert values[0] == pytest.approx(0, abs=1e-14)
    assert (np.diff(values) > 0).all()
    assert values[-1] < budget_ceiling(z, null=null)
    assert budget(z, 1e9, null=null) == pytest.approx(budget_ceiling(z, null=null), abs=1e-12)


@pytest.mark.parametrize(("ties", "n"), [(1, 2), (1, 15), (2, 15), (5, 7), (15, 15)])
def test_ceiling_counts_ties(ties: int, n: int) -> None:
    """Uniform null: the ceiling is log(n / number of largest scores)."""
    z = np.repeat([3.0, -1.0], [ties, n - ties])
    assert budget_ceiling(z) == pytest.approx(math.log(n / ties), abs=1e-14)


def test_ceiling_of_a_null_ignores_forbidden_keys() -> None:
    """-log m(argmax z), the argmax taken where m > 0: the best key counts only if the null allows it."""
    null = np.array([0.0, 0.2, 0.2, 0.6])
    assert budget_ceiling([9.0, 1.0, 1.0, 0.0], null=null) == pytest.approx(-math.log(0.4), rel=1e-14)


# From rho back to beta


@given(SEEDS, st.integers(2, 60), st.floats(1e-3, 20.0), st.booleans())
def test_beta_for_budget_inverts_budget(seed: int, n: int, beta: float, uniform: bool) -> None:
    """rho(beta_for_budget(rho)) = rho wherever rho is below the ceiling."""
    z, m = random_problem(seed, n)
    null = None if uniform else m
    rho = min(budget(z, beta, null=null), 0.999 * budget_ceiling(z, null=null))
    assert budget(z, beta_for_budget(z, rho, null=null), null=null) == pytest.approx(rho, abs=1e-12)


@pytest.mark.parametrize("beta", [0.2, 1.0, 3.0])
def test_beta_comes_back(beta: float) -> None:
    """beta_for_budget(rho(beta)) = beta."""
    assert beta_for_budget(SCORES, budget(SCORES, beta)) == pytest.approx(beta, rel=1e-9)
    assert beta_for_budget(SCORES, budget(SCORES, beta, null=NULL), null=NULL) == pytest.approx(beta, rel=1e-9)


@given(SEEDS, st.integers(2, 60), st.booleans())
def test_no_budget_needs_beta_zero(seed: int, n: int, uniform: bool) -> None:
    """rho = 0 is in the accepted range [0, ceiling), and only beta = 0 spends it."""
    z, m = random_problem(seed, n)
    assert beta_for_budget(z, 0.0, null=None if uniform else m) == pytest.approx(0, abs=1e-6)


@given(SEEDS, st.integers(2, 60), st.sampled_from([1e-300, 1e-17, 1e-12, 1e-6]), st.booleans())
def test_tiny_budget_has_a_tiny_beta(seed: int, n: int, rho: float, uniform: bool) -> None:
    """rho(beta) -> beta^2 Var_m(z)/2 near 0: a budget in the accepted range has a beta, however small."""
    z, m = random_problem(seed, n)
    m = np.full(n, 1 / n) if uniform else m
    beta = math.sqrt(2 * rho / (m @ (z - m @ z) ** 2))
    assert beta_for_budget(z, rho, null=m) == pytest.approx(beta, rel=0.05, abs=1e-6 * max(1, beta / rho**0.5))


# Optimality


@pytest.mark.parametrize("seed", range(4))
def test_independent_solver_finds_the_same_row(seed: int) -> None:
    """max sum pi z subject to KL(pi || m) <= rho: SLSQP, told nothing of softmax, finds pi* of the same budget."""
    z, m = random_problem(seed, 6)
    rho = 0.5 * budget_ceiling(z, null=m)
    best = tempered(z, beta_for_budget(z, rho, null=m), null=m)
    constraints = [
        {"type": "eq", "fun": lambda pi: pi.sum() - 1, "jac": np.ones_like},
        {"type": "ineq", "fun": lambda pi: rho - kl(pi, m), "jac": lambda pi: -np.log(pi / m) - 1},
    ]
    options = {"ftol": 1e-12, "maxiter": 300}  # looser, SLSQP stops early near the simplex's faces
    bounds = [(1e-12, 1)] * 6
    found = minimize(lambda pi: -pi @ z, m, jac=lambda _: -z, constraints=constraints, bounds=bounds, options=options)
    assert kl(best, m) == pytest.approx(rho, abs=1e-12)
    assert kl(found.x, m) <= rho + 1e-9
    assert best @ z == pytest.approx(found.x @ z, abs=5e-5)
    np.testing.assert_allclose(best, found.x, atol=2e-3)


@given(SEEDS, st.integers(2, 30), st.floats(0.05, 0.95))
def test_no_feasible_row_does_better(seed: int, n: int, part: float) -> None:
    """Every pi with KL(pi || u) <= rho has sum pi z <= sum pi* z."""
    z, pi = random_problem(seed, n)
    rho = part * budget_ceiling(z)
    best = tempered(z, beta_for_budget(z, rho))
    feasible = pi if kl(pi, 1 / n) <= rho else tempered(np.log(pi), beta_for_budget(np.log(pi), rho))
    assert kl(feasible, 1 / n) <= rho + 1e-12
    assert feasible @ z <= best @ z + 1e-9


@given(SEEDS, st.integers(2, 60), st.floats(0.1, 5.0), st.booleans())
def test_gap_of_the_relaxed_objective(seed: int, n: int, beta: float, uniform: bool) -> None:
    """With L(pi) = sum pi z - KL(pi || m)/beta: L(pi*) - L(pi) = KL(pi || pi*)/beta for every pi."""
    z, m = random_problem(seed, n)
    m = np.full(n, 1 / n) if uniform else m
    best = tempered(z, beta, null=m)
    pi = np.random.default_rng(seed + 1).dirichlet(np.ones(n))
    gap = (best @ z - kl(best, m) / beta) - (pi @ z - kl(pi, m) / beta)
    assert gap == pytest.approx(kl(pi, best) / beta, abs=1e-11)


# Refusals


@pytest.mark.parametrize("function", [tempered, budget])
@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf])
def test_refuses_beta(function: Callable[[Vector, float], Any], beta: float) -> None:
    """beta must be a number >= 0: negative, NaN and infinite values are refused by name."""
    with pytest.raises(ValueError, match=f"beta: expected an inverse temperature.*got {beta}"):
        function(SCORES, beta)


REFUSED_SCORES = {
    "nan": [0.0, math.nan],
    "masked with -inf": [0.0, -math.inf],
    "matrix": [[0.0, 1.0]],
    "scalar": 1.0,
    "empty": [],
}


@pytest.mark.parametrize("z", REFUSED_SCORES.values(), ids=REFUSED_SCORES)
def test_refuses_scores(z: object) -> None:
    """Scores are a finite vector of at least one; a mask is said by the null, not by -inf."""
    for call in (lambda: tempered(z, 1.0), lambda: budget(z, 1.0), lambda: budget_ceiling(z)):
        with pytest.raises(
            ValueError, match=r"z: expected (finite scores, got (nan|-inf)|scores of shape \(n,\), got shape)"
        ):
            call()


REFUSED_NULLS = {
    "too short": [0.5, 0.5],
    "negative": [-0.5, 1.0, 0.5],
    "sum": [0.5, 0.5, 0.5],
    "zeros": [0.0, 0.0, 0.0],
    "nan": [math.nan, 0.5, 0.5],
}


@pytest.mark.parametrize("null", REFUSED_NULLS.values(), ids=REFUSED_NULLS)
def test_refuses_null(null: list[float]) -> None:
    """The null must be a distribution of z's length, in every function."""
    z = [0.0, 1.0, 2.0]
    calls = (
        lambda: tempered(z, 1.0, null=null),
        lambda: budget(z, 1.0, null=null),
        lambda: budget_ceiling(z, null=null),
        lambda: beta_for_budget(z, 0.1, null=null),
    )
    for call in calls:
        with pytest.raises(ValueError, match="null: expected a distribution over 3 keys"):
            call()


@pytest.mark.parametrize("rho", [-0.1, math.log(3), 5.0, math.nan])
def test_refuses_budgets_out_of_range(rho: float) -> None:
    """Three scores without ties can spend [0, log 3): what is outside is refused, and the range is told."""
    with pytest.raises(ValueError, match=rf"rho: expected a budget in \[0, 1\.099\) nats .*got {rho}"):
        beta_for_budget([0.0, 1.0, 2.0], rho)


@pytest.mark.parametrize("n", range(2, 16))
def test_refuses_constant_scores(n: int) -> None:
    """Constant z: every beta spends 0, so no budget, not even 0, has a beta of its own."""
    with pytest.raises(ValueError, match="rho: expected a budget in"):
        beta_for_budget(np.full(n, 0.7), 0.0)
