"""Norms of what heads write: zero where they must be, of the pair alone, whatever the batches; what can't be paired is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import load_model, minimal_pairs, record_outputs
from helpers.contents.changes import HeadChanges, record_changes
from helpers.prompts.prompt import Prompt

pytestmark = pytest.mark.slow

#: Pairs of two lengths; the second differs in its first word and in its last.
CLEAN = ["When Mary and John went to the store , John gave a drink to", "red cup lamp red cup Mary saw"]
CORRUPT = ["When Mary and John went to the store , Tom gave a drink to", "lamp cup lamp red cup Mary gave"]


@pytest.fixture(scope="module")
def changes(tiny: Any) -> HeadChanges:
    """Of the tiny model."""
    return record_changes(tiny, CLEAN, CORRUPT, progress=False)


def z_of(model: Any, text: str) -> list[torch.Tensor]:
    """z of every layer by the model's own hooks, ``(token, head, d_head)``."""
    z: list[torch.Tensor] = []
    ids = record_outputs(model, [text], progress=False).prompts[0].ids
    hooks: list[Any] = [(f"blocks.{i}.attn.hook_z", lambda x, hook: z.append(x[0].clone())) for i in range(3)]
    with torch.no_grad():
        model.run_with_hooks(torch.tensor([ids]), fwd_hooks=hooks)
    return z


def test_norms_of_writes(tiny: Any, changes: HeadChanges) -> None:
    """||z W_O|| head by head, at every token."""
    for number, texts in enumerate(zip(CLEAN, CORRUPT, strict=True)):
        writes = []
        for text in texts:
            z = z_of(tiny, text)
            weights = [block.attn.W_O.detach() for block in tiny.blocks]
            writes.append(torch.stack([torch.einsum("thd,hdm->htm", *both) for both in zip(z, weights, strict=True)]))
        n = writes[0].shape[2]
        for found, expected in zip(
            (changes.clean, changes.corrupt, changes.change), (*writes, writes[0] - writes[1]), strict=True
        ):
            np.testing.assert_allclose(found[number, ..., :n], expected.norm(dim=-1).numpy(), atol=1e-5)


def test_lengths(changes: HeadChanges) -> None:
    """Tokens that a shorter pair does not have are NaN, all others finite; at_end is the last token of each pair."""
    lengths = [len(p) for p in changes.outputs_clean.prompts]
    assert lengths[0] > lengths[1]
    for norms in (changes.clean, changes.corrupt, changes.change, changes.own):
        assert norms.shape == (2, 3, 4, lengths[0])
        assert np.isfinite(norms[0]).all()
        assert np.array_equal(np.isfinite(norms[1, 0, 0]), np.arange(lengths[0]) < lengths[1])
        np.testing.assert_array_equal(changes.at_end(norms)[1], norms[1, ..., lengths[1] - 1])


def test_nothing_before_tokens_differ(changes: HeadChanges) -> None:
    """Exactly 0 left of the first word that differs, above 0 from it on (there every head reads other keys or queries)."""
    first = [next(t for t, ab in enumerate(zip(*ids, strict=True)) if len(set(ab)) > 1)
             for ids in zip(*([p.ids for p in side.prompts] for side in (changes.outputs_clean, changes.outputs_corrupt)), strict=True)]  # fmt: skip
    assert first == [10, 1]
    for number, t in enumerate(first):
        assert not changes.change[number, ..., :t].any()
        assert (changes.change[number, ..., t] > 0).all()
        assert (changes.clean[number, ..., :t] > 0).all()


def test_triangle(changes: HeadChanges) -> None:
    """| ||a|| - ||b|| | <= ||a - b|| <= ||a|| + ||b||: twice the own norm is the most that can change."""
    finite = np.isfinite(changes.change)
    a, b, d = (x[finite] for x in (changes.clean, changes.corrupt, changes.change))
    assert (np.abs(a - b) <= d + 1e-5).all()
    assert (d <= a + b + 1e-5).all()
    np.testing.assert_allclose(changes.own[finite], (a + b) / 2)


