"""Which weights a number was measured on: a short hash of a model as it is loaded."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

DIGITS = 16


def fingerprint(model: TransformerBridge) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of all weights.

    Hashed are name, dtype, shape and bytes of every parameter and persistent buffer, sorted by name, each tensor once
    (tied embeddings count under their first name). The same weights give the same hash on every device; another
    dtype or one changed weight gives another.

    Args:
        model: what `load_model` returns.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: if weights are not in memory (offloaded by accelerate).
    """
    found, seen = hashlib.sha256(), set()
    for name, tensor in sorted(_weights(model).items()):
        if tensor.is_meta:
            raise ValueError(f"model: expected all weights in memory, got {name} offloaded; load without device_map")
        place = (tensor.device, tensor.data_ptr(), tensor.shape)
        if place not in seen:
            seen.add(place)
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:DIGITS]


def _weights(model: TransformerBridge) -> dict[str, Tensor]:
    """Parameters and persistent buffers by the names that transformers gives them.

    The wrapper holds the same tensors under more names, and adds biases of zero; a model of the same configuration
    without storage knows which names are transformers' own.
    """
    inner = model.original_model
    with torch.device("meta"):
        names = set(type(inner)(inner.config).state_dict())
    found = {
        ".".join(part for part in name.split(".") if part != "_original_component"): tensor
        for name, tensor in inner.state_dict(keep_vars=True).items()
    }
    return {name: found[name] for name in names & found.keys()}
