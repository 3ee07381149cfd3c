"""Attribution patching: autograd and finite differences by transformers alone, and activation patching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from helpers import attribute_heads, load_model, minimal_pairs, patch_heads
from helpers.prompts.prompt import Prompt

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pairs() -> tuple[list[Prompt], list[Prompt]]:
    """Six minimal pairs."""
    return minimal_pairs(6)


@pytest.fixture(scope="module")
def found(tiny: Any, pairs: Any) -> np.ndarray:
    """Those pairs on the tiny model."""
    return attribute_heads(tiny, *pairs, progress=False)


class ByHand:
    """The tiny model by transformers alone, in float64: one pair at a time, z read and moved before each c_proj."""

    def __init__(self, folder: Path, clean: Prompt, corrupt: Prompt) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").double().eval()
        self.ids = [
            torch.tensor([[0, *tokenizer(p.text, add_special_tokens=False)["input_ids"]]]) for p in (clean, corrupt)
        ]
        self.words = [tokenizer.convert_tokens_to_ids(word) for word in (clean.answer, clean.foil)]

    def run(self, side: int, shift: dict[int, torch.Tensor] | None = None) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logit difference and z of each layer, ``(token, head * d_head)``, with ``shift`` added to z."""
        kept: list[torch.Tensor] = []

        def move(layer: int, args: Any) -> tuple[torch.Tensor]:
            z = args[0] + (shift or {}).get(layer, 0)
            z.requires_grad_() if z.is_leaf else z.retain_grad()
            kept.append(z)
            return (z,)

        handles = [
            block.attn.c_proj.register_forward_pre_hook(lambda module, args, layer=layer: move(layer, args))
            for layer, block in enumerate(self.model.transformer.h)
        ]
        logits = self.model(self.ids[side]).logits[0, -1]
        for handle in handles:
            handle.remove()
        return logits[self.words[0]] - logits[self.words[1]], kept


def test_equals_autograd(tiny_folder: Path, pairs: Any, found: np.ndarray) -> None:
    """(z_clean - z_corrupt) dLD/dz at the corrupt run, summed over tokens and each head's 8 dimensions."""
    assert found.shape == (3, 4, 6)
    for pair in range(3):
        hand = ByHand(tiny_folder, pairs[0][pair], pairs[1][pair])
        _, clean_z = hand.run(0)
        difference, corrupt_z = hand.run(1)
        difference.backward()
        for layer, (new, old) in enumerate(zip(clean_z, corrupt_z, strict=True)):
            expected = ((new - old) * old.grad).detach().reshape(-1, 4, 8).sum((0, 2))
            np.testing.assert_allclose(found[layer, :, pair], expected, atol=1e-4)


@pytest.mark.parametrize("at", ["corrupt", "clean"])
@pytest.mark.parametrize(("layer", "head"), [(0, 1), (1, 3), (2, 0)])
def test_is_a_derivative(layer: int, head: int, at: Any, tiny: Any, tiny_folder: Path, pairs: Any) -> None:
    """(LD(z + e dz) - LD(z - e dz)) / 2e of one head with dz = z_clean - z_corrupt, at either run."""
    found = attribute_heads(tiny, pairs[0][:1], pairs[1][:1], at=at, progress=False)[layer, head, 0]
    hand = ByHand(tiny_folder, pairs[0][0], pairs[1][0])
    move = (hand.run(0)[1][layer] - hand.run(1)[1][layer]).detach()
    move[..., : 8 * head] = move[..., 8 * head + 8 :] = 0
    side = ("clean", "corrupt").index(at)
    up, down = (hand.run(side, {layer: sign * 1e-4 * move})[0].item() for sign in (1, -1))
    assert found == pytest.approx((up - down) / 2e-4, abs=1e-4)
    assert abs(found) > 1e-3


def test_slope_at_the_clean_run_estimates_noising(tiny: Any, pairs: Any) -> None:
    """Exchanging the sides (with the same answers) exchanges the runs and the sign: at="clean" is -(at="corrupt")."""
    from dataclasses import replace

    clean, corrupt = pairs
    named = [replace(x, answer=c.answer, foil=c.foil) for c, x in zip(clean, corrupt, strict=True)]
    there = attribute_heads(tiny, clean, corrupt, at="clean", progress=False)
    back = attribute_heads(tiny, named, clean, at="corrupt", progress=False)
    np.testing.assert_allclose(there, -back, atol=1e-5)
    assert not np.allclose(there, attribute_heads(tiny, clean, corrupt, progress=False), atol=1e-3)


def test_agrees_with_activation_patching() -> None:
    """On the demo model: correlation with the denoising effect of its 48 heads above 0.9, over pairs and pair by pair."""
    demo = load_model("demo", device="cpu")
    clean, corrupt = minimal_pairs(20)
    estimated = attribute_heads(demo, clean, corrupt, progress=False)
    run = patch_heads(demo, clean, corrupt, progress=False)
    moved = run.denoised - run.corrupt
    assert np.corrcoef(estimated.mean(-1).ravel(), moved.mean(-1).ravel())[0, 1] > 0.9
    assert np.corrcoef(estimated.ravel(), moved.ravel())[0, 1] > 0.9


def test_equal_sides_give_zero(tiny: Any, pairs: Any) -> None:
    """corrupt = clean: nothing to move."""
    assert not attribute_heads(tiny, pairs[0], pairs[0], progress=False).any()


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_batches_do_not_matter(batch_size: int, tiny: Any, pairs: Any, found: np.ndarray) -> None:
    """A pair's gradient is its own."""
    again = attribute_heads(tiny, *pairs, batch_size=batch_size, progress=False)
    np.testing.assert_allclose(again, found, atol=1e-4)


@pytest.mark.parametrize("trainable", [False, True])
def test_leaves_the_model_as_it_was(trainable: bool, tiny_folder: Path, pairs: Any, found: np.ndarray) -> None:
    """No parameter gets a gradient or another requires_grad, no hook stays, and torch.no_grad outside is no matter."""
    model = load_model(str(tiny_folder), device="cpu").requires_grad_(trainable)
    ids = torch.tensor([[0, 5, 6, 7]])
    with torch.no_grad():
        before = model(ids)
        again = attribute_heads(model, *pairs, progress=False)
        assert torch.equal(model(ids), before)
        assert not torch.is_grad_enabled()
    np.testing.assert_allclose(again, found, atol=1e-5)
    for parameter in model.original_model.parameters():
        assert parameter.grad is None
        assert parameter.requires_grad == trainable


def test_refusals(tiny: Any, pairs: Any) -> None:
    """As `patch_heads`."""
    clean, corrupt = pairs
    with pytest.raises(ValueError, match="batch_size: expected at least 1 pair a forward pass, got 0"):
        attribute_heads(tiny, clean, corrupt, batch_size=0)
    with pytest.raises(ValueError, match="corrupt: expected one prompt for each clean one"):
        attribute_heads(tiny, clean, corrupt[:-1])
    with pytest.raises(ValueError, match="clean: expected prompts with an answer and a foil"):
        attribute_heads(tiny, [Prompt("Mary saw")], [Prompt("John saw")])
    with pytest.raises(ValueError, match='at: expected "corrupt" or "clean", got \'both\''):
        attribute_heads(tiny, clean, corrupt, at="both")
