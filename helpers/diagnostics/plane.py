"""The geometry of the (KL, chi) plane: what is attainable, what is typical, and what a sink does."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import kl_div
from torch import Tensor

from helpers.diagnostics.rows import check_rows, kl_selectivity, susceptibility


def one_favourite(p: ArrayLike, n: int) -> NDArray[np.float64]:
    """Rows with weight p on one key and (1 - p)/(n - 1) on each other: the rows of largest chi at their KL.

    Returns:
        shape ``(*p.shape, n)``.

    Raises:
        ValueError: if n < 2 or p is outside [1/n, 1].
    """
    weight = np.asarray(p, dtype=float)
    if n < 2:
        raise ValueError(f"n: expected at least 2 visible keys, got {n}")
    usable = (weight >= 1 / n - 1e-12) & (weight <= 1)
    if not usable.all():
        bad = weight[~usable].flat[0]
        raise ValueError(f"p: expected the favourite's weight in [1/n, 1] = [{1 / n:.4g}, 1], got {bad:.4g}")
    rest = np.repeat(((1 - weight) / (n - 1))[..., None], n - 1, axis=-1)
    return np.concatenate([weight[..., None], rest], axis=-1)


def upper_curve(n: int, points: int = 400) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The upper edge of the attainable region: (KL, chi), normalised, of `one_favourite` rows for p from 1/n to 1.

    For fixed n and KL no row has a larger chi (found by numerical search; related: the varentropy bound of
    Reeb & Wolf 2015, IEEE Trans. Inf. Theory 61(3)). chi rises and falls along the curve.

    Raises:
        ValueError: if n < 2.
    """
    if n < 2:
        raise ValueError(f"n: expected at least 2 visible keys, got {n}")
    p = np.linspace(1 / n, 1, points)  # two distinct weights a row: no need to build rows of n keys
    rest = (1 - p) / (n - 1)
    kl = (kl_div(n * p, 1) + (n - 1) * kl_div(n * rest, 1)) / n
    chi = p * (1 - p) * np.log(p / np.maximum(rest, 1e-300)) ** 2
    return kl / np.log(n), chi / np.log(n) ** 2


def largest_chi(kl: float, n: int) -> float:
    """The largest normalised chi attainable at a normalised KL, for n visible keys.

    >>> round(largest_chi(0.566, 15), 4)
    0.3576

    Raises:
        ValueError: if kl is outside [0, 1] or n < 2.
    """
    if not 0 <= kl <= 1:
        raise ValueError(f"kl: expected a normalised KL in [0, 1], got {kl}")
    if n < 2:
        raise ValueError(f"n: expected at least 2 visible keys, got {n}")

    def excess(p: float) -> float:
        return float(kl_selectivity(one_favourite(p, n))) - kl

    if kl == 1 or excess(1 / n) >= 0:
        return 0.0
    p = brentq(excess, 1 / n, 1.0, xtol=1e-14)
    return float(susceptibility(one_favourite(p, n)))


def fold(n: int) -> float:
    """The normalised KL at which the upper curve has its largest chi: below it chi can rise with KL, above it falls.

    >>> round(fold(15), 3)
    0.566
    """
    kl, chi = upper_curve(n, points=4001)
    return float(kl[chi.argmax()])


def share_of_largest_chi(kl: ArrayLike, chi: ArrayLike, n: int) -> NDArray[np.float64]:
    """chi given KL: chi / (largest chi attainable at this KL over n keys), in [0, 1].

    1 for one favourite over a level rest, 0 for ties (all nonzero weights equal); 0 where KL leaves no room (KL = 0
    or 1). The roof is interpolated on `upper_curve`: relative error below 1e-4 for 0.001 < KL < 0.995, below
    2e-3 up to 0.999.

    Args:
        kl, chi: normalised, of the same rows over n keys, any one shape.

    Raises:
        ValueError: if n < 2.
    """
    roof = np.interp(np.asarray(kl, dtype=float), *upper_curve(n, points=20_001))
    return np.asarray(np.divide(chi, roof, out=np.zeros_like(roof), where=roof > 1e-9).clip(0, 1))


def archetypes(n: int) -> dict[str, NDArray[np.float64]]:
    """Typical attention rows over n >= 4 keys, by name; key 0 is the BOS sink."""
    if n < 4:
        raise ValueError(f"n: expected at least 4 visible keys, got {n}")
    third = np.zeros(n)
    third[:3] = 1 / 3
    rivals = np.full(n, 0.1 / (n - 2))
    rivals[1:3] = 0.45
    return {
        "uniform": np.full(n, 1 / n),
        "one-hot": np.eye(n)[1],
        "3-way tie": third,
        "sink + flat rest": one_favourite(0.75, n),
        "two rivals": rivals,
    }


class SinkSplit(NamedTuple):
    """The exact parts of KL (nats) and chi (nats^2) when one key with weight b is split off; see `split_sink`."""

    weight: Tensor
    kl_sink: Tensor
    kl_rest: Tensor
    chi_between: Tensor
    chi_within: Tensor


def split_sink(pi: Any, *, sink: int = 0) -> SinkSplit:
    """Split KL and chi of rows over n keys into "how much goes to the sink" and "how the rest is spread".

        KL(pi || u_n) = kl(b, 1/n) + (1 - b) KL(rest || u_(n-1)),   kl(b, c) = b log(b/c) + (1-b) log((1-b)/(1-c))
        Var_pi(log pi) = Var of the conditional means (between) + mean of the conditional variances (within)

    Args:
        pi: rows, shape ``(*batch, key)``, at least 2 keys, all visible.
        sink: index of the key to split off (0 = BOS).

    Returns:
        `SinkSplit` of tensors of shape ``(*batch,)``: ``weight`` b, ``kl_sink + kl_rest`` = KL in nats,
        ``chi_between + chi_within`` = chi in nats^2. ``kl_rest`` already has its factor 1 - b.

    Raises:
        ValueError: if rows are no distributions or have fewer than 2 keys, or there is no such key.
    """
    pi, _ = check_rows(pi)
    n = pi.shape[-1]
    if n < 2:
        raise ValueError(f"pi: splitting off a sink needs at least 2 keys, got {n}")
    if not -n <= sink < n:
        raise ValueError(f"sink: expected the index of one of {n} keys, got {sink}")
    b = pi[..., sink]
    keep = [k for k in range(n) if k != sink % n]
    share = pi[..., keep].sum(-1)
    rest = torch.where(share.unsqueeze(-1) > 0, pi[..., keep] / share.unsqueeze(-1), 1 / (n - 1))
    kl_sink = torch.xlogy(b, b * n) + torch.xlogy(share, share * n / (n - 1))
    kl_rest = share * kl_selectivity(rest, normalized=False)
    mean_rest = torch.xlogy(share, share) / share.clamp_min(1e-300) + torch.xlogy(rest, rest).sum(-1)
    gap = torch.where((b > 0) & (share > 0), b.clamp_min(1e-300).log() - mean_rest, 0.0)
    return SinkSplit(b, kl_sink, kl_rest, b * share * gap**2, share * susceptibility(rest, normalized=False))
