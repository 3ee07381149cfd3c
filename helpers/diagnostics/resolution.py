"""What rounding alone can do: the smallest change of KL and chi that says something about the model.

Two prompts that share their text up to the position read have equal rows, but for rounding: a forward pass adds up in
another order for another number of tokens. If rounding moves each weight by at most the share e (a score by e), then, to
first order and with s = sqrt(chi) + e (the last term is the second order, for rows that are uniform or one-hot),

    |d KL| <= e s,    |d chi| <= 2 e s (s + 1 / log n) <= 2 e s (s + 1 / log 2)        KL, chi normalised, any n

In nats the bound of KL is multiplied by log n, that of chi by (log n)^2. With eps the spacing of numbers at 1, e is

    32 eps    float64, float32: sums of many terms, rounded at every step
     4 eps    float16, bfloat16: scores of about 8, rounded to eps / 2 of their size, their terms added up in float32

Measured on SmolLM2-135M (6 prefixes of 2 to 59 tokens, continued in 22 ways by 1 to 120 words), the largest |d KL| / s is
23 eps in float32 and 2.4 eps in float16; bfloat16 gave equal rows.

One rule follows, for tests, intervals, correlations and rankings: **a difference no larger than the resolution is none**.
A difference within a pair, or of two means, is then 0 (`settle`) and its p is 1; where such differences decide ranks, the
values count as tied (`tie`, or `flatten` where rounding is all there is); no interval is narrower than the resolution to
either side (`widen`). What differs by more keeps its p and its interval exactly.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

#: dtype of the rows, or of the model that made them -> the share e by which rounding can move a weight.
ROUNDING = {"float64": 32 * 2.0**-52, "float32": 32 * 2.0**-23, "float16": 4 * 2.0**-10, "bfloat16": 4 * 2.0**-7}
#: The resolution where no other is given, in normalised units: that of float32 rows, whatever their chi.
RESOLUTION = ROUNDING["float32"]


def rounding(*dtypes: object) -> float:
    """The share e of numbers that went through all of these dtypes: that of the coarsest.

    Args:
        dtypes: torch or numpy dtypes, or their names; other things (a quantisation, None) say nothing.

    >>> rounding("float32") == rounding("float32", None), rounding("float32", "bfloat16")
    (True, 0.03125)

    Raises:
        ValueError: if none of them is a dtype of `ROUNDING`.
    """
    names = [str(dtype).removeprefix("torch.") for dtype in dtypes]
    known = [ROUNDING[name] for name in names if name in ROUNDING]
    if not known:
        raise ValueError(f"dtypes: expected one of {', '.join(ROUNDING)}, got {', '.join(names) or 'none'}")
    return max(known)


def kl_resolution(chi: Float[np.ndarray, "*row"], e: float) -> Float[np.ndarray, "*row"]:
    """e s with s = sqrt(chi) + e: what rounding can do to the normalised KL of rows, from their normalised chi."""
    return np.asarray(e * (np.sqrt(chi) + e))


def chi_resolution(chi: Float[np.ndarray, "*row"], e: float) -> Float[np.ndarray, "*row"]:
    """2 e s (s + 1 / log 2) with s = sqrt(chi) + e: what rounding can do to normalised chi itself."""
    s = np.sqrt(chi) + e
    return np.asarray(2 * e * s * (s + 1 / np.log(2)))


def settle(differences: ArrayLike, resolution: ArrayLike = RESOLUTION) -> NDArray[np.float64]:
    """Differences, with 0 for those of at most the resolution (which broadcasts).

    >>> settle([1e-7, -0.5]).tolist()
    [0.0, -0.5]
    """
    d = np.asarray(differences, dtype=float)
    return np.where(np.abs(d) <= resolution, 0.0, d)


def tie(values: ArrayLike, resolution: ArrayLike = RESOLUTION) -> NDArray[np.float64]:
    """Values with ties where they differ by rounding: along axis 0, each column by itself, with its own resolution.

    From the smallest value upwards, all values within the resolution of it become it; then from the next value on. So
    values that are further apart stay as they are, and no group is wider than the resolution, however dense the values.

    >>> tie([0.5, 0.2, 0.5 + 1e-7, 0.2]).tolist()
    [0.5, 0.2, 0.5, 0.2]
    """
    found = np.array(values, dtype=float)
    order = np.argsort(found, axis=0, kind="stable")
    rising = np.take_along_axis(found, order, axis=0)
    near = rising[1:] <= rising[:-1] + resolution
    if (near & (rising[1:] != rising[:-1])).any():
        for k in 1 + np.flatnonzero(near.any(axis=tuple(range(1, near.ndim)))):
            rising[k] = np.where(rising[k] <= rising[k - 1] + resolution, rising[k - 1], rising[k])
        np.put_along_axis(found, order, rising, axis=0)
    return found


def flatten(values: ArrayLike, resolution: float = RESOLUTION) -> NDArray[np.float64]:
    """Scores of different heads as they are, unless no two differ by more than the resolution: then all are the same.

    >>> flatten([0.5, 0.5 + 1e-7]).tolist(), flatten([0.5, 0.5 + 1e-7, 0.6]).tolist()
    ([0.5, 0.5], [0.5, 0.5000001, 0.6])
    """
    found = np.array(values, dtype=float)
    return np.full_like(found, found.min()) if found.size and np.ptp(found) <= resolution else found


def widen(
    estimate: ArrayLike, low: ArrayLike, high: ArrayLike, resolution: ArrayLike = RESOLUTION
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An interval that reaches at least the resolution to either side of its estimate.

    low' = min(low, estimate - resolution),    high' = max(high, estimate + resolution)
    """
    centre, step = np.asarray(estimate, dtype=float), np.asarray(resolution, dtype=float)
    return np.minimum(low, centre - step), np.maximum(high, centre + step)
