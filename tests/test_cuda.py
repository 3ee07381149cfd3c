"""On a CUDA device: the numbers of the CPU, for recording, patching, attribution, head outputs, and in less precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_contract import CLEAN, CORRUPT, FUNCTIONS, KINDS, folder_of

from helpers import load_model, record_attention

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each kind of the contract, as a folder."""
    return folder_of(request.param, request, words, tmp_path_factory)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_numbers_of_the_cpu(name: str, folder: Path) -> None:
    """Every function that runs a model gives on CUDA what it gives on the CPU, to 1e-3 of the largest number."""
    on_cpu, on_cuda = (FUNCTIONS[name](load_model(str(folder), device=d), CLEAN, CORRUPT) for d in ("cpu", "cuda"))
    for one, other in zip(on_cuda, on_cpu, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-3 * np.nanmax(np.abs(other)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_less_precision(dtype: str, folder: Path) -> None:
    """Rows in half the bits are those of float32 to 5 %, and lie on the CPU."""
    exact, rough = (load_model(str(folder), device="cuda", dtype=d) for d in ("float32", dtype))
    one, other = (record_attention(model, CLEAN, progress=False).rows for model in (rough, exact))
    assert one.device.type == "cpu"
    torch.testing.assert_close(one.float(), other, rtol=0, atol=0.05)


def test_device_map(folder: Path) -> None:
    """Placed by accelerate: the same rows."""
    spread, plain = load_model(str(folder), device_map="auto"), load_model(str(folder), device="cuda")
    one, other = (record_attention(model, CLEAN, query="all", progress=False).rows for model in (spread, plain))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
