"""Activation patching: TransformerLens's own loop, identities of single runs, and the causal rule at its boundary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers import head_effects, minimal_pairs, patch_heads
from helpers.patching.heads import PatchingRun
from helpers.prompts.prompt import Prompt
from helpers.statistics.effects import THRESHOLD

pytestmark = pytest.mark.slow


def reference(model: Any, source: Any, target: Any, prompts: list[Prompt]) -> torch.Tensor:
    """Mean logit difference per head of TransformerLens's patching loop: target run, one head's z from the source run."""
    from transformer_lens import patching

    def ids(side: list[Prompt]) -> torch.Tensor:
        return torch.tensor([[0, *model.tokenizer(p.text, add_special_tokens=False)["input_ids"]] for p in side])

    answers = torch.tensor([[model.tokenizer.convert_tokens_to_ids(w) for w in (p.answer, p.foil)] for p in prompts])

    def metric(logits: torch.Tensor) -> torch.Tensor:
        right, wrong = logits[:, -1].gather(1, answers).unbind(1)
        return (right - wrong).mean()

    with torch.no_grad():
        _, cache = model.run_with_cache(ids(source))
        return patching.get_act_patch_attn_head_out_all_pos(model, ids(target), cache, metric)


@pytest.fixture(scope="module")
def pairs() -> tuple[list[Prompt], list[Prompt]]:
    """Eight minimal pairs."""
    return minimal_pairs(8)


@pytest.fixture(scope="module")
def run(tiny: Any, pairs: Any) -> PatchingRun:
    """Those pairs patched on the tiny model, at every position."""
    return patch_heads(tiny, *pairs, progress=False)


# Against TransformerLens


def test_equals_transformer_lens(tiny: Any, pairs: Any, run: PatchingRun) -> None:
    """Both directions, head by head: means over pairs = get_act_patch_attn_head_out_all_pos, to float32 rounding."""
    clean, corrupt = pairs
    denoised, noised = reference(tiny, clean, corrupt, clean), reference(tiny, corrupt, clean, clean)
    assert run.denoised.shape == run.noised.shape == (3, 4, 8)
    np.testing.assert_allclose(run.denoised.mean(-1), denoised.numpy(), atol=2e-5)
    np.testing.assert_allclose(run.noised.mean(-1), noised.numpy(), atol=2e-5)
    assert np.abs(run.denoised - run.corrupt).max() > 1e-3


def test_unpatched_runs_are_the_models_logits(tiny: Any, pairs: Any, run: PatchingRun) -> None:
    """clean and corrupt are logit(answer) - logit(foil) of plain passes; the corrupt side keeps the clean answers."""
    from helpers import record_attention

    clean, corrupt = pairs
    for side, prompts in ((run.clean, clean), (run.corrupt, corrupt)):
        said = record_attention(tiny, prompts, readout=True, progress=False).readout
        np.testing.assert_allclose(side, said.logit_difference.numpy(), atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_do_not_matter(batch_size: int, tiny: Any, pairs: Any, run: PatchingRun) -> None:
    """Every pair's numbers are the same in batches of any size."""
    again = patch_heads(tiny, *pairs, batch_size=batch_size, progress=False)
    for name, values in vars(run).items():
        np.testing.assert_allclose(getattr(again, name), values, atol=1e-4, err_msg=name)


# Identities


def test_a_run_patched_with_itself_does_not_move(tiny: Any, pairs: Any) -> None:
    """corrupt = clean: every patched logit difference is the unpatched one."""
    run = patch_heads(tiny, pairs[0], pairs[0], progress=False)
    np.testing.assert_array_equal(run.clean, run.corrupt)
    for patched in (run.denoised, run.noised):
        np.testing.assert_allclose(patched, np.broadcast_to(run.clean, patched.shape), atol=1e-4)


def test_swapping_sides_swaps_directions(tiny: Any, pairs: Any, run: PatchingRun) -> None:
    """Exchanging clean and corrupt (with the same answers) exchanges denoising and noising."""
    from dataclasses import replace

    clean, corrupt = pairs
    assert all((c.answer, c.foil) == (x.answer, x.foil) for c, x in zip(clean, corrupt, strict=True))
    swapped = patch_heads(tiny, [replace(p) for p in corrupt], clean, progress=False)
    np.testing.assert_allclose(swapped.denoised, run.noised, atol=1e-4)
    np.testing.assert_allclose(swapped.noised, run.denoised, atol=1e-4)