def test_a_side_against_itself(tiny: Any) -> None:
    """No change anywhere, exactly, and equal norms."""
    same = record_changes(tiny, CLEAN[:1], CLEAN[:1], progress=False)
    assert not same.change.any()
    np.testing.assert_array_equal(same.clean, same.corrupt)


def test_swapped_sides(tiny: Any, changes: HeadChanges) -> None:
    """clean and corrupt change places, the change stays."""
    swapped = record_changes(tiny, CORRUPT, CLEAN, progress=False)
    np.testing.assert_allclose(swapped.clean, changes.corrupt, atol=1e-6)
    np.testing.assert_allclose(swapped.change, changes.change, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_batches_do_not_matter(batch_size: int, tiny: Any) -> None:
    """Pairs of several lengths come back in their order."""
    clean, corrupt = ([*side, *extra] for side, extra in zip(minimal_pairs(5), (CLEAN, CORRUPT), strict=True))
    whole = record_changes(tiny, clean, corrupt, progress=False)
    found = record_changes(tiny, clean, corrupt, batch_size=batch_size, progress=False)
    np.testing.assert_allclose(found.change, whole.change, atol=1e-5)
    assert [p.prompt.text for p in found.outputs_corrupt.prompts[-2:]] == CORRUPT


def test_outputs_at_end_are_record_outputs(tiny: Any) -> None:
    """z, attributions and Var_v of both sides, from the same passes; answer and foil are the clean prompt's on both."""
    clean, corrupt = minimal_pairs(4)
    found = record_changes(tiny, clean, corrupt, progress=False)
    for outputs, side in ((found.outputs_clean, clean), (found.outputs_corrupt, corrupt)):
        alone = record_outputs(tiny, side, progress=False)
        for name in ("z", "attribution", "value_variance"):
            np.testing.assert_allclose(getattr(outputs, name), getattr(alone, name), atol=1e-5)
    unasked = [Prompt(p.text) for p in corrupt]
    again = record_changes(tiny, clean, unasked, progress=False)
    np.testing.assert_allclose(again.outputs_corrupt.attribution, found.outputs_corrupt.attribution, atol=1e-5)


def test_half_precision(tiny_folder: Path, tiny: Any) -> None:
    """bfloat16: float32 norms, near those of the float32 model."""
    clean, corrupt = minimal_pairs(3)
    half = record_changes(load_model(str(tiny_folder), device="cpu", dtype="bfloat16"), clean, corrupt, progress=False)
    full = record_changes(tiny, clean, corrupt, progress=False)
    assert half.change.dtype == np.float32
    np.testing.assert_allclose(half.clean, full.clean, atol=0.03 * full.clean.max())


def test_bos(tiny: Any) -> None:
    """Without BOS a token less; with another token in front other norms."""
    clean, corrupt = minimal_pairs(2)
    usual, bare, other = (
        record_changes(tiny, clean, corrupt, progress=False, **options)
        for options in ({}, {"prepend_bos": False}, {"bos": "red"})
    )
    assert bare.change.shape[-1] == usual.change.shape[-1] - 1
    assert np.abs(other.clean - usual.clean).max() > 1e-3


def test_refusals(tiny: Any) -> None:
    """Sides of other numbers or lengths, and empty batches: one sentence each."""
    with pytest.raises(ValueError, match=r"^corrupt: expected one prompt for each of 2 clean ones, got 1$"):
        record_changes(tiny, CLEAN, CORRUPT[:1])
    with pytest.raises(ValueError, match=r"^corrupt: expected 15 tokens in prompt 1 as in its twin, got 8$"):
        record_changes(tiny, CLEAN, CORRUPT[::-1])
    with pytest.raises(ValueError, match=r"^batch_size: expected at least 1 pair a forward pass, got 0$"):
        record_changes(tiny, CLEAN, CORRUPT, batch_size=0)
