"""The hash of a model's weights: theirs alone, whatever the wrapper did and wherever they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from models import save_tiny_gpt2
from transformers import GPT2LMHeadModel

from helpers import load_model, record_attention
from helpers.models.fingerprint import fingerprint


def test_hash_by_hand(tiny: Any, tiny_folder: Path) -> None:
    """SHA-256 over transformers' own state dict: name, dtype, shape, bytes, in order of names, the tied head left out."""
    weights = GPT2LMHeadModel.from_pretrained(tiny_folder).state_dict()
    assert weights["lm_head.weight"].data_ptr() == weights["transformer.wte.weight"].data_ptr()
    expected = hashlib.sha256()
    for name in sorted(weights):
        if name != "transformer.wte.weight":
            expected.update(f"{name} torch.float32 {tuple(weights[name].shape)}\n".encode())
            expected.update(weights[name].numpy().tobytes())
    assert fingerprint(tiny) == expected.hexdigest()[:16]


def test_loading_again_and_running_change_nothing(tiny: Any, tiny_folder: Path) -> None:
    """The same folder loaded twice, before and after a forward pass, has one hash."""
    again = load_model(str(tiny_folder), device="cpu")
    before = fingerprint(again)
    record_attention(again, ["Mary saw John"], readout=True, progress=False)
    assert before == fingerprint(again) == fingerprint(tiny)


@pytest.mark.parametrize(
    "name", ["transformer.wte.weight", "transformer.h.2.attn.c_proj.bias", "transformer.ln_f.bias"]
)
def test_one_changed_weight(name: str, tiny: Any, tmp_path: Path) -> None:
    """One number of one tensor, moved by its last bit, gives another hash."""
    model = GPT2LMHeadModel.from_pretrained(save_tiny_gpt2(tmp_path))
    with torch.no_grad():
        weight = model.get_parameter(name).view(-1)
        weight[-1] = torch.nextafter(weight[-1], torch.tensor(9.0))
    model.save_pretrained(tmp_path)
    assert fingerprint(load_model(str(tmp_path), device="cpu")) != fingerprint(tiny)


def test_another_dtype(tiny: Any, tiny_folder: Path) -> None:
    """Weights rounded to bfloat16 are other weights."""
    assert fingerprint(load_model(str(tiny_folder), device="cpu", dtype="bfloat16")) != fingerprint(tiny)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_device_does_not_count(tiny: Any, tiny_folder: Path) -> None:
    """The same weights on a GPU have the same hash."""
    assert fingerprint(load_model(str(tiny_folder), device="cuda")) == fingerprint(tiny)


@pytest.mark.slow
def test_smollm2(smollm2: Any) -> None:
    """Measured once; a converter that unpacks the 4-bit blocks differently makes another model."""
    assert fingerprint(smollm2) == "b69f3ffbbba1720a"
