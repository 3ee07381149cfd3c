"""Head outputs: z by the model's own rows and values, and attributions that add up to the logit difference."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import test_architectures
import torch
import transformers

from helpers import abc_prompts, load_model, minimal_pairs, output_change, record_attention, record_outputs
from helpers.contents.outputs import HeadOutputs
from helpers.prompts.prompt import Prompt

pytestmark = pytest.mark.slow

#: Random models with norms' weights far from 1; LayerNorm with biases, and RMSNorm with two heads a value.
folder_of = test_architectures.folder_of
NORMS = ["gpt2", "llama"]
PROMPTS = [
    Prompt("When Mary and John went to the store , John gave a drink to", answer="Mary", foil="John"),
    Prompt("red cup lamp red cup Mary saw", answer="lamp", foil="red"),
    Prompt("When Mary and John went to the park , Tom gave a drink to", answer="John", foil="Tom"),
]


class Parts(NamedTuple):
    """What a transformers model writes to the residual stream at END of one prompt, in float64, and how it is read."""

    z: torch.Tensor  # (layer, head, d_head): attention rows times values
    writes: torch.Tensor  # (layer, head, d_model)
    rest: torch.Tensor  # (d_model,): embeddings, MLPs, output biases
    norm: torch.nn.Module
    unembedding: torch.Tensor  # (vocabulary, d_model)
    logits: torch.Tensor


def parts_of(name: str, hf: Any, ids: torch.Tensor) -> Parts:
    """Taken apart by hand from a model in float64 with 4 heads of 8 dimensions."""
    gpt2 = name == "gpt2"
    body = hf.transformer if gpt2 else hf.model
    blocks = body.h if gpt2 else body.layers
    mlps: list[torch.Tensor] = []
    handles = [block.mlp.register_forward_hook(lambda module, args, out: mlps.append(out[0, -1])) for block in blocks]
    with torch.no_grad():
        out = hf(ids, output_attentions=True, output_hidden_states=True)
    for handle in handles:
        handle.remove()
    rest = out.hidden_states[0][0, -1] + sum(mlps)
    z, writes = [], []
    for block, x, rows in zip(blocks, out.hidden_states, out.attentions, strict=False):
        if gpt2:
            values = block.attn.c_attn(block.ln_1(x))[0, :, 64:].reshape(-1, 4, 8)
            output, bias = block.attn.c_proj.weight, block.attn.c_proj.bias  # (in, out)
        else:
            values = block.self_attn.v_proj(block.input_layernorm(x))[0].reshape(-1, 2, 8).repeat_interleave(2, dim=1)
            output, bias = block.self_attn.o_proj.weight.T, torch.zeros(())
        z.append(torch.einsum("hk,khd->hd", rows[0, :, -1], values))
        writes.append(torch.stack([z[-1][head] @ output[8 * head : 8 * head + 8] for head in range(4)]))
        rest = rest + bias
    norm = body.ln_f if gpt2 else body.norm
    return Parts(torch.stack(z), torch.stack(writes), rest, norm, hf.lm_head.weight, out.logits[0, -1])


def read(parts: Parts, written: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
    """(written - mean) / scale * gamma . difference, with the scale of the whole stream; RMSNorm has no mean."""
    stream = parts.writes.sum((0, 1)) + parts.rest
    if isinstance(parts.norm, torch.nn.LayerNorm):
        stream, written = stream - stream.mean(), written - written.mean(-1, keepdim=True)
        scale = (stream.square().mean() + parts.norm.eps).sqrt()
    else:
        scale = (stream.square().mean() + parts.norm.variance_epsilon).sqrt()
    return written / scale * parts.norm.weight @ difference


@pytest.fixture(scope="module")
def outputs(folder_of: Callable[[str], Path]) -> Callable[[str], tuple[Any, HeadOutputs]]:
    """A model and its outputs at END on `PROMPTS`."""

    @cache
    def record(name: str) -> tuple[Any, HeadOutputs]:
        model = load_model(str(folder_of(name)), device="cpu")
        return model, record_outputs(model, PROMPTS, progress=False)

    return record


@pytest.fixture(scope="module")
def taken_apart(folder_of: Callable[[str], Path], outputs: Any) -> Callable[[str], list[Parts]]:
    """The same prompts by transformers alone."""

    @cache
    def take(name: str) -> list[Parts]:
        hf = transformers.AutoModelForCausalLM.from_pretrained(folder_of(name), attn_implementation="eager").double()
        return [parts_of(name, hf.eval(), torch.tensor([p.ids])) for p in outputs(name)[1].prompts]

    return take


@pytest.mark.parametrize("name", NORMS)
def test_z_is_rows_times_values(name: str, outputs: Any, taken_apart: Any) -> None:
    """z = sum_i pi_i v_i of transformers' own attention rows and value projections, prompts of two lengths."""
    found = outputs(name)[1]
    assert found.z.shape == (3, 2, 4, 8)
    expected = np.stack([parts.z.detach().numpy() for parts in taken_apart(name)])
    np.testing.assert_allclose(found.z, expected, atol=1e-4)


