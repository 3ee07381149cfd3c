"""How many draws it takes to tell a row from the uniform one: the likelihood-ratio test behind the KL budget.

N tokens are drawn independently, all from a row pi or all from the uniform row u, and

    L = sum_t log(pi(x_t) / u(x_t))             (the log-likelihood ratio, nats)

decides: "not uniform" if L >= t. Two errors:

* miss: the draws came from pi, yet L < t. Held at or below a fixed level.
* false alarm: the draws came from u, yet L >= t. This is the one that decays, like exp(-N KL(pi || u)).

With u as null hypothesis, the false alarm is the type I error and the miss the type II error. Source: Cover & Thomas
2006, sec. 11.7-11.8 (Neyman-Pearson, Chernoff-Stein).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm


def log_likelihood_ratios(
    pi: ArrayLike, draws: int, *, trials: int, seed: int = 0, under_null: bool = False
) -> NDArray[np.float64]:
    """L of ``trials`` experiments of N = ``draws`` tokens each, drawn from pi (or, if ``under_null``, from u).

    Under pi, L has mean N KL(pi || u) and variance N Var_pi(log pi).

    Returns:
        shape ``(trials,)``, nats; -inf where u drew a token to which pi gives weight 0. Rounded to 1e-9 nats, so that
        games of equal evidence tie exactly, in whatever order their terms were added.
    """
    row = _row(pi)
    source = np.full_like(row, 1 / row.size) if under_null else row
    counts = np.random.default_rng(seed).multinomial(draws, source, size=trials)
    seen = row > 0
    ratios = counts[:, seen] @ np.log(row[seen] * row.size)
    return np.where(counts[:, ~seen].any(axis=-1), -np.inf, ratios.round(9))


def false_alarm(pi: ArrayLike, draws: int, *, miss: float = 0.1, trials: int = 20_000, seed: int = 0) -> float:
    """P_u(L >= t), the chance that N uniform draws pass as pi, with t set so that P_pi(L < t) <= ``miss``.

    Importance sampling: P_u(A) = E_pi[exp(-L) 1_A] for every event A inside the support of pi, so draws from pi
    measure a probability under u, however small, that counting could never reach.

    >>> round(-math.log2(false_alarm([0.5, 0.5, 0.0, 0.0], 40)), 6)  # every draw from pi is worth exactly log 2
    40.0
    """
    ratios = log_likelihood_ratios(pi, draws, trials=trials, seed=seed)
    threshold = np.quantile(ratios, miss, method="lower")
    return float(np.where(ratios >= threshold, np.exp(-ratios), 0.0).mean())


def draws_needed(pi: ArrayLike, delta: float, *, miss: float = 0.1, trials: int = 5_000, seed: int = 0) -> int:
    """The number N of draws at which `false_alarm` comes down to ``delta``, by bisection.

    L moves in steps, so the false alarm is not perfectly monotone in N, and it is a simulation: expect the answer to
    be good to a few per cent, not to the last draw.

    Raises:
        ValueError: if delta is outside (0, 1) or pi is uniform (no number of draws would do).
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta: expected a probability in (0, 1), got {delta}")
    if np.ptp(_row(pi)) == 0:
        raise ValueError("pi: expected a row that differs from uniform, got the uniform row")
    low, high = 0, 1
    while false_alarm(pi, high, miss=miss, trials=trials, seed=seed) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        passed = false_alarm(pi, middle, miss=miss, trials=trials, seed=seed) <= delta
        low, high = (low, middle) if passed else (middle, high)
    return high


def expected_draws(kl: float, chi: float, delta: float, *, miss: float = 0.1) -> float:
    """The N that solves log(1/delta) = N KL - q sqrt(N chi) + log(2 pi N chi)/2 + q^2/2: the line, corrected.

    L under pi is nearly normal, with mean N KL and variance N chi. So its ``miss`` quantile is t = N KL - q sqrt(N chi)
    (q: normal quantile of 1 - ``miss``), and P_u(L >= t) = E_pi[exp(-L) 1{L >= t}] is exp(-t) times the density of L
    at t (Strassen 1962), and never more than exp(-t): the density's terms count only where their sum is positive. Good
    for many draws and a row with many different weights; chi = 0 gives log(1/delta) / KL.

    Args:
        kl: KL(pi || u) in nats, > 0.
        chi: Var_pi(log pi) in nats^2.
        delta: the false-alarm probability asked for.

    >>> round(expected_draws(0.5, 0.0, math.exp(-3)), 9)
    6.0
    """
    line, q = -math.log(delta) / kl, float(norm.ppf(1 - miss))

    def excess(draws: float) -> float:
        density = (math.log(2 * math.pi * draws * chi) + q**2) / 2 if draws * chi > 0 else 0.0
        return draws * kl - q * math.sqrt(draws * chi) + max(density, 0.0) + math.log(delta)

    return float(brentq(excess, 0.0, 2 * line + 8 * (1 + q**2) * chi / kl**2))


def _row(pi: ArrayLike) -> NDArray[np.float64]:
    row = np.asarray(pi, dtype=float)
    if row.ndim != 1 or (row < 0).any() or not math.isclose(row.sum(), 1, abs_tol=1e-9):
        raise ValueError(f"pi: expected one row of weights >= 0 that sum to 1, got {row}")
    return row
