"""Which weights a number was measured on, and with which tokenizer and settings: short hashes of a model as it is loaded."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Protocol

import torch
from torch import Tensor


class HasWeights(Protocol):
    """What a `LanguageModel` is to this module."""

    hf: Any
    tokenizer: Any
    weight_names: set[str]


DIGITS = 16


def fingerprint(model: HasWeights) -> str:
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


def identity(model: HasWeights) -> str:
    """`fingerprint`, and a hash of tokenizer and configuration: 16 and 8 hexadecimal digits; empty if weights are offloaded.

    Of the configuration counts what bears on the numbers: not where it came from, nor which release of transformers wrote it.
    """
    if any(tensor.is_meta for tensor in model.hf.parameters()):
        return ""
    said = {k: v for k, v in model.hf.config.to_dict().items() if k not in _NO_MATTER and not k.startswith("_")}
    rest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    rest.update(_spelled(model.tokenizer).encode())
    return f"{fingerprint(model)}-{rest.hexdigest()[: DIGITS // 2]}"


#: Entries of a configuration that change no number.
_NO_MATTER = ("transformers_version", "architectures", "dtype", "torch_dtype", "name_or_path", "use_cache")


def _spelled(tokenizer: Any) -> str:
    """All that a tokenizer is, as text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    inside = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return f"{inside} {tokenizer.bos_token} {tokenizer.eos_token} {tokenizer.unk_token}"


def _weights(model: HasWeights) -> dict[str, Tensor]:
    """Parameters and persistent buffers by the names that transformers gives them.

    A wrapper around the model itself (`LanguageModel.is_spread`) holds the same tensors under more names, and adds
    biases of zero.
    """
    found = {
        ".".join(part for part in name.split(".") if part != "_original_component"): tensor
        for name, tensor in model.hf.state_dict(keep_vars=True).items()
    }
    return {name: found[name] for name in model.weight_names & found.keys()}
