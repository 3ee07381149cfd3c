"""The likelihood-ratio test of a row against uniform: exact small cases and the identities behind Chernoff-Stein."""

from itertools import combinations_with_replacement
from math import factorial, prod

import numpy as np
import pytest
from scipy.stats import norm

from helpers.diagnostics import discrimination
from helpers.diagnostics.discrimination import draws_needed, expected_draws, false_alarm, log_likelihood_ratios
from helpers.diagnostics.rows import kl_selectivity, susceptibility

ROW = np.array([0.6, 0.3, 0.1])
TIE = np.array([0.5, 0.5, 0.0, 0.0])


def exact_outcomes(pi, draws):
    """(L, P_pi, P_u) of every multiset of draws, by enumeration."""
    for sample in combinations_with_replacement(range(len(pi)), draws):
        counts = np.bincount(sample, minlength=len(pi))
        ways = factorial(draws) // prod(factorial(c) for c in counts)
        yield counts @ np.log(pi * len(pi)), ways * np.prod(pi**counts), ways * len(pi) ** -draws


def exact_false_alarm(pi, draws, miss):
    """The smallest P_u(L >= t) with P_pi(L < t) <= miss."""
    outcomes = np.array(sorted(exact_outcomes(pi, draws)))
    below = np.append(0, np.cumsum(outcomes[:, 1])[:-1])
    first = np.flatnonzero(below <= miss + 1e-12)[-1]
    return outcomes[outcomes[:, 0] >= outcomes[first, 0] - 1e-12, 2].sum()


def test_mean_and_variance():
    """Under pi, L / N has mean KL(pi || u), and var(L) / N = Var_pi(log pi)."""
    ratios = log_likelihood_ratios(ROW, 30, trials=50_000, seed=1)
    assert ratios.mean() / 30 == pytest.approx(float(kl_selectivity(ROW, normalized=False)), abs=0.003)
    assert ratios.var() / 30 == pytest.approx(float(susceptibility(ROW, normalized=False)), abs=0.01)


def test_change_of_measure():
    """E_u[exp(L)] = 1 = E_pi[exp(-L)]: L is the log of a density."""
    assert np.exp(log_likelihood_ratios(ROW, 3, trials=200_000, under_null=True)).mean() == pytest.approx(1, abs=0.02)
    assert np.exp(-log_likelihood_ratios(ROW, 3, trials=200_000)).mean() == pytest.approx(1, abs=0.02)


def test_impossible_draw():
    """A token of weight 0 rules pi out: L = -inf, in a share 1 - 2^-N of uniform games for a 2-of-4 tie."""
    ratios = log_likelihood_ratios(TIE, 2, trials=40_000, under_null=True)
    assert np.isneginf(ratios).mean() == pytest.approx(0.75, abs=0.01)
    assert ratios[np.isfinite(ratios)] == pytest.approx(2 * np.log(2))


@pytest.mark.parametrize("draws", [5, 12])
def test_false_alarm_exactly(draws):
    """Importance sampling under pi gives the false alarm that enumerating all outcomes gives."""
    exact = exact_false_alarm(ROW, draws, 0.1)
    assert false_alarm(ROW, draws, miss=0.1, trials=100_000) == pytest.approx(exact, rel=0.03)


def test_tie_is_exact():
    """chi = 0: the false alarm of a k-way tie is (k/n)^N, and draws needed are log(1/delta) / KL, rounded up."""
    assert false_alarm(TIE, 40) == pytest.approx(2.0**-40)
    assert draws_needed(TIE, 1e-6) == 20
    assert expected_draws(np.log(2), 0.0, 2.0**-20) == pytest.approx(20)


def test_chernoff_stein_rate():
    """-log(false alarm) / N tends to KL(pi || u) from below, whatever the miss."""
    kl = float(kl_selectivity(ROW, normalized=False))
    for miss in (0.05, 0.4):
        rates = [-np.log(false_alarm(ROW, n, miss=miss)) / n for n in (100, 1000)]
        assert abs(rates[1] - kl) < abs(rates[0] - kl)
        assert rates[1] == pytest.approx(kl, rel=0.15)


@pytest.mark.parametrize("delta", [1e-6, 1e-24])
def test_correction(delta):
    """The finite-size formula with chi predicts the simulated draws to a few per cent."""
    pi = np.random.default_rng(5).dirichlet(np.full(8, 5.0))
    kl, chi = (float(f(pi, normalized=False)) for f in (kl_selectivity, susceptibility))
    assert draws_needed(pi, delta) == pytest.approx(expected_draws(kl, chi, delta), rel=0.05)
    assert expected_draws(kl, chi, delta) > expected_draws(kl, 0.0, delta) == pytest.approx(-np.log(delta) / kl)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("miss", [0.05, 0.3])
