"""Attention rows in little space: half precision below END, one triangle, and bytes that compress well."""

from __future__ import annotations

import lzma
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from helpers.prompts.tokens import TokenizedPrompt

#: Names of the packed parts: END rows, and the lower triangle (query >= key) of all rows.
END, TRIANGLE = "end", "triangle"


def pack(rows: Tensor, end: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Rows of all query positions as compressed bytes: END rows exactly, those before it in float16.

    Bytes are sorted by significance before compression (LZMA): signs and exponents of neighbours are alike, the low bits
    of fractions are not.

    Returns:
        tensors of bytes by name, and what `unpack` must know: dtype and shape of each.
    """
    query, key = torch.tril_indices(*rows.shape[-2:])
    parts = {END: end, TRIANGLE: rows[..., query, key].half()}
    about = {name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in parts.items()}
    return {name: _squeeze(t) for name, t in parts.items()}, about


def unpack(packed: Mapping[str, Tensor], about: Mapping[str, Any] | None, prompts: Sequence[TokenizedPrompt]) -> Tensor:
    """What `pack` packed: rows that sum to 1, those of END exactly as they were. ``about`` is None for plain tensors."""
    triangle, end = (packed[name] if about is None else _expand(packed[name], *about[name]) for name in (TRIANGLE, END))
    longest = end.shape[-1]
    rows = torch.zeros(*triangle.shape[:-1], longest, longest)
    query, key = torch.tril_indices(longest, longest)
    rows[..., query, key] = triangle.float()
    rows = (rows / rows.sum(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)).to(end.dtype)
    for number, prompt in enumerate(prompts):
        rows[number, :, :, prompt.position("END")] = end[number]
    return rows


def _squeeze(tensor: Tensor) -> Tensor:
    by_significance = tensor.contiguous().reshape(-1, 1).view(torch.uint8).T.contiguous()
    return torch.frombuffer(bytearray(lzma.compress(by_significance.numpy().tobytes())), dtype=torch.uint8)


def _expand(squeezed: Tensor, dtype: str, shape: Sequence[int]) -> Tensor:
    kind = getattr(torch, dtype)
    by_significance = torch.frombuffer(bytearray(lzma.decompress(squeezed.numpy().tobytes())), dtype=torch.uint8)
    return by_significance.reshape(-1, math.prod(shape)).T.contiguous().view(kind).reshape(*shape)
