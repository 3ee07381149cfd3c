"""Numbers of one attention row, by name: whatever is listed in `SHAPES` is in every table, comparison and menu."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int64

from helpers.attention.record import AttentionRecord
from helpers.diagnostics.heads import diagnose, diagnose_sink
from helpers.diagnostics.plane import share_of_largest_chi

_PerPrompt = Float[np.ndarray, "prompt layer head"]


def key_counts(record: AttentionRecord) -> Int64[np.ndarray, "prompt layer head"]:
    """n of every row."""
    return record.visible().sum(-1).expand(record.rows.shape[:-1]).numpy()


def entropy_nats(record: AttentionRecord) -> _PerPrompt:
    """H(pi) = log n (1 - KL), in nats."""
    return np.asarray(np.log(key_counts(record)) * (1 - diagnose(record).kl))


def max_weight(record: AttentionRecord) -> _PerPrompt:
    """The largest weight of a row: the confidence of a head (Voita et al. 2019, arXiv:1905.09418)."""
    return record.rows.amax(-1).double().numpy()


def chi_given_kl(record: AttentionRecord) -> _PerPrompt:
    """chi as a share of the largest chi attainable at the row's KL (`share_of_largest_chi`)."""
    both, n = diagnose(record), key_counts(record)
    share = np.full(n.shape, np.nan)
    for size in np.unique(n[n > 1]):
        here = n == size
        share[here] = share_of_largest_chi(both.kl[here], both.chi[here], int(size))
    return share


#: name -> a function of a record of one query position, giving one number a prompt and head. NaN: not defined there.
SHAPES: dict[str, Callable[[AttentionRecord], _PerPrompt]] = {
    "KL": lambda record: diagnose(record).kl,
    "chi": lambda record: diagnose(record).chi,
    "entropy": entropy_nats,
    "max weight": max_weight,
    "BOS weight": lambda record: diagnose_sink(record).weight,
    "KL, sink part": lambda record: diagnose_sink(record).kl_sink,
    "KL, rest part": lambda record: diagnose_sink(record).kl_rest,
    "chi, sink part": lambda record: diagnose_sink(record).chi_between,
    "chi, rest part": lambda record: diagnose_sink(record).chi_within,
    "chi given KL": chi_given_kl,
}


def shape_shift(name: str, active: AttentionRecord, control: AttentionRecord) -> Float[np.ndarray, "layer head"]:
    """Mean of one of `SHAPES` over active prompts minus its mean over controls.

    Raises:
        ValueError: if there is no such number.
    """
    if name not in SHAPES:
        raise ValueError(f"name: expected one of {', '.join(SHAPES)}, got {name!r}")
    return np.asarray(SHAPES[name](active).mean(0) - SHAPES[name](control).mean(0))