def test_bisection_ends_where_false_alarm_crosses(miss, seed):
    """false_alarm(N) <= delta < false_alarm(N - 1), with the miss, the trials and the seed that were given."""
    options = {"miss": miss, "trials": 400, "seed": seed}
    needed = draws_needed(ROW, 1e-5, **options)
    assert false_alarm(ROW, needed, **options) <= 1e-5 < false_alarm(ROW, needed - 1, **options)


@pytest.mark.parametrize("answer", [1, 2, 11, 16, 17])
def test_doubling_then_bisection(answer, monkeypatch):
    """N = 1, 2, 4, ... until one does, then halves of what is left, every one with the same miss, trials and seed."""
    asked = []

    def alarm(pi, draws, **options):
        asked.append((draws, options))
        return 0.0 if draws >= answer else 1.0

    monkeypatch.setattr(discrimination, "false_alarm", alarm)
    options = {"miss": 0.2, "trials": 33, "seed": 4}
    assert draws_needed(ROW, 0.5, **options) == answer
    assert all(given == options for _, given in asked)
    doubled = [2**k for k in range(6) if 2**k < 2 * answer]
    assert [draws for draws, _ in asked][: len(doubled)] == doubled
    assert len(asked) <= 2 * len(doubled)


@pytest.mark.parametrize("trials", [2, 11, 40])
@pytest.mark.parametrize("miss", [0.0, 0.07, 0.1, 0.5])
def test_threshold_is_the_lower_quantile(miss, trials):
    """t is the game that a share ``miss`` of the others lies below, rounded down: misses stay at or under the level."""
    ratios = np.sort(log_likelihood_ratios(ROW, 25, trials=trials, seed=6))
    threshold = ratios[int(np.floor(miss * (trials - 1) + 1e-9))]
    expected = np.exp(-ratios[ratios >= threshold]).sum() / trials
    assert (ratios < threshold).mean() <= miss
    assert false_alarm(ROW, 25, miss=miss, trials=trials, seed=6) == pytest.approx(expected, rel=1e-12)


def test_games_of_equal_evidence_tie():
    """L is rounded to 1e-9 nats, not finer and not coarser; a row of whole numbers is a row."""
    ratios = log_likelihood_ratios(ROW, 9, trials=500)
    assert np.array_equal(ratios, ratios.round(9))
    assert not np.array_equal(ratios, ratios.round(8))
    certain = log_likelihood_ratios([1, 0], 3, trials=400, under_null=True)
    assert set(certain.round(6)) == {-np.inf, (3 * np.log(2)).round(6)}


@pytest.mark.parametrize("draws", [1, 15, 16, 17, 20])
def test_delta_that_is_just_met(draws):
    """A tie of k in n has false alarm (k/n)^N exactly: N draws do for that delta, and one more is needed below it."""
    delta = false_alarm(TIE, draws)
    assert draws_needed(TIE, delta) == draws
    assert draws_needed(TIE, np.nextafter(delta, 0)) == draws + 1


@pytest.mark.parametrize("miss", [0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("kl", [0.01, 0.3, 2.0])
@pytest.mark.parametrize("chi", [1e-6, 0.2, 3.0])
@pytest.mark.parametrize("delta", [0.5, 1e-3, 1e-30])
def test_expected_draws_solve_their_equation(delta, chi, kl, miss):
    """log(1/delta) = N KL - q sqrt(N chi) + max(log(2 pi N chi)/2 + q^2/2, 0), at the N that is given."""
    n = expected_draws(kl, chi, delta, miss=miss)
    q = -norm.ppf(miss)
    density = max(np.log(2 * np.pi * n * chi) / 2 + q**2 / 2, 0)
    terms = [n * kl, q * np.sqrt(n * chi), density, np.log(delta)]
    assert n * kl - q * np.sqrt(n * chi) + density + np.log(delta) == pytest.approx(0, abs=1e-8 * np.abs(terms).sum())


def test_same_seed_same_answer():
    """The simulation is a function of its seed."""
    assert false_alarm(ROW, 50, seed=3) == false_alarm(ROW, 50, seed=3) != false_alarm(ROW, 50, seed=4)


def test_refusals():
    """Bad input is refused by name."""
    with pytest.raises(ValueError, match="delta"):
        draws_needed(ROW, 1.0)
    with pytest.raises(ValueError, match="uniform"):
        draws_needed(np.full(4, 0.25), 0.01)
    with pytest.raises(ValueError, match="sum to 1"):
        false_alarm([0.5, 0.4], 10)
