"""Which keys a query can see: all up to itself, in a layer with local attention the last of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def visible_keys(
    queries: Int[Tensor, "prompt ..."], n_keys: int, windows: Sequence[int]
) -> Bool[Tensor, "prompt layer ... key"]:
    """True where a key is visible: query t sees keys 0 … t, in a layer with a window the last ``window`` of them.

    Args:
        queries: index of each query; -1 for one that is not there, which sees none.
        n_keys: length of the key axis.
        windows: of each layer; 0 where there is no limit.

    >>> visible_keys(torch.tensor([3]), 5, [0, 2]).int().tolist()
    [[[1, 1, 1, 1, 0], [0, 0, 1, 1, 0]]]
    """
    t = queries[:, None, ..., None]
    reach = torch.tensor([window or n_keys for window in windows]).view(1, -1, *[1] * (t.ndim - 2))
    keys = torch.arange(n_keys)
    return (keys <= t) & (keys > t - reach)
