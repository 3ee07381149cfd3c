"""From what was measured to the tables that ship: pure functions, by the protocol's rules (KNOB.md)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from helpers.heads import Head, head_index
from helpers.knob.directions import knob_ratio
from helpers.knob.lengths import length_slopes
from helpers.measured.knob.shipped import KINDS, LENGTHS, PARTS
from helpers.statistics.pairs import paired_tests
from helpers.statistics.ranks import rank_correlation

#: The predictors of section 2, and the one that was named in advance.
PREDICTORS = (
    "chi", "chi x attribution", "chi x magnitude", "chi x value spread", "output response", "direct response", "layer",
)  # fmt: skip
NAMED_PREDICTOR = "chi x value spread"


def matched_heads(
    causal: Bool[np.ndarray, "layer head"], kl: Float[np.ndarray, "layer head"]
) -> list[tuple[Head, Head]]:
    """For each causal head one that is not: of the same layer, nearest in KL, each used once; of the nearest layer where none is left.

    Causal heads come in reading order; of two layers equally near the earlier one is taken.
    """
    free = {Head(int(layer), int(head)) for layer, head in np.argwhere(~causal)}
    pairs = []
    for one in (Head(int(layer), int(head)) for layer, head in np.argwhere(causal)):
        if not free:
            break
        best = min(free, key=lambda other: (abs(other.layer - one.layer), other.layer, abs(kl[other] - kl[one]), other))
        free.remove(best)
        pairs.append((one, best))
    return pairs


def bootstrap_mean(values: Float[np.ndarray, "sample ..."]) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval of the mean over the first axis, 2,000 draws, seed 0."""
    found = stats.bootstrap(
        (values,), np.mean, axis=0, vectorized=True, n_resamples=2000, batch=100, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return found.low, found.high


def correlation_table(slopes: pd.DataFrame) -> pd.DataFrame:
    """How each predictor goes with the size of the slope."""
    found = [rank_correlation(slopes[name], slopes.slope.abs(), slopes.layer) for name in PREDICTORS]
    return pd.DataFrame([{"predictor": name, **vars(one)} for name, one in zip(PREDICTORS, found, strict=True)])


def turned_table(
    pairs: Sequence[tuple[Head, Head]], betas: Sequence[float], ld: Float[np.ndarray, "head beta prompt"]
) -> pd.DataFrame:
    """Effects of turning each head of the pairs (the causal one, then the matched one); beta = 1 among the settings."""
    heads = [head for pair in pairs for head in pair]
    plain = ld[:, [*betas].index(1.0)]
    others = [i for i, beta in enumerate(betas) if beta != 1]
    active = ld[:, others].transpose(2, 0, 1)
    tests = paired_tests(active, np.broadcast_to(plain.T[:, :, None], active.shape))
    n = len(others)
    row, setting = np.divmod(np.arange(len(tests)), n)
    partners = [str(pair[1 - k]) for pair in pairs for k in (0, 1)]
    return pd.DataFrame(
        {
            "layer": [heads[i].layer for i in row],
            "head": [heads[i].head for i in row],
            "kind": np.where(row % 2 == 0, "causal", "matched"),
            "partner": [partners[i] for i in row],
            "beta": [betas[others[k]] for k in setting],
            "plain": plain.mean(-1)[row],
            "ld": active.mean(0).ravel(),
            "effect": tests["shift"],
            **{name: tests[name] for name in ("low", "high", "p", "q")},
        }
    )


def loss_table(
    slope: Float[np.ndarray, "stretch layer head"], turn: Float[np.ndarray, "layer head d_head d_head"]
) -> pd.DataFrame:
    """Slopes of the loss, a t test of each over stretches, and R."""
    flat = slope.reshape(len(slope), -1)
    low, high = bootstrap_mean(flat)
    p = stats.ttest_1samp(flat, 0.0, axis=0).pvalue
    return head_index(*slope.shape[1:]).assign(
        slope=flat.mean(0), low=low, high=high, p=p, q=stats.false_discovery_control(p),
        trace=np.trace(turn, axis1=-2, axis2=-1).ravel(), norm=np.sqrt(np.square(turn).sum((-2, -1))).ravel(),
        ratio=knob_ratio(turn).ravel(),
    )  # fmt: skip


def null_table(drawn: dict[str, Float[np.ndarray, "draw layer head"]]) -> pd.DataFrame:
    """Medians over heads of each draw, and quantiles over all heads and draws, of the trained and the random model."""
    n = len(drawn[""])
    found: dict[str, np.ndarray] = {"draw": np.arange(n)}
    for prefix, ratios in drawn.items():
        found[f"{prefix}median"] = np.median(ratios.reshape(n, -1), axis=1)
    found["ratio"] = np.quantile(drawn[""], (np.arange(n) + 0.5) / n)
    return pd.DataFrame(found)


def curvature_heads(loss: pd.DataFrame) -> list[tuple[Head, str]]:
    """The six heads with the largest \\|slope\\|, and six drawn at random from the others (seed 0)."""
    order = loss.slope.abs().sort_values(ascending=False).index
    drawn = np.random.default_rng(0).choice(np.sort(order[6:]), 6, replace=False)
    rows = [(i, "largest slope") for i in order[:6]] + [(i, "drawn") for i in drawn]
    return [(Head(int(loss.layer[i]), int(loss["head"][i])), group) for i, group in rows]


def curvature_table(
    heads: Sequence[tuple[Head, str]], betas: Sequence[float], losses: Float[np.ndarray, "head beta stretch"]
) -> pd.DataFrame:
    """Loss at every beta, its change from beta = 1, and where it is smallest."""
    change = losses - losses[:, [[*betas].index(1.0)]]
    low, high = bootstrap_mean(change.transpose(2, 0, 1))
    mean = losses.mean(-1)
    row, setting = np.divmod(np.arange(mean.size), len(betas))
    return pd.DataFrame(
        {
            "layer": [heads[i][0].layer for i in row],
            "head": [heads[i][0].head for i in row],
            "group": [heads[i][1] for i in row],
            "beta": np.asarray(betas)[setting],
            "loss": mean.ravel(),
            "change": change.mean(-1).ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
            "best": (mean == mean.min(1, keepdims=True)).ravel(),
        }
    )


def length_table(
    parts: Float[np.ndarray, "stretch kind n layer head part"], weight: Float[np.ndarray, "stretch kind n layer head"]
) -> pd.DataFrame:
    """Slopes against log n of every head, kind and part."""
    tables = []
    for i, kind in enumerate(KINDS):
        for k, part in enumerate(PARTS):
            table = length_slopes(parts[:, i, :, :, :, k].astype(float), LENGTHS)
            table.insert(2, "kind", kind)
            table.insert(3, "part", part)
            tables.append(table.assign(weight=weight[:, i, -1].astype(float).mean(0).ravel()))
    return pd.concat(tables, ignore_index=True)
