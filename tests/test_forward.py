"""Runs that start in the middle: the same logits as runs from the input, in every architecture, and a way back where not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_architectures import ARCHITECTURES, folder_of, loaded  # noqa: F401  (the second and third are fixtures)

from helpers import minimal_pairs, patch_heads
from helpers.models.forward import StoredRun, forward, hook_z
from helpers.patching.pairs import MinimalPairs

pytestmark = pytest.mark.slow

EVERY = pytest.mark.parametrize("name", ARCHITECTURES)


@pytest.fixture
def pairs() -> Any:
    """Six minimal pairs of one length in the demo tokenizer."""
    return minimal_pairs(6)


@pytest.fixture
def model_of(loaded: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:  # noqa: F811
    """The tiny model of an architecture with the demo tokenizer (Qwen2's class makes another one of its file)."""

    def model(name: str) -> Any:
        monkeypatch.setattr(loaded(name), "tokenizer", loaded("gpt2").tokenizer)
        return loaded(name)

    return model


def first_difference(minimal: MinimalPairs) -> int:
    return int((minimal.clean != minimal.corrupt).any(0).int().argmax())


@EVERY
def test_patching_from_the_middle_equals_patching_from_the_input(
    name: str, model_of: Callable[[str], Any], pairs: Any
) -> None:
    """Denoised and noised of every head = those of whole runs, at every position and at END alone; and heads do act."""
    model = model_of(name)
    for position in (None, "END"):
        quick, whole = (
            patch_heads(model, *pairs, position=position, whole=whole, progress=False) for whole in (False, True)
        )
        for what, values in vars(whole).items():
            np.testing.assert_allclose(getattr(quick, what), values, atol=2e-5, err_msg=what)
        assert np.abs(whole.denoised - whole.corrupt).max() > 1e-3


@EVERY
def test_every_architecture_of_the_suite_starts_in_the_middle(
    name: str, model_of: Callable[[str], Any], pairs: Any
) -> None:
    """Nothing falls back: runs start at the layer, and at the token in which the sides begin to differ."""
    minimal = MinimalPairs(model_of(name), *pairs)
    for run in minimal.store(np.arange(6)):
        assert (run.starts_at, run.start) == ("layer and token", first_difference(minimal))
        assert [tuple(z.shape[:3]) for z in run.z] == [(6, minimal.clean.shape[1] - run.start, 4)] * 2


def test_twins_share_what_stands_before(tiny: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of the tokens before the first difference are computed once for both sides; a run from elsewhere has its own."""
    minimal = MinimalPairs(tiny, *pairs)
    first = first_difference(minimal)
    minimal.store(np.arange(6))  # where runs can start is known from here on
    counted: list[int] = []
    real = StoredRun._keys_and_values
    monkeypatch.setattr(StoredRun, "_keys_and_values", lambda self, token: counted.append(token) or real(self, token))
    clean, corrupt = minimal.store(np.arange(6))
    assert counted == [first]
    assert corrupt.logits.sub(clean.logits).abs().amax() > 0.01
    alone = StoredRun(tiny, minimal.corrupt, token=first)
    assert torch.equal(corrupt.logits, alone.logits)
    earlier = StoredRun(tiny, minimal.corrupt, token=first - 1, twin=clean)
    assert counted[-1] == first - 1
    torch.testing.assert_close(earlier.logits, alone.logits, rtol=0, atol=1e-5)


def test_stored_logits_and_z_are_those_of_a_plain_pass(tiny: Any, pairs: Any) -> None:
    """logits at END = the model's own; z from the start token on = z of a whole pass there."""
    minimal = MinimalPairs(tiny, *pairs)
    run = StoredRun(tiny, minimal.clean, token=first_difference(minimal))
    whole = StoredRun(tiny, minimal.clean, whole=True)
    with torch.no_grad():
        expected = tiny(minimal.clean)[:, -1]
    torch.testing.assert_close(run.logits, expected, rtol=0, atol=1e-5)
    assert (whole.starts_at, whole.start) == ("input", 0)
    for part, all_of_it in zip(run.z, whole.z, strict=True):
        torch.testing.assert_close(part, all_of_it[:, run.start :], rtol=0, atol=1e-5)


@pytest.mark.parametrize("copies", [1, 3])
def test_copies_of_a_prompt_stand_together(copies: int, tiny: Any, pairs: Any) -> None:
    """Row copies * k + j is copy j of prompt k: a change of copy j alone moves these rows and no others."""
    run = StoredRun(tiny, MinimalPairs(tiny, *pairs).clean, token=3)

    def change(z: torch.Tensor, hook: Any) -> torch.Tensor:
        z[copies - 1 :: copies] += 1.0
        return z

    logits = run.resume(1, [(hook_z(1), change)], copies=copies).view(6, copies, -1)
    for j in range(copies):
        moved = (logits[:, j] - run.logits).abs().amax(-1)
        assert bool((moved > 1e-2).all()) if j == copies - 1 else bool((moved < 1e-4).all())


@pytest.mark.parametrize(
    ("broken", "starts_at"),
    [("cache", "layer"), ("skipping", "input")],
)
def test_falls_back_where_an_architecture_disagrees(
    broken: str, starts_at: str, tiny: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that can't be used: runs start at the layer. Blocks that can't be skipped: at the input. Effects stay equal."""
    from helpers.models import forward as module

    expected = patch_heads(tiny, *pairs, whole=True, progress=False)
    monkeypatch.setattr(tiny, "starts", {})  # as if it had never been tried
    if broken == "cache":
        monkeypatch.setattr(StoredRun, "_keys_and_values", lambda self, token: 1 / 0 if token else None)
    else:
        monkeypatch.setattr(module, "_repeated", lambda output, copies: output * 2)
    run = MinimalPairs(tiny, *pairs).store(np.arange(6))[0]
    assert (run.starts_at, run.start) == (starts_at, 0)
    found = patch_heads(tiny, *pairs, progress=False)
    np.testing.assert_allclose(found.denoised, expected.denoised, atol=2e-5)


def test_leaves_the_model_as_it_was(tiny: Any, pairs: Any) -> None:
    """After stored and resumed runs, and after one that failed, logits are the same and blocks compute again."""
    ids = torch.tensor([[0, 5, 6, 7]])
    with torch.no_grad():
        before = tiny(ids)
        run = StoredRun(tiny, MinimalPairs(tiny, *pairs).clean, token=5)
        run.resume(2)
        with pytest.raises(ZeroDivisionError):
            run.resume(2, [(hook_z(2), lambda z, hook: 1 / 0)])
        assert torch.equal(tiny(ids), before)
    assert not any("forward" in vars(block) for block in tiny.blocks)
    assert not any(block._forward_hooks for block in tiny.blocks)


def test_logits_are_those_of_the_last_token(tiny: Any) -> None:
    """`forward` = the model's logits at END, and gradients flow unless they are turned off."""
    ids = torch.tensor([[0, 5, 6, 7], [0, 9, 8, 3]])
    torch.testing.assert_close(forward(tiny, ids).detach(), tiny(ids)[:, -1].detach(), rtol=0, atol=1e-6)
    zero = torch.zeros(1, requires_grad=True)
    out = forward(tiny, ids, [(hook_z(0), lambda z, hook: z + zero)])
    assert torch.autograd.grad(out.sum(), zero)[0].abs() > 0


def test_is_tried_out_once(tiny: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second stored run of that length and first token tries nothing, and starts where the first did, with its logits."""
    monkeypatch.setattr(tiny, "starts", {})
    first = MinimalPairs(tiny, *pairs).store(np.arange(6))[0]
    monkeypatch.setattr(StoredRun, "_try", lambda self, ids, token: pytest.fail("tried again"))
    second = MinimalPairs(tiny, *pairs).store(np.arange(6))[0]
    assert (second.starts_at, second.start) == (first.starts_at, first.start) == ("layer and token", first.start)
    torch.testing.assert_close(second.logits, first.logits, rtol=0, atol=1e-4)
    for one, other in zip(second.z, first.z, strict=True):
        torch.testing.assert_close(one, other)
