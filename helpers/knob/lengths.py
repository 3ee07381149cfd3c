"""KL of every head against the length of a text: does its row look at a fixed number of tokens, or spread?

KL(pi || u_n) = log n - H(pi):   slope 1 against log n where the entropy stays, slope 0 where it grows like log n
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from helpers.diagnostics.plane import split_sink
from helpers.diagnostics.rows import kl_selectivity
from helpers.heads import head_index
from helpers.models.forward import attention_rows
from helpers.models.model import LanguageModel


@dataclass(frozen=True)
class LengthRows:
    """KL of every head at the last of n tokens of one text, for several n, in nats.

    Attributes:
        lengths: the number of tokens up to each query.
        n: visible keys of each query, ``(n, layer)``; fewer than the length in a layer with local attention.
        kl: KL from the uniform row, ``(n, layer, head)``.
        sink: KL of "the first token or another", ``(n, layer, head)``; NaN where the first token isn't visible.
        rest: KL of the row over the other tokens times the weight on them; ``sink + rest`` = ``kl``.
        weight: the weight of the first token.
    """

    lengths: tuple[int, ...]
    n: Int[np.ndarray, "n layer"]
    kl: Float[np.ndarray, "n layer head"]
    sink: Float[np.ndarray, "n layer head"]
    rest: Float[np.ndarray, "n layer head"]
    weight: Float[np.ndarray, "n layer head"]


def kl_at_lengths(model: LanguageModel, ids: Int[Tensor, " token"], lengths: Sequence[int]) -> LengthRows:
    """KL and its sink part at the last of n tokens, for several n, from one forward pass over one text.

        KL = KL of (b, 1 - b) from (1/n, 1 - 1/n)  +  (1 - b) KL of the rest,   b the weight of the first token

    Causal attention lets token n see nothing of what follows, so that the row is that of the text cut there. No matrix
    of all queries and keys is made where the model has fused attention.

    Args:
        model: what `load_model` returns.
        ids: token ids of the text, BOS first.
        lengths: numbers of tokens, each at least 2 and at most as many as there are.

    Raises:
        ValueError: if a length does not fit.

    Source: the chain rule of relative entropy (Cover and Thomas, section 2.5); Fields 2026, post 1, for log n.
    """
    wrong = [n for n in lengths if not 2 <= n <= len(ids)]
    if wrong or not len(lengths):
        raise ValueError(
            f"lengths: expected lengths from 2 to the {len(ids)} tokens, got {wrong[0] if wrong else 'none'}"
        )
    found = attention_rows(model, ids[None].to(model.device), [[n - 1 for n in lengths]])
    parts = np.full((4, len(lengths), *found.rows.shape[1:3]), np.nan)
    for i in range(len(lengths)):
        for layer in range(parts.shape[2]):
            row, seen = found.rows[0, layer, :, i], found.visible[0, layer, i]
            parts[:, i, layer] = _parts(row / row.sum(-1, keepdim=True) if model.has_sinks else row, seen)
    return LengthRows(tuple(lengths), found.visible[0].sum(-1).T.numpy(), *parts)


def _parts(rows: Float[Tensor, "head key"], seen: Tensor) -> NDArray[np.float64]:
    """KL, its sink part, the rest, and the sink's weight, ``(4, head)``."""
    row = rows[:, seen]
    if row.shape[1] < 2 or not seen[0]:
        kl = kl_selectivity(row, normalized=False)
        nan = torch.full_like(kl, torch.nan)
        return torch.stack([kl, nan, nan, nan]).numpy()
    split = split_sink(row)
    return torch.stack([split.kl_sink + split.kl_rest, split.kl_sink, split.kl_rest, split.weight]).numpy()


def length_slopes(
    kl: Float[np.ndarray, "stretch n layer head"],
    lengths: Sequence[int],
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Slope against log n of the mean over stretches, by least squares, with a bootstrap interval over stretches.

        slope = sum_n (x_n - mean x) KL_n / sum_n (x_n - mean x)^2,   x_n = log n

    1: the row keeps its entropy, whatever the length; 0: the entropy grows like log n.

    Args:
        kl: nats, KL or one of its parts.
        lengths: n of each entry of the second axis.

    Returns:
        One row a head: layer, head, slope, low, high (percentile interval), r2 (the share of the variance over lengths that
        log n explains; 1 where there is none), first and last (the mean at the first and last length, nats).

    Raises:
        ValueError: if there are fewer than two stretches or three lengths, or a value is not finite.
    """
    if kl.shape[0] < 2 or kl.shape[1] != len(lengths) or len(lengths) < 3:
        raise ValueError(f"kl: expected at least 2 stretches at {len(lengths)} >= 3 lengths, got shape {kl.shape}")
    if not np.isfinite(kl).all():
        raise ValueError(f"kl: expected finite values, got {np.count_nonzero(~np.isfinite(kl))} others")
    flat = np.asarray(kl, dtype=float).reshape(*kl.shape[:2], -1)
    x = np.log(np.asarray(lengths, dtype=float))
    step = (x - x.mean()) / np.square(x - x.mean()).sum()
    slopes, mean = np.einsum("n,snh->sh", step, flat), flat.mean(0)
    interval = stats.bootstrap(
        (slopes,), np.mean, axis=0, vectorized=True, confidence_level=level, n_resamples=n_resamples, batch=200,
        method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    columns = {"slope": slopes.mean(0), "low": interval.low, "high": interval.high, "r2": _explained(x, mean)}
    return head_index(*kl.shape[2:]).assign(**columns, first=mean[0], last=mean[-1])


def _explained(x: NDArray[np.float64], y: Float[np.ndarray, "n head"]) -> NDArray[np.float64]:
    """Share of the variance of each column that a straight line in x explains; 1 where there is no variance."""
    line = np.polynomial.polynomial.polyfit(x, y, 1)
    left = np.square(y - (line[0] + np.outer(x, line[1]))).sum(0)
    total = np.square(y - y.mean(0)).sum(0)
    return np.asarray(1 - np.divide(left, total, out=np.zeros_like(total), where=total > 1e-20))
