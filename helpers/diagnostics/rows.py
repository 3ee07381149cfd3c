"""The two numbers of an attention row: KL selectivity and susceptibility chi.

Symbols. pi is one attention row over its n visible keys, u the uniform distribution on them, H the Shannon entropy,
all logarithms natural.

==================  =========================================  ======================  ==========
here                formula                                    in post 1               unit
==================  =========================================  ======================  ==========
KL, not normalised  log n - H(pi) = KL(pi || u)                rho_eff                 nats
KL                  (log n - H(pi)) / log n                    --                      in [0, 1]
chi, raw            Var_pi(log pi) = d rho / d beta at beta=1  d rho_eff / d beta      nats^2
chi                 Var_pi(log pi) / (log n)^2                 --                      >= 0
==================  =========================================  ======================  ==========

Source: Fields 2026, *Why Softmax?* (rho_eff, its derivative) and *Attention Diagnostics* (the normalised forms).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

#: How far a row may be from summing to 1, by the precision it was computed in.
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 2e-2}


def entropy(pi: Any, *, n: Any = None, mask: Any = None) -> Float64[Tensor, "*batch"]:
    """Shannon entropy H(pi) = -sum_i pi_i log pi_i of attention rows, in nats; 0 log 0 = 0.

    Args:
        pi: rows, shape ``(*batch, key)``; any float type, computed in float64.
        n: number of visible keys of each row, broadcast against ``batch``; keys from index n on must have weight 0
            (to the tolerance of `check_rows`). Default: all keys.
        mask: instead of ``n``, True where a key is visible, broadcast against ``pi``.

    Returns:
        H, shape ``(*batch,)``, in [0, log n].

    Raises:
        ValueError: if rows are no distributions over their visible keys (see `check_rows`).

    >>> entropy([0.5, 0.5, 0.0, 0.0]).exp().item()  # two keys are looked at
    2.0
    """
    rows, _ = check_rows(pi, n=n, mask=mask)
    return (rows * _log(rows)).sum(-1).neg().clamp_min(0.0)


def kl_selectivity(pi: Any, *, n: Any = None, mask: Any = None, normalized: bool = True) -> Float64[Tensor, "*batch"]:
    """KL(pi || u) = log n - H(pi): how far attention rows are from looking everywhere alike.

    Args:
        pi, n, mask: as in `entropy`.
        normalized: divide by log n (range 0 to 1); otherwise nats (range 0 to log n).

    Returns:
        KL, shape ``(*batch,)``: 0 for a uniform row, 1 (or log n nats) for a one-hot row, log(n/k) nats for k equal
        weights.

    Raises:
        ValueError: if rows are no distributions, or if ``normalized`` and some row has n = 1 (log n = 0: a single
            visible key leaves nothing to select; its KL is 0 nats).

    Source: Fields 2026, post 1 (rho_eff, nats) and post 2 (normalised).

    >>> kl_selectivity([0.5, 0.5, 0.0, 0.0]).item()
    0.5
    """
    rows, count = check_rows(pi, n=n, mask=mask)
    # (1/n) sum over visible keys of x log x - (x - 1) with x = n pi: no cancellation near the uniform row
    x = rows * count.unsqueeze(-1)
    zeros = count - (rows > 0).sum(-1)
    kl = (torch.where(rows > 0, x * _log(x) - (x - 1), 0.0).sum(-1) + zeros) / count
    return kl / _normaliser(count, "KL") if normalized else kl


def susceptibility(pi: Any, *, n: Any = None, mask: Any = None, normalized: bool = True) -> Float64[Tensor, "*batch"]:
    """chi = Var_pi(log pi): how fast KL grows when the head's inverse temperature does.

    With pi_beta proportional to exp(beta z), d KL / d beta at beta = 1 is Var_pi(z), and log pi = z - log Z has the
    same variance: no scores and no gradient are needed.

    Args:
        pi, n, mask: as in `entropy`.
        normalized: divide by (log n)^2; otherwise nats^2.

    Returns:
        chi >= 0, shape ``(*batch,)``: 0 (to rounding) where all nonzero weights are equal (uniform, one-hot, k-way tie).

    Raises:
        ValueError: as `kl_selectivity`.

    Source: Fields 2026, post 1 (the identity) and post 2 (normalised).

    >>> susceptibility([0.25, 0.25, 0.25, 0.25]).item()
    0.0
    """
    rows, count = check_rows(pi, n=n, mask=mask)
    log_pi = _log(rows)
    mean = (rows * log_pi).sum(-1, keepdim=True)
    variance = (rows * (log_pi - mean) ** 2).sum(-1)
    return variance / _normaliser(count, "chi") ** 2 if normalized else variance


def check_rows(
    pi: Any, *, n: Any = None, mask: Any = None
) -> tuple[Float64[Tensor, "*batch key"], Int64[Tensor, "*batch"]]:
    """Refuse rows that are no distributions; return them in float64, summing to 1 to rounding, with their n.

    A row may miss 1 by `TOLERANCE` of its own precision (1e-4 in float32, 1e-2 in float16, 2e-2 in bfloat16) and is
    then divided by its sum.

    Raises:
        ValueError: one sentence naming the argument, the rule and the first offending value.
    """
    pi = pi if isinstance(pi, Tensor) else torch.as_tensor(np.array(pi))
    if not pi.is_floating_point():
        raise ValueError(f"pi: expected floating-point attention rows, got {pi.dtype}")
    if pi.ndim == 0 or pi.shape[-1] == 0:
        raise ValueError(f"pi: expected shape (*batch, key) with at least one key, got {tuple(pi.shape)}")
    if pi.dtype not in TOLERANCE:
        raise ValueError(f"pi: expected {', '.join(str(t).removeprefix('torch.') for t in TOLERANCE)}, got {pi.dtype}")
    tolerance = TOLERANCE[pi.dtype]
    pi = pi.to("cpu" if pi.device.type == "mps" else pi.device, torch.float64)  # mps has no float64
    visible, count = _visible(pi, n, mask)
    rows = pi.detach()
    if not rows.isfinite().all():
        raise ValueError(f"pi: expected finite weights, got {_first(rows, ~rows.isfinite())}")
    if (rows < 0).any():
        raise ValueError(f"pi: expected weights >= 0, got {_first(rows, rows < 0)}")
    if visible is not None and (rows[~visible] > tolerance).any():
        bad = _first(rows, ~visible & (rows > tolerance))
        raise ValueError(f"pi: expected weight 0 on keys that are not visible, got {bad}")
    if visible is not None:
        pi = torch.where(visible, pi, 0.0)
    total = pi.detach().sum(-1)
    off = (total - 1).abs() > tolerance
    if off.any():
        raise ValueError(
            f"pi: expected rows that sum to 1 over the last axis (within {tolerance:g}), got a sum of "
            f"{_first(total, off)}; if another axis holds the keys, move it to the end"
        )
    return pi / pi.sum(-1, keepdim=True), count


def _visible(pi: Tensor, n: Any, mask: Any) -> tuple[Tensor | None, Tensor]:
    """Which keys each row sees (None = all of them), and how many."""
    keys = pi.shape[-1]
    if n is not None and mask is not None:
        raise ValueError("n, mask: expected one of them, got both")
    if mask is not None:
        mask = torch.as_tensor(mask, device=pi.device)
        if mask.is_floating_point():
            raise ValueError(f"mask: expected True where a key is visible, got {mask.dtype}")
        visible = _expand(mask.bool(), pi.shape, "mask")
        count = visible.sum(-1)
    elif n is not None:
        count = torch.as_tensor(n, device=pi.device)
        if count.is_floating_point():
            raise ValueError(f"n: expected whole numbers of visible keys, got {count.dtype}")
        count = _expand(count.long(), pi.shape[:-1], "n")
        visible = torch.arange(keys, device=pi.device) < count.unsqueeze(-1)
    else:
        return None, torch.full(pi.shape[:-1], keys, device=pi.device)
    if ((count < 1) | (count > keys)).any():
        bad = _first(count, (count < 1) | (count > keys))
        raise ValueError(f"{'n' if mask is None else 'mask'}: expected 1 to {keys} visible keys a row, got {bad:g}")
    return visible, count


def _expand(values: Tensor, shape: torch.Size, name: str) -> Tensor:
    try:
        return values.expand(shape)
    except RuntimeError:
        raise ValueError(
            f"{name}: expected a shape that broadcasts to {tuple(shape)}, got {tuple(values.shape)}"
        ) from None


def _normaliser(count: Tensor, what: str) -> Tensor:
    if (count == 1).any():
        raise ValueError(
            f"n: normalised {what} divides by log n, which is 0 for a row with one visible key; pass "
            "normalized=False (the value is then 0), or leave such rows out"
        )
    return count.double().log()


def _log(pi: Tensor) -> Tensor:
    """log pi where pi > 0, and 0 where pi = 0 (its weight is 0 wherever it is used)."""
    return torch.where(pi > 0, pi, 1.0).log()


def _first(values: Tensor, where: Tensor) -> float:
    return values[where].flatten()[0].item()