@pytest.mark.parametrize("name", NORMS)
def test_attributions_add_up(name: str, outputs: Any, taken_apart: Any) -> None:
    """Each head's attribution is its write read by hand; with embeddings, MLPs and biases all are the difference."""
    model, found = outputs(name)
    for prompt, attribution, parts in zip(PROMPTS, found.attribution, taken_apart(name), strict=True):
        answer, foil = (model.tokenizer.convert_tokens_to_ids(word) for word in (prompt.answer, prompt.foil))
        difference = parts.unembedding[answer] - parts.unembedding[foil]
        np.testing.assert_allclose(attribution, read(parts, parts.writes, difference).detach(), atol=1e-5)
        bias = getattr(parts.norm, "bias", None)
        rest = read(parts, parts.rest, difference) + (0 if bias is None else bias @ difference)
        said = (parts.logits[answer] - parts.logits[foil]).item()
        assert attribution.sum() + rest.item() == pytest.approx(said, abs=1e-5)
        assert np.abs(attribution).max() > 0.01


@pytest.mark.parametrize("name", ["gpt_neox", "mistral", "opt", "gpt_neo"])
def test_other_architectures_add_up(name: str, outputs: Any) -> None:
    """The check inside, that everything adds up to the logit difference, passes; attributions are finite."""
    assert np.isfinite(outputs(name)[1].attribution).all()


