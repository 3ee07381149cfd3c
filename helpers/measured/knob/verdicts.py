"""What the measurements say about the four predictions: holds, fails or undecided, by the protocol's rules (KNOB.md)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from helpers.knob.response import GOOD
from helpers.measured.knob.shipped import MeasuredKnob
from helpers.measured.knob.tables import NAMED_PREDICTOR

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
#: Temperatures at which linear response is to be good.
NEAR = (0.9, 1.1)
#: How near 1 or 0 a slope against log n must be, and how much of the variance log n must explain.
NEAR_SLOPE, EXPLAINED = 0.1, 0.9

Row = dict[str, object]


def response_verdict(response: pd.DataFrame, resolved: pd.Series) -> list[Row]:
    """Section 1: the median error over heads at beta = 0.9 and 1.1, each with a bootstrap interval over heads."""
    rows = []
    for beta in NEAR:
        error = response.error[np.isclose(response.beta, beta)].to_numpy()[resolved.to_numpy()]
        low, high = _median_interval(error)
        rows.append((beta, float(np.median(error)), low, high))
    good = all(value <= GOOD and high < GOOD for _, value, _, high in rows)
    verdict = HOLDS if good else FAILS if all(low > GOOD for *_, low, _ in rows) else UNDECIDED
    left_out = f"{int((~resolved).sum())} of {len(resolved)} heads left out"
    return [
        _row(1, f"chi predicts KL at beta = {beta:g}", value, low, high, GOOD, verdict,
             f"median error over heads {value:.3f} ({low:.3f} to {high:.3f}); {left_out}")
        for beta, value, low, high in rows
    ]  # fmt: skip


def slopes_verdict(correlations: pd.DataFrame) -> list[Row]:
    """Section 2: the within-layer correlation of the predictor that was named, against 0.5."""
    one = correlations.set_index("predictor").loc[NAMED_PREDICTOR]
    verdict = _against(one.within_low, one.within_high, 0.5)
    said = f"within-layer correlation {one.within:.2f} ({one.within_low:.2f} to {one.within_high:.2f}), p {one.p:.2g}; over all heads {one.rho:.2f}"
    question = f"{NAMED_PREDICTOR} predicts d LD / d beta"
    return [_row(2, question, one.within, one.within_low, one.within_high, 0.5, verdict, said)]


def optimum_verdict(loss: pd.DataFrame, null: pd.DataFrame) -> list[Row]:
    """Section 3: the median of R over heads against the 97.5 % point of that median along random directions."""
    value, (low, high) = float(loss.ratio.median()), _median_interval(loss.ratio.to_numpy())
    limit, middle = (float(null["median"].quantile(q)) for q in (0.975, 0.5))
    said = f"median of R {value:.2f} ({low:.2f} to {high:.2f} over heads); along random directions {middle:.2f}, 97.5 % point {limit:.2f}"
    return [_row(3, "beta = 1 is an optimum", value, low, high, limit, FAILS if value > limit else HOLDS, said)]


def sign_verdict(loss: pd.DataFrame) -> list[Row]:
    """Section 3: the share of negative slopes among heads with q < 0.05, with an exact binomial interval."""
    found = loss[loss.q < 0.05]
    negative, n = int((found.slope < 0).sum()), len(found)
    share, low, high = _share(negative, n)
    said = f"{negative} of {n} heads with q < 0.05 have a negative slope ({low:.2f} to {high:.2f})"
    return [_row(3, "slopes of the loss are negative", share, low, high, 0.5, _against(low, high, 0.5), said)]


def lengths_verdict(lengths: pd.DataFrame) -> list[Row]:
    """Section 4: the share of heads on natural text that the law describes, with an exact binomial interval."""
    one, zero = described(lengths[(lengths.kind == "natural") & (lengths.part == "kl")])
    n = len(one)
    share, low, high = _share(int((one | zero).sum()), n)
    said = f"{int((one | zero).sum())} of {n} heads ({low:.2f} to {high:.2f}): {int(one.sum())} with slope 1, {int(zero.sum())} with slope 0"
    return [_row(4, "the log n law describes heads", share, low, high, 0.5, _against(low, high, 0.5), said)]


def described(lengths: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Which rows the law describes: with slope 1, and with slope 0."""
    fits = lengths.r2 >= EXPLAINED
    return fits & ((lengths.slope - 1).abs() <= NEAR_SLOPE), fits & (lengths.slope.abs() <= NEAR_SLOPE)


def judge_tables(knob: MeasuredKnob) -> pd.DataFrame:
    """Every verdict that the shipped tables of a model allow, in the protocol's order."""
    judges: list[tuple[tuple[str, ...], Callable[[], list[Row]]]] = [
        (("response", "reach"), lambda: response_verdict(knob.response, knob.reach.resolved)),
        (("correlations",), lambda: slopes_verdict(knob.correlations)),
        (("loss", "null"), lambda: [*optimum_verdict(knob.loss, knob.null), *sign_verdict(knob.loss)]),
        (("lengths",), lambda: lengths_verdict(knob.lengths)),
    ]
    return pd.DataFrame([row for needs, judge in judges if all(map(knob.has, needs)) for row in judge()])


def _row(
    section: int, question: str, value: float, low: float, high: float, limit: float, verdict: str, numbers: str
) -> Row:
    return {
        "section": section, "question": question, "value": value, "low": low, "high": high, "limit": limit,
        "verdict": verdict, "numbers": numbers,
    }  # fmt: skip


def _against(low: float, high: float, limit: float) -> str:
    return HOLDS if low > limit else FAILS if high < limit else UNDECIDED


def _share(k: int, n: int) -> tuple[float, float, float]:
    """k of n with the interval of Clopper and Pearson; of nothing, any share is possible."""
    if not n:
        return float("nan"), 0.0, 1.0
    interval = stats.binomtest(k, n).proportion_ci(method="exact")
    return k / n, float(interval.low), float(interval.high)


def _median_interval(values: np.ndarray) -> tuple[float, float]:
    found = stats.bootstrap(
        (values,), np.median, vectorized=True, n_resamples=2000, batch=200, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
