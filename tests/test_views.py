"""The two views of a model: the same weights, the same numbers, and what tells one from the other."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import GPT2
from models import random_model, save_tiny_gpt2
from transformers import GPT2Config, GPT2LMHeadModel

from helpers import ModelUnavailable, ioi_prompts, load_model, minimal_pairs, patch_heads, record_attention
from helpers.attention.stream import concatenate, record_to_folder
from helpers.experiment import analyse
from helpers.models import canary, forward
from helpers.models.model import LanguageModel

pytestmark = pytest.mark.slow

PROMPTS = ioi_prompts(4)


@pytest.fixture
def model(tiny_folder: Path) -> Any:
    """A tiny model of its own, for tests that change it."""
    return load_model(str(tiny_folder), device="cpu")


def test_recording_needs_no_wrapper(model: Any) -> None:
    """Loading and recording make no wrapper; asking for one of its attributes does."""
    record_attention(model, PROMPTS, readout=True, progress=False)
    assert "lens" not in vars(model)
    assert model.cfg.n_layers == model.n_layers == 3
    assert "lens" in vars(model)


def test_views_share_their_weights(model: Any) -> None:
    """Every tensor of the model is in the wrapper, not copied; a weight changed in one is changed in the other."""
    own = {tensor.data_ptr() for tensor in model.hf.parameters()}
    assert own <= {tensor.data_ptr() for tensor in model.lens.parameters()}
    ids = torch.tensor([[0, 5, 6, 7]])
    with torch.no_grad():
        model.hf.transformer.h[1].mlp.c_fc.weight.mul_(1.5)
        torch.testing.assert_close(model.lens(ids), model.hf(ids).logits, rtol=0, atol=1e-5)


def test_a_model_in_memory(words: Any) -> None:
    """LanguageModel(hf, tokenizer) is what load_model makes of the same weights in a folder: the same rows, bit by bit."""
    hf = random_model(GPT2Config(**(GPT2 | {"vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 0})))
    model = LanguageModel(hf, words, "mine")
    record = record_attention(model, PROMPTS, progress=False)
    assert (record.model, record.rows.shape[1:3]) == ("mine", (2, 4))
    with torch.no_grad():
        hf.set_attn_implementation("eager")
        said = hf(torch.tensor([record.prompts[0].ids]), output_attentions=True).attentions
    torch.testing.assert_close(record.rows[0], torch.cat(said)[:, :, -1], rtol=0, atol=1e-6)
    assert len(patch_heads(model, *minimal_pairs(2), progress=False).clean) == 2


def test_a_hook_on_the_wrapper_is_seen_by_recording(model: Any) -> None:
    """A head taken out in the wrapper changes the rows of later layers; without the hook they are as they were."""
    before = record_attention(model, PROMPTS, progress=False)

    def without(z: torch.Tensor, hook: Any) -> torch.Tensor:
        return z * 0

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", without)]):
        assert not model.is_as_made
        changed = record_attention(model, PROMPTS, progress=False)
    after = record_attention(model, PROMPTS, progress=False)
    assert (changed.rows[:, 1:] - before.rows[:, 1:]).abs().max() > 0.01
    assert torch.equal(after.rows, before.rows)


def test_both_ways_give_the_same_rows(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beside fused attention = the wrapper's patterns, END and all queries, to 1e-6; and the same readout."""
    ways = []
    for refused in ("", "on purpose"):
        monkeypatch.setattr(forward, "supports_fused", lambda hf, refused=refused: refused)
        ways.append(
            [record_attention(model, PROMPTS, query=q, readout=True, progress=False) for q in ("END", "S2", "all")]
        )
    for one, other in zip(*ways, strict=True):
        torch.testing.assert_close(one.rows, other.rows, rtol=0, atol=1e-6)
        torch.testing.assert_close(one.readout.logit_difference, other.readout.logit_difference, rtol=0, atol=1e-4)
        assert torch.equal(one.visible(), other.visible())


def test_a_device_or_dtype_of_its_own(model: Any) -> None:
    """to(): the model moves, and the wrapper is made anew of what it is now."""
    old = model.lens
    assert model.to(torch.bfloat16) is model
    assert model.dtype == torch.bfloat16
    assert model.lens is not old
    assert model.lens.cfg.dtype == torch.bfloat16


def test_a_model_can_be_freed(tiny_folder: Path) -> None:
    """Nothing keeps a model alive that nobody holds."""
    model = load_model(str(tiny_folder), device="cpu")
    record_attention(model, PROMPTS, progress=False)
    gone = weakref.ref(model.hf)
    del model
    gc.collect()
    assert gone() is None


def test_the_tokenizer_is_the_files(model: Any) -> None:
    """The wrapper gets a copy: what it sets there (a padding token, a BOS where there is none) is not seen."""
    before = copy.deepcopy(model.tokenizer)
    model.lens  # noqa: B018
    assert model.tokenizer.special_tokens_map == before.special_tokens_map
    assert model.tokenizer.backend_tokenizer.to_str() == before.backend_tokenizer.to_str()


def test_without_bos_the_refusal_names_the_way_out(tiny_folder: Path, tmp_path: Path) -> None:
    """A tokenizer with an EOS and no BOS: refused, in patching as in recording, with what to pass instead."""
    import json
    import shutil

    shutil.copytree(tiny_folder, tmp_path / "m")
    path = tmp_path / "m" / "tokenizer_config.json"
    said = json.loads(path.read_text())
    del said["bos_token"]
    path.write_text(json.dumps(said))
    model = load_model(str(tmp_path / "m"), device="cpu")
    assert model.tokenizer.eos_token is not None
    for run in (lambda: record_attention(model, PROMPTS), lambda: patch_heads(model, *minimal_pairs(2))):
        with pytest.raises(ValueError, match=r"^prepend_bos: this tokenizer has no BOS token; pass prepend_bos=False$"):
            run()
    assert len(patch_heads(model, *minimal_pairs(2), prepend_bos=False, progress=False).clean) == 2


