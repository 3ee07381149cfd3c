"""The knob in pictures: how far first order reaches, and what turns the answer. Tables are those of `helpers.measured.MeasuredKnob`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from helpers.heads import Head, HeadLike, head_names
from helpers.knob.response import GOOD
from helpers.plots.style import BLACK, BLUE, GREY, ORANGE, VERMILION, label_points

#: Colours of heads that cause the answer and of those beside them, of the real model and of the demo.
CAUSAL, OTHERS, REAL, DEMO = VERMILION, GREY, BLUE, ORANGE


def plot_tangents(ax: Axes, response: pd.DataFrame, reach: pd.DataFrame, heads: Iterable[HeadLike]) -> Axes:
    """KL(beta) of some heads in the running model, and the straight line that chi foretells from beta = 1.

    Args:
        response, reach: of a `MeasuredKnob`.
        heads: each is a colour, in order.
    """
    for head, colour in zip(heads, (BLUE, ORANGE, VERMILION, BLACK), strict=False):
        here = _of(response, head)
        [now] = _of(reach, head).itertuples()
        around = pd.concat([here, pd.DataFrame([{"beta": 1.0, "kl": now.kl, "predicted": now.kl}])]).sort_values("beta")
        ax.plot(around.beta, around.kl, "o-", color=colour, ms=4, label=str(Head(*head)))
        ax.plot(around.beta, around.predicted, "--", color=colour, lw=1)
    ax.axvline(1, color=GREY, lw=0.8, ls=":")
    ax.set(xlabel="β", ylabel="mean KL at END (nats)")
    return ax


def plot_response_errors(ax: Axes, response: pd.DataFrame, *, colour: str = REAL, limit: float = GOOD) -> Axes:
    """Error of first order over heads at each beta: median, middle half and middle nine tenths; a dashed line at the limit."""
    quantiles = {share: response.groupby("beta").error.quantile(share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)}
    betas = quantiles[0.5].index
    places = np.arange(len(betas))
    ax.vlines(places, quantiles[0.05], quantiles[0.95], color=colour, lw=1)
    ax.vlines(places, quantiles[0.25], quantiles[0.75], color=colour, lw=6, alpha=0.5)
    ax.plot(places, quantiles[0.5], "o", color=colour, ms=6)
    ax.axhline(limit, color=BLACK, lw=0.8, ls="--")
    ax.set_xticks(places, [f"{beta:g}" for beta in betas])
    ax.set(xlabel="β", ylabel="error / change of KL", yscale="log")
    ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    return ax


def plot_reach(ax: Axes, reach: pd.DataFrame, *, colour: str = REAL, label: str | None = None) -> Axes:
    """Share of heads for which first order is good all the way from beta = 1 to each beta; beta on an axis of log(1 + beta)."""
    known = reach[reach.resolved]
    low, high = np.sort(known.reach_low), np.sort(known.reach_high)
    down, up = np.linspace(0, 1, 201), np.linspace(1, 8, 701)
    share = [
        np.searchsorted(low, down, side="right") / len(low),
        1 - np.searchsorted(high, up, side="left") / len(high),
    ]
    ax.plot(np.log1p(np.concatenate([down, up])), np.concatenate(share), color=colour, label=label)
    ax.axvline(np.log1p(1), color=GREY, lw=0.8, ls=":")
    _beta_ticks(ax, [0, 0.5, 1, 2, 4, 8])
    ax.set(ylabel="share of heads", ylim=(0, 1.02))
    return ax


def plot_predictor(ax: Axes, slopes: pd.DataFrame, predictor: str, *, name: int = 8) -> Axes:
    """|d LD / d beta| of every head against a predictor, both on logarithmic axes; causal heads in colour.

    Args:
        slopes: of a `MeasuredKnob`.
        predictor: one of its columns.
        name: how many of the largest slopes get their name.
    """
    size = slopes.slope.abs()
    for causal, colour, label in ((False, OTHERS, "other heads"), (True, CAUSAL, "causal heads")):
        some = slopes.causal == causal
        ax.scatter(slopes[predictor][some], size[some], s=16 + 14 * causal, color=colour, lw=0, alpha=0.7, label=label)
    ax.set(xscale="log", yscale="log", xlabel=predictor, ylabel="|d LD / d β| (logits)")
    top = slopes.loc[size.nlargest(name).index]
    _name(ax, top[predictor], top.slope.abs(), head_names(top), [CAUSAL if one else BLACK for one in top.causal])
    return ax


def plot_predictor_correlations(ax: Axes, correlations: pd.DataFrame, *, named: str, limit: float = 0.5) -> Axes:
    """Rank correlation of each predictor with |slope|: within layers with its interval, over all heads as a diamond.

    Args:
        correlations: of a `MeasuredKnob`; the grey bars are the middle 95 % of permutations within layers.
        named: the predictor that was named in advance, in colour.
        limit: what its interval is held against, dashed.
    """
    order = correlations[::-1].reset_index(drop=True)
    places = np.arange(len(order))
    ax.hlines(places, order.null_low, order.null_high, color=GREY, lw=9, alpha=0.3, label="shuffled within layers")
    for y, row in order.iterrows():
        colour = VERMILION if row.predictor == named else BLUE
        ax.plot([row.within_low, row.within_high], [y, y], color=colour, lw=2)
        ax.plot(row.within, y, "o", color=colour, ms=7, label="within layers" if y == places[-1] else None)
        ax.plot(row.rho, y, "D", mfc="none", mec=colour, ms=6, label="over all heads" if y == places[-1] else None)
    ax.axvline(limit, color=BLACK, lw=0.8, ls="--")
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set_yticks(places, order.predictor)
    ax.set(xlabel="rank correlation with |d LD / d β|")
    return ax


def plot_turned_answers(ax: Axes, turned: pd.DataFrame, *, colour: str, name: int = 4) -> Axes:
    """Change of the logit difference with beta, a line a head; beta on an axis of log(1 + beta).

    Args:
        turned: rows of a `MeasuredKnob`'s ``turned``; a filled dot where q < 0.05.
        name: how many of the largest changes get their head's name.
    """
    for _, one in turned.sort_values("beta").groupby(["layer", "head"]):
        line = pd.concat([one, pd.DataFrame([{"beta": 1.0, "effect": 0.0, "q": 1.0}])]).sort_values("beta")
        ax.plot(np.log1p(line.beta), line.effect, color=colour, lw=1, alpha=0.7)
        sure = line[line.q < 0.05]
        ax.plot(np.log1p(sure.beta), sure.effect, ".", color=colour, ms=6)
    ax.axhline(0, color=BLACK, lw=0.8)
    _beta_ticks(ax, [0, 0.5, 1, 2, 4])
    ends = turned.loc[turned.groupby(["layer", "head"]).effect.apply(lambda effect: effect.abs().idxmax())]
    top = ends.loc[ends.effect.abs().nlargest(name).index]
    _name(ax, np.log1p(top.beta), top.effect, head_names(top), [BLACK] * len(top))
    return ax


def _of(table: pd.DataFrame, head: HeadLike) -> pd.DataFrame:
    layer, number = head
    return table[(table["layer"] == layer) & (table["head"] == number)]


def _beta_ticks(ax: Axes, betas: Sequence[float]) -> None:
    ax.set_xticks(np.log1p(betas), [f"{beta:g}" for beta in betas])
    ax.set_xlabel("β")


def _name(ax: Axes, x: pd.Series, y: pd.Series, names: Sequence[str], colours: Sequence[str]) -> None:
    points = list(zip(x.astype(float), y.astype(float), strict=True))
    label_points(ax, points, names, colours, near=(0, 0))