def test_refuses_what_does_not_add_up(folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms after the sum (GPT-1): one sentence instead of wrong attributions, or NaN with it; z is still to be had."""
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 64, "initializer_range": 0.2}
    architecture = test_architectures.Architecture(transformers.OpenAIGPTConfig, shape)
    monkeypatch.setitem(test_architectures.ARCHITECTURES, "gpt1", architecture)
    model = load_model(str(folder_of("gpt1")), device="cpu")
    words = "model: expected blocks that add what attention and MLP write to the residual stream, got "
    with pytest.raises(ValueError, match=f"^{words}.*, where layer 0 does not$"):
        record_outputs(model, PROMPTS, progress=False)
    lenient = record_outputs(model, PROMPTS, lenient=True, progress=False)
    assert lenient.reasons["attribution"].startswith(words)
    assert np.isnan(lenient.attribution).all()
    z_alone = record_outputs(model, [p.text for p in PROMPTS], progress=False)
    np.testing.assert_array_equal(z_alone.z, lenient.z)
    assert np.abs(z_alone.z).min() > 0


def test_sets_of_answers(tiny: Any) -> None:
    """Sets: the difference of mean logits, so that the mean over the four pairs of one answer and one foil is the same."""
    text, right, wrong = (
        "When Mary and John went to the store , John gave a drink to",
        ("Mary", "Tom"),
        ("John", "Kate"),
    )
    sets = record_outputs(tiny, [Prompt(text, answers=right, foils=wrong)], progress=False).attribution
    pairs = [Prompt(text, answer=a, foil=f) for a in right for f in wrong]
    each = record_outputs(tiny, pairs, progress=False).attribution
    np.testing.assert_allclose(sets[0], each.mean(0), atol=1e-6)
    assert np.abs(sets).max() > 0.01


def test_bos_is_passed_on(tiny: Any) -> None:
    """bos: the first token is the one asked for, and outputs are those after it; another one than the tokenizer's own."""
    other = record_outputs(tiny, abc_prompts(2), bos="red", progress=False)
    assert {p.ids[0] for p in other.prompts} == {tiny.tokenizer.convert_tokens_to_ids("red")}
    assert np.abs(other.z - record_outputs(tiny, abc_prompts(2), progress=False).z).max() > 1e-3


def test_no_answer_no_attribution(tiny: Any) -> None:
    """NaN for a prompt without an answer or foil, and at a position other than END, where z is not that at END."""
    prompts = [*minimal_pairs(2)[0], Prompt("red cup lamp", answer="red"), Prompt("red cup lamp")]
    end = record_outputs(tiny, prompts, progress=False)
    assert np.isfinite(end.attribution).all((1, 2)).tolist() == [True, True, False, False]
    assert np.isnan(end.attribution[2:]).all()
    s2 = record_outputs(tiny, prompts[:2], position="S2", progress=False)
    assert np.isnan(s2.attribution).all()
    assert np.abs(s2.z - end.z[:2]).min() > 0


def test_position_is_each_prompts_own(tiny: Any) -> None:
    """z at S1 of a text is z at END of the text cut there: nothing later is seen."""
    prompts = minimal_pairs(6)[0]
    assert len({p.spans["S1"] for p in prompts}) > 1
    cut = [p.text[: p.spans["S1"][1]] for p in prompts]
    whole = record_outputs(tiny, prompts, position="S1", progress=False)
    np.testing.assert_allclose(whole.z, record_outputs(tiny, cut, progress=False).z, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_batches_and_lengths_do_not_matter(batch_size: int, outputs: Any) -> None:
    """Prompts of several lengths come back in their order, whatever the batches."""
    model, found = outputs("gpt2")
    again = record_outputs(model, PROMPTS, batch_size=batch_size, progress=False)
    assert [p.prompt for p in again.prompts] == PROMPTS
    np.testing.assert_allclose(again.z, found.z, atol=1e-5)
    np.testing.assert_allclose(again.attribution, found.attribution, atol=1e-5)


def test_without_bos(tiny: Any) -> None:
    """prepend_bos=False records other outputs, of the tokens without BOS."""
    bare = record_outputs(tiny, abc_prompts(2), prepend_bos=False, progress=False)
    assert "BOS" not in bare.prompts[0].positions
    assert np.abs(bare.z - record_outputs(tiny, abc_prompts(2), progress=False).z).max() > 1e-3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str, tiny_folder: Path, tiny: Any) -> None:
    """Recorded in float32, near the float32 model's."""
    half = record_outputs(load_model(str(tiny_folder), device="cpu", dtype=dtype), PROMPTS, progress=False)
    full = record_outputs(tiny, PROMPTS, progress=False)
    assert half.z.dtype == half.attribution.dtype == np.float32
    np.testing.assert_allclose(half.attribution, full.attribution, atol=0.02 * np.abs(full.attribution).max() + 0.02)


def test_magnitude() -> None:
    """||z||^2 / d_head: z = (3, 4, 0, 0) has 25/4."""
    z = np.array([3.0, 4.0, 0.0, 0.0], dtype=np.float32).reshape(1, 1, 1, 4)
    assert HeadOutputs([], "END", z, z[..., 0]).magnitude.tolist() == [[[6.25]]]


def test_magnitude_is_the_posts(shared: Path) -> None:
    """The formula above is the one noted with the published magnitudes."""
    assert "||sum_i pi_i v_i||^2 / d_head" in (shared / "reference" / "posts.md").read_text()


def test_output_change(tiny: Any) -> None:
    """0 against itself and at positions before the sides of a pair differ; else the distance of the two z."""
    sides = minimal_pairs(4)
    before = [record_outputs(tiny, [" ".join(p.text.split()[:6]) for p in side], progress=False) for side in sides]
    assert not output_change(*before).any()
    active, control = (record_outputs(tiny, side, progress=False) for side in sides)
    assert not output_change(active, active).any()
    change = output_change(active, control)
    assert change.shape == (4, 3, 4)
    assert change[2, 1, 3] == pytest.approx(np.sqrt(((active.z[2, 1, 3] - control.z[2, 1, 3]) ** 2).sum()), rel=1e-5)


def test_leaves_the_model_as_it_was(tiny: Any) -> None:
    """No hooks stay: logits are the same before and after, and attention rows too."""
    ids = torch.tensor([[0, 5, 6, 7]])
    with torch.no_grad():
        before = tiny(ids)
        record_outputs(tiny, PROMPTS, progress=False)
        assert torch.equal(tiny(ids), before)
    assert record_attention(tiny, PROMPTS, progress=False).rows.isfinite().all()


def test_refusals(tiny: Any) -> None:
    """Empty batches, no prompts, unnamed positions, and sides that do not match."""
    with pytest.raises(ValueError, match="batch_size: expected at least 1 prompt a forward pass, got 0"):
        record_outputs(tiny, PROMPTS, batch_size=0)
    with pytest.raises(ValueError, match="prompts: expected at least one"):
        record_outputs(tiny, [])
    with pytest.raises(ValueError, match=r"^position: prompt 1 has BOS, END, got 'S2'$"):
        record_outputs(tiny, PROMPTS, position="S2")
    three, two = (record_outputs(tiny, side, progress=False) for side in (PROMPTS, PROMPTS[:2]))
    with pytest.raises(ValueError, match=r"^control: expected outputs of shape \(3, .* as in active, got \(2, "):
        output_change(three, two)
