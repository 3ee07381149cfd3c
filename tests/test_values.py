"""The value side of a row: known answers, a plain loop, and the models' own rows and values, shared by groups of heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_architectures
import torch

from helpers import load_model, record_attention, record_outputs
from helpers.diagnostics.values import value_variance

folder_of = test_architectures.folder_of
PROMPTS = test_architectures.PROMPTS


def plain(pi: list[float], v: list[list[float]]) -> float:
    """(sum_i pi_i |v_i|^2 - |sum_i pi_i v_i|^2) / d_head, number by number."""
    second = math.fsum(p * x * x for p, value in zip(pi, v, strict=True) for x in value)
    mean = [math.fsum(p * value[j] for p, value in zip(pi, v, strict=True)) for j in range(len(v[0]))]
    return (second - math.fsum(x * x for x in mean)) / len(v[0])


def drawn(*shape: int, keys: int = 7, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Random rows and values in float64."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.dirichlet(np.ones(keys), shape)), torch.from_numpy(
        rng.normal(size=(*shape, keys, width))
    )


def test_plain_loop() -> None:
    """A batch (2, 3): each number is the formula's, summed key by key."""
    pi, v = drawn(2, 3)
    found = value_variance(pi, v)
    assert found.shape == (2, 3)
    for index in np.ndindex(2, 3):
        assert found[index].item() == pytest.approx(plain(pi[index].tolist(), v[index].tolist()), rel=1e-12)


def test_trace_of_the_covariance() -> None:
    """Var_v d_head is the trace of numpy's weighted covariance, which a shift of all values leaves as it is."""
    pi, v = drawn()
    found = value_variance(pi, v).item() * v.shape[-1]
    assert found == pytest.approx(np.trace(np.cov(v.numpy().T, aweights=pi.numpy(), ddof=0)), rel=1e-12)
    assert found == pytest.approx(value_variance(pi, v + 3).item() * v.shape[-1], rel=1e-9)


def test_nothing_to_tell_apart() -> None:
    """One-hot rows, and equal values under any row: 0, and never below."""
    pi, v = drawn()
    one_hot = torch.eye(7, dtype=torch.float64)
    assert not value_variance(one_hot, v.expand(7, 7, 5)).any()
    assert 0 <= value_variance(pi, v[:1].expand(7, 5)).item() < 1e-15


def test_scale() -> None:
    """Values twice as large: four times the spread; two keys at distance d, half each: d^2 / 4 over d_head."""
    pi, v = drawn()
    assert value_variance(pi, 2 * v).item() == pytest.approx(4 * value_variance(pi, v).item(), rel=1e-12)
    far = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert value_variance(torch.tensor([0.5, 0.5]), far).item() == pytest.approx(25 / 4 / 2)


def values_of(model: Any, ids: Sequence[int]) -> list[torch.Tensor]:
    """Values of both layers, ``(token, key/value head, d_head)``."""
    values: list[torch.Tensor] = []
    hooks: list[Any] = [(f"blocks.{i}.attn.hook_v", lambda v, hook: values.append(v[0].clone())) for i in range(2)]
    with torch.no_grad():
        model.run_with_hooks(torch.tensor([ids]), fwd_hooks=hooks)
    return values


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "mistral", "opt"])
def test_of_a_model(name: str, folder_of: Callable[[str], Path]) -> None:
    """Recorded at END: the loop over the record's own rows and the values of the head's group, prompts of two lengths."""
    model = load_model(str(folder_of(name)), device="cpu")
    found = record_outputs(model, PROMPTS, progress=False)
    record = record_attention(model, PROMPTS, progress=False)
    assert found.value_variance is not None
    assert not found.reasons
    for number, prompt in enumerate(record.prompts):
        values = values_of(model, prompt.ids)
        for layer, head in np.ndindex(2, 4):
            v = values[layer][:, head // (4 // values[layer].shape[1])].tolist()
            row = record.rows[number, layer, head, : len(prompt)].tolist()
            assert found.value_variance[number, layer, head] == pytest.approx(plain(row, v), rel=1e-4, abs=1e-6)


def test_values_that_are_not_those_of_z(tiny: Any) -> None:
    """Where rows times recorded values are not z, NaN with one sentence, and outputs are there all the same."""
    attention = tiny.blocks[1].attn
    handle = attention.hook_z.register_forward_hook(lambda module, args, z: z + 0.5)
    try:
        found = record_outputs(tiny, PROMPTS, progress=False)
    finally:
        handle.remove()
    assert np.isnan(found.value_variance).all()
    assert found.reasons["value_variance"].startswith(
        "model: expected head outputs that are attention rows times values"
    )
    assert "layer 1" in found.reasons["value_variance"]
    assert np.isfinite(found.z).all()