def test_before_s2_there_is_nothing_to_patch(tiny: Any, pairs: Any, run: PatchingRun) -> None:
    """Sides agree before S2, so patching IO, S1 or S1+1 alone changes nothing, and at END it does."""
    for name in ("IO", "S1", "S1+1"):
        still = patch_heads(tiny, *pairs, position=name, progress=False)
        np.testing.assert_allclose(still.denoised, np.broadcast_to(run.corrupt, still.denoised.shape), atol=1e-4)
        np.testing.assert_allclose(still.noised, np.broadcast_to(run.clean, still.noised.shape), atol=1e-4)
    assert np.abs(patch_heads(tiny, *pairs, position="END", progress=False).denoised - run.corrupt).max() > 1e-3


def test_last_layer_acts_at_the_end_alone(tiny: Any, pairs: Any, run: PatchingRun) -> None:
    """Logits at END read the last layer's z at END only: there, patching END equals patching every position."""
    end = patch_heads(tiny, *pairs, position="END", progress=False)
    np.testing.assert_allclose(end.denoised[-1], run.denoised[-1], atol=1e-4)
    np.testing.assert_allclose(end.noised[-1], run.noised[-1], atol=1e-4)
    assert np.abs(end.denoised[0] - run.denoised[0]).max() > 1e-3


def test_one_position_that_holds_all_the_difference(tiny: Any) -> None:
    """Where S2 is the last token the sides differ nowhere else: patching S2, END or every position is the same."""
    clean, corrupt = minimal_pairs(4, frames=["When {X} and {Y} went to the store, {GIVER}"])
    everywhere = patch_heads(tiny, clean, corrupt, progress=False)
    assert np.abs(everywhere.denoised - everywhere.corrupt).max() > 1e-3
    for name in ("S2", "END"):
        alone = patch_heads(tiny, clean, corrupt, position=name, progress=False)
        np.testing.assert_allclose(alone.denoised, everywhere.denoised, atol=1e-4)
        np.testing.assert_allclose(alone.noised, everywhere.noised, atol=1e-4)


def test_position_is_each_prompts_own(tiny: Any) -> None:
    """S2 at different indices in one batch: each pair's numbers are those it has alone."""
    frames = ["When {X} and {Y} met , {GIVER} went to the", "When {X} and {Y} met at the park {GIVER} saw"]
    clean, corrupt = minimal_pairs(6, frames=frames, seed=3)
    assert {p.text.split().index(p.foil, 5) for p in clean} == {6, 8}
    together = patch_heads(tiny, clean, corrupt, position="S2", progress=False)
    for i in range(6):
        alone = patch_heads(tiny, clean[i : i + 1], corrupt[i : i + 1], position="S2", progress=False)
        np.testing.assert_allclose(together.denoised[..., i], alone.denoised[..., 0], atol=1e-4)


def test_no_hooks_left(tiny: Any, pairs: Any) -> None:
    """Logits are the same before and after."""
    ids = torch.tensor([[0, 5, 6, 7]])
    with torch.no_grad():
        before = tiny(ids)
        patch_heads(tiny, pairs[0][:2], pairs[1][:2], progress=False)
        assert torch.equal(tiny(ids), before)


# Refusals


def test_refuses_sides_that_do_not_pair(tiny: Any, pairs: Any) -> None:
    """Unequal numbers or lengths, several lengths, no answer, no such position."""
    clean, corrupt = pairs
    with pytest.raises(ValueError, match="corrupt: expected one prompt for each clean one, of the same number"):
        patch_heads(tiny, clean, corrupt[:-1], progress=False)
    with pytest.raises(ValueError, match="corrupt: expected one prompt for each clean one, of the same number"):
        patch_heads(tiny, clean[:1], [Prompt("Mary saw John")], progress=False)
    short = Prompt("Mary saw", answer="John", foil="Mary")
    with pytest.raises(ValueError, match="clean: expected prompts of one length"):
        patch_heads(tiny, [clean[0], short], [corrupt[0], short], progress=False)
    with pytest.raises(ValueError, match="clean: expected prompts with an answer and a foil, got one without"):
        patch_heads(tiny, [Prompt("Mary saw")], [Prompt("John saw")], progress=False)
    with pytest.raises(ValueError, match=r"position: expected one of BOS, IO, .*, got 'S3'"):
        patch_heads(tiny, clean, corrupt, position="S3", progress=False)
    with pytest.raises(ValueError, match="prompts: expected at least one"):
        patch_heads(tiny, [], [], progress=False)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_refuses_empty_batches(batch_size: int, tiny: Any, pairs: Any) -> None:
    """A batch holds at least one pair."""
    with pytest.raises(ValueError, match="batch_size: expected"):
        patch_heads(tiny, *pairs, batch_size=batch_size, progress=False)


# Effects and the causal rule