# The canary


def test_a_wrapper_that_differs_is_refused(words: Any, tmp_path: Path) -> None:
    """GPT-2 without scaled weights, which the wrapper scales: rows are the model's, patching is refused by what differs."""
    config = GPT2Config(
        **(GPT2 | {"vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 0}), scale_attn_weights=False
    )
    random_model(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    hf = GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    record = record_attention(model, PROMPTS, progress=False)
    with torch.no_grad():
        said = hf(torch.tensor([record.prompts[0].ids]), output_attentions=True).attentions
    torch.testing.assert_close(record.rows[0], torch.cat(said)[:, :, -1], rtol=0, atol=1e-6)
    with pytest.raises(
        ModelUnavailable, match=r"wrapper is not this model: attention of layer 0 is off by 0\.\d+ of the"
    ):
        patch_heads(model, *minimal_pairs(2), progress=False)


@pytest.mark.parametrize("what", ["pattern", "z", "logits", "hook"])
def test_every_difference_is_seen(what: str, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper that changes the pattern, z, or the logits, or lacks a hook, is refused, and by that name."""
    lens, run = model.lens, canary._run
    expected = canary.reference_pass(model)

    def spoilt(lens: Any, ids: torch.Tensor, hooks: list[Any]) -> torch.Tensor:
        def off(name: str, inner: Any) -> Any:
            wrong = what in name and "blocks.1" in name
            return lambda x, **given: inner(x * 1.01 if wrong else x, **given)

        if what == "hook":
            hooks = [(name, hook) for name, hook in hooks if name != "blocks.1.attn.hook_z"]
        logits = run(lens, ids, [(name, off(name, inner)) for name, inner in hooks])
        return logits * 1.01 if what == "logits" else logits

    monkeypatch.setattr(canary, "_run", spoilt)
    named = {
        "pattern": "attention of layer 1",
        "z": "z of layer 1",
        "logits": "the logits",
        "hook": "hook at blocks.1.attn.hook_z",
    }
    with pytest.raises(ValueError, match=named[what]):
        canary.compare_views(model, lens, expected)


def test_rows_that_differ_are_refused(model: Any) -> None:
    """Rows of another model, weight on hidden keys, and logits that differ are each named."""
    rows_of = canary.rows_of

    def spoilt(change: str) -> Any:
        def rows(hf: Any, *args: Any, **options: Any) -> Any:
            found = rows_of(hf, *args, **options)
            if change == "rows":
                found.rows[:, 2] = found.rows[:, 2].flip(1)
            if change == "mask":
                found.visible[:, 1, 0] = False
            if change == "logits":
                found.logits.mul_(1.01)
            return found

        return rows

    canary.compare_rows(model)
    named = {"rows": "attention of layer 2", "mask": "the mask of layer 1 hides", "logits": "the logits"}
    for change, sentence in named.items():
        with pytest.raises(ValueError, match=sentence):
            canary.compare_rows(model, spoilt(change))


# What a record is of


def test_records_know_which_weights_they_are_of(tiny_folder: Path, tmp_path: Path) -> None:
    """The same model twice: one identity. Another weight, dtype or tokenizer: another; and it is refused where records meet."""
    model = load_model(str(tiny_folder), device="cpu")
    one = record_attention(model, PROMPTS, progress=False)
    assert one.identity == load_model(str(tiny_folder), device="cpu").identity
    with torch.no_grad():
        model.hf.transformer.h[0].attn.c_attn.weight[0, 0] += 1e-3
    other = record_attention(model, PROMPTS, progress=False)
    assert other.identity[:16] != one.identity[:16]
    assert other.identity[16:] == one.identity[16:]
    for join in (lambda: concatenate([one, other]), lambda: analyse(one, other)):
        with pytest.raises(ValueError, match=r"expected records of one model, got .* with two sets of weights"):
            join()
    one.save(tmp_path / "one")
    assert type(one).load(tmp_path / "one").identity == one.identity


def test_a_stream_does_not_mix_models(tmp_path: Path) -> None:
    """Weights that changed between two halves of a stream: refused, and nothing is written."""
    folder, out = save_tiny_gpt2(tmp_path / "m"), tmp_path / "out"
    next(iter(record_to_folder(load_model(str(folder), device="cpu"), PROMPTS, out, chunk=2)))
    save_tiny_gpt2(tmp_path / "m", seed=1)
    with pytest.raises(ValueError, match="holds a record of another run"):
        list(record_to_folder(load_model(str(folder), device="cpu"), PROMPTS, out, chunk=2))
    assert len(list(out.iterdir())) == 1


@pytest.mark.parametrize("change", ["bos", "dtype"])
def test_settings_are_compared(change: str, tiny: Any, tiny_folder: Path) -> None:
    """With and without BOS, float32 and bfloat16: no comparison, no joining."""
    one = record_attention(tiny, PROMPTS, progress=False)
    options: dict[str, Any] = {"prepend_bos": False} if change == "bos" else {}
    model = load_model(str(tiny_folder), device="cpu", dtype="bfloat16") if change == "dtype" else tiny
    other = record_attention(model, PROMPTS, progress=False, **options)
    key = "prepend_bos" if change == "bos" else "dtype"
    for join in (lambda: concatenate([one, other]), lambda: analyse(one, other)):
        with pytest.raises(ValueError, match=rf"expected records of one run's settings, got {key} "):
            join()