def made_up(effects: list[tuple[float, float]], *, pairs: int = 40, noise: float = 0.0) -> PatchingRun:
    """A run of 1 layer whose heads restore and destroy the given shares of a gap of about 4."""
    rng = np.random.default_rng(0)
    corrupt = rng.normal(-1, 0.3, pairs)
    clean = corrupt + rng.normal(4, 0.3, pairs)
    gap = (clean - corrupt).mean()
    wobble = noise * rng.normal(size=(2, len(effects), pairs))
    wobble -= wobble.mean(-1, keepdims=True)
    restored, destroyed = (gap * np.array(effects).T)[..., None] + wobble
    return PatchingRun(clean, corrupt, (corrupt + restored)[None], (clean - destroyed)[None])


def test_effects_are_shares_of_the_gap() -> None:
    """Known shares come back as denoising and noising, in reading order, with intervals around them."""
    shares = [(0.0, 0.0), (0.5, 0.2), (-0.3, 1.0), (0.01, 0.0)]
    table = head_effects(made_up(shares, noise=0.1))
    assert list(zip(table.layer, table["head"], strict=True)) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    np.testing.assert_allclose(table[["denoising", "noising"]], shares, atol=1e-12)
    for way in ("denoising", "noising"):
        assert (table[f"{way}_low"] <= table[way]).all()
        assert (table[way] <= table[f"{way}_high"]).all()
    assert list(table.causal) == [False, True, True, False]


def test_mean_effect_is_a_ratio_of_means() -> None:
    """With gaps 1 and 3 and moves 1 and 0 the effect is (1 + 0)/(1 + 3), not the mean of the ratios 1 and 0."""
    zeros = np.zeros((1, 1, 2))
    run = PatchingRun(np.array([1.0, 3.0]), np.zeros(2), zeros + np.array([1.0, 0.0]), zeros + np.array([1.0, 3.0]))
    table = head_effects(run, n_resamples=50)
    assert (table.denoising[0], table.noising[0]) == (0.25, 0.0)


def test_whole_and_no_effect() -> None:
    """A head that restores everything has effect 1 with interval [1, 1]; one that does nothing 0 and [0, 0]."""
    run = made_up([(0, 0)])
    run = PatchingRun(run.clean, run.corrupt, run.clean + 0 * run.denoised, run.clean + 0 * run.noised)
    row = head_effects(run, n_resamples=50).iloc[0]
    assert row[["denoising", "denoising_low", "denoising_high"]].tolist() == pytest.approx([1, 1, 1])
    assert row[["noising", "noising_low", "noising_high"]].tolist() == pytest.approx([0, 0, 0])
    assert row.causal


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("way", [0, 1])
def test_causal_rule_at_its_boundary(way: int, sign: int) -> None:
    """|effect| just above 5 % with an interval without 0 is causal, just below is not; either direction, either sign."""
    assert THRESHOLD == 0.05
    above, below = [0.0, 0.0], [0.0, 0.0]
    above[way], below[way] = sign * 0.0501, sign * 0.0499
    assert list(head_effects(made_up([tuple(above), tuple(below)]), n_resamples=200).causal) == [True, False]


def test_an_interval_that_holds_zero_is_not_causal() -> None:
    """A mean effect of 30 % that comes from noise (sd 20 times the mean) is not causal; the same without noise is."""
    noisy, quiet = (head_effects(made_up([(0.3, 0.3)], noise=noise), n_resamples=500) for noise in (24.0, 0.0))
    assert noisy.denoising_low[0] < 0 < noisy.denoising_high[0]
    assert (noisy.causal[0], quiet.causal[0]) == (False, True)


def test_intervals_agree_with_a_bootstrap_by_hand() -> None:
    """Percentile interval of mean(move)/mean(gap) over pairs resampled together, to simulation error."""
    run = made_up([(0.4, 0.1)], noise=1.0)
    rng = np.random.default_rng(5)
    index = rng.integers(0, 40, size=(20_000, 40))
    move, gap = (run.denoised - run.corrupt)[0, 0], run.clean - run.corrupt
    expected = np.quantile(move[index].mean(1) / gap[index].mean(1), [0.025, 0.975])
    row = head_effects(run, n_resamples=20_000).iloc[0]
    np.testing.assert_allclose([row.denoising_low, row.denoising_high], expected, atol=3e-3)


def test_other_words_than_names_can_be_answers(tiny: Any) -> None:
    """Any prompt with an answer and a foil can be patched; the pair need not come from minimal_pairs."""
    clean, corrupt = Prompt("a dog is an", answer="animal", foil="fruit"), Prompt("a plum is a")
    run = patch_heads(tiny, [clean], [corrupt], progress=False)
    assert np.abs(run.denoised - run.corrupt).max() > 1e-3
