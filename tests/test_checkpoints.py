"""Checkpoints as they come: weights that are missing or of another shape, quantised ones, tokenizers that disagree: one sentence."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from models import random_model, save_tiny_gpt2
from safetensors.torch import load_file, save_file

from helpers import ModelUnavailable, ioi_prompts, load_model, record_attention
from helpers.models import load
from helpers.models.tokenizer import load_tokenizer

pytestmark = pytest.mark.slow

LLAMA = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64, "initializer_range": 0.3, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def llama(words: Any, tmp_path: Path) -> Path:
    """A random Llama with an unembedding of its own, as a folder that a test may spoil."""
    config = transformers.LlamaConfig(vocab_size=len(words), bos_token_id=0, eos_token_id=0, **LLAMA)
    random_model(config).save_pretrained(tmp_path / "llama")
    words.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def refusal(folder: Path) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        load_model(str(folder), device="cpu")
    said = str(caught.value)
    assert said.startswith(f"model {str(folder)!r}: ")
    assert "\n" not in said
    return said.removeprefix(f"model {str(folder)!r}: ")


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Change the weights of a folder."""
    path = folder / "model.safetensors"
    save_file({k: v.contiguous() for k, v in change(load_file(path)).items()}, path, metadata={"format": "pt"})


def settings(folder: Path, name: str = "config.json", **changes: Any) -> None:
    """Change a JSON file of a folder; None takes an entry out."""
    path = folder / name
    said = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


MISSING = {
    "compiled": (
        lambda w: {f"_orig_mod.{k}": v for k, v in w.items()},
        r"expected every weight in '.*', but 'lm_head.weight' and \d+ more are missing \(there is '_orig_mod\.lm_head.weight'",
    ),
    "a layer": (
        lambda w: {k: v for k, v in w.items() if "layers.1." not in k},
        r"expected every weight in '.*', but 'model.layers.1.input_layernorm.weight' and 8 more are missing$",
    ),
    "the unembedding": (
        lambda w: {k: v for k, v in w.items() if k != "lm_head.weight"},
        r"expected every weight in '.*', but 'lm_head.weight' is missing$",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), MISSING.values(), ids=MISSING)
def test_weights_that_are_not_there(change: Any, sentence: str, llama: Path) -> None:
    """Names with torch.compile's prefix, a layer short, no untied unembedding: the first missing weight is named."""
    rewrite(llama, change)
    assert re.search(sentence, refusal(llama))


def test_tied_weights_are_not_missing(tiny_folder: Path, tmp_path: Path) -> None:
    """An unembedding that is the embedding need not be in the file."""
    shutil.copytree(tiny_folder, tmp_path / "m")
    assert "lm_head.weight" not in load_file(tmp_path / "m" / "model.safetensors")
    load_model(str(tmp_path / "m"), device="cpu")


@pytest.mark.parametrize("change", [{"hidden_size": 64}, {"num_attention_heads": 8}, {"vocab_size": 9999}], ids=str)
def test_sizes_that_differ(change: dict[str, int], llama: Path) -> None:
    """A configuration of other sizes than the weights is refused."""
    settings(llama, **change)
    assert re.search(
        r"^expected every weight in '.*', but '.*' (and \d+ more have other shapes|has another shape)$", refusal(llama)
    )


QUANTISED = {
    "bitsandbytes": {"load_in_4bit": True, "quant_method": "bitsandbytes"},
    "gptq": {"bits": 4, "group_size": 128, "quant_method": "gptq"},
    "awq": {"bits": 4, "group_size": 128, "quant_method": "awq"},
    "fp8": {"quant_method": "fp8"},
}


@pytest.mark.parametrize("method", QUANTISED)
def test_quantised_checkpoints(method: str, llama: Path) -> None:
    """Refused by method, before any library is looked for."""
    settings(llama, quantization_config=QUANTISED[method])
    expected = (
        f"expected weights in float32, bfloat16 or float16 (or a .gguf file), got a checkpoint quantised by {method}"
    )
    assert refusal(llama) == expected


def test_no_architecture_named(tmp_path: Path) -> None:
    """GPT-2 whose config.json names no architecture is a causal model all the same; an encoder without one is not."""
    settings(save_tiny_gpt2(tmp_path / "gpt2"), architectures=None)
    assert load_model(str(tmp_path / "gpt2"), device="cpu").n_layers == 3


def test_an_encoder_without_a_name(words: Any, tmp_path: Path) -> None:
    """BERT without a named architecture looks both ways: refused."""
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    settings(tmp_path, architectures=None)
    refusal(tmp_path)


def test_a_bos_beyond_the_embedding(llama: Path) -> None:
    """A token that was added to the tokenizer and not to the model: named with its id and the embedding's size."""
    model = load_model(str(llama), device="cpu")
    model.tokenizer.add_special_tokens({"bos_token": "<new>"})
    said = rf"^prompt 1: expected tokens that the model has an embedding for, ids below {model.n_tokens}, got '<new>' \({model.n_tokens}\)$"
    with pytest.raises(ValueError, match=said):
        record_attention(model, ["Mary saw John"], progress=False)


# Tokenizers


def test_a_tokenizer_written_in_python(llama: Path) -> None:
    """ByT5's has no offsets: refused by name."""
    for file in llama.glob("*token*"):
        file.unlink()
    transformers.ByT5Tokenizer().save_pretrained(llama)
    assert refusal(llama).startswith("its tokenizer (ByT5Tokenizer) is written in Python")


def test_the_file_is_right_where_the_class_disagrees(words: Any, tmp_path: Path) -> None:
    """Qwen2's class makes a byte-level BPE of a word-level file, which drops words: the file's tokens are taken."""
    config = transformers.Qwen2Config(
        vocab_size=len(words), bos_token_id=0, eos_token_id=0, **(LLAMA | {"tie_word_embeddings": True})
    )
    random_model(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    by_class = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert by_class.tokenize("Mary saw John") != words.tokenize("Mary saw John"), "the class agrees: nothing is tested"
    found = load_tokenizer(str(tmp_path), local=True)
    assert found.tokenize("Mary saw John") == ["Mary", "saw", "John"]
    assert (found.bos_token, found.eos_token, found.unk_token) == (words.bos_token, words.eos_token, words.unk_token)
    record = record_attention(load_model(str(tmp_path), device="cpu"), ioi_prompts(3), progress=False)
    for prompt in record.prompts:
        assert prompt.tokens[1:] == tuple(prompt.prompt.text.replace(",", " ,").split())


# Text and images


def test_the_text_part_is_taken(words: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma 3 with images is its text part: the whole model's rows, patching too, and nothing is installed on the way."""
    import subprocess

    from architectures import ALL

    monkeypatch.setattr(subprocess, "check_call", lambda *args, **options: pytest.fail(f"ran {args}"))
    special = {"vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    config = transformers.Gemma3Config(text_config=ALL["gemma3, text and images"][1]["text_config"] | special)
    random_model(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    assert type(model.hf).__name__ == "Gemma3ForCausalLM"
    record = record_attention(model, ["Mary saw John"], progress=False)
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.no_grad():
        said = whole(torch.tensor([record.prompts[0].ids]), output_attentions=True).attentions
    torch.testing.assert_close(record.rows[0], torch.cat(said)[:, :, -1], rtol=0, atol=1e-6)
    assert model.lens.cfg.n_layers == 2


# A model cut off while it was fetched


def test_a_half_downloaded_model_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three shards two: not cached; all three, or one file: cached; an index alone: not."""
    shards = {f"layer.{i}": f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    there = {"config.json", "model.safetensors.index.json"}
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda source, f: str(tmp_path / f) if f in there else None
    )
    for shard in shards.values():
        assert not load._is_cached("some/model")
        there.add(shard)
    assert load._is_cached("some/model")
    there.clear()
    there.update({"config.json", "model.safetensors"})
    assert load._is_cached("some/model")


# Sinks and chunks


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sink_is_left_out_or_a_key(dtype: str, words: Any, tmp_path: Path) -> None:
    """gpt-oss: left out, rows are over tokens; as a key it is the last, with the weight that is on no token; n is one more."""
    from architectures import SERVED

    from helpers import diagnose

    shape = SERVED["gpt_oss"].shape | {
        "vocab_size": len(words),
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    random_model(transformers.CONFIG_MAPPING["gpt_oss"](**shape)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu", dtype=dtype)
    prompts = ioi_prompts(3)
    out, key = (record_attention(model, prompts, sink=sink, progress=False) for sink in ("left out", "a key"))
    tolerance = 1e-6 if dtype == "float32" else 1e-2
    assert (out.settings["sink"], key.settings["sink"]) == ("left out", "a key")
    assert key.rows.shape[-1] == out.rows.shape[-1] + 1
    for record in (out, key):
        sums = record.rows.float().sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=2 * tolerance)
    tokens = key.rows[..., :-1].float()
    assert key.rows[..., -1].min() > 0.001
    torch.testing.assert_close(tokens / tokens.sum(-1, keepdim=True), out.rows.float(), rtol=0, atol=2 * tolerance)
    assert (key.visible().sum(-1) == out.visible().sum(-1) + 1).all()
    assert not (diagnose(out).kl == diagnose(key).kl).any()
    key.save(tmp_path / "record")
    again = type(key).load(tmp_path / "record")
    assert torch.equal(again.visible(), key.visible())
    with pytest.raises(ValueError, match=r"^sink: expected 'left out' or 'a key', got 'yes'$"):
        record_attention(model, prompts, sink="yes")  # type: ignore[arg-type]


def test_chunks_are_the_visible_keys(words: Any, tmp_path: Path) -> None:
    """Llama 4: a query sees its chunk alone, so that n, KL and chi are over these keys, by a plain sum."""
    from architectures import SERVED, WINDOW

    from helpers import diagnose

    shape = SERVED["llama4_text"].shape | {
        "vocab_size": len(words),
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    random_model(transformers.CONFIG_MAPPING["llama4_text"](**shape)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    record = record_attention(model, [*ioi_prompts(2), "Mary saw John"], query="all", progress=False)
    kl = diagnose(record).kl
    for number, prompt in enumerate(record.prompts):
        for t in range(len(prompt)):
            seen = list(range(t // WINDOW * WINDOW, t + 1))
            assert record.visible()[number, 0, 0, t].nonzero().ravel().tolist() == seen
            if len(seen) > 1:
                row = record.rows[number, 0, 0, t, seen].double()
                n = torch.tensor(float(len(seen)))
                expected = 1 + (row * row.log()).sum() / n.log()
                assert kl[number, 0, 0, t] == pytest.approx(float(expected), abs=1e-6)
    record.save(tmp_path / "record", compact=True)
    assert torch.equal(type(record).load(tmp_path / "record").visible(), record.visible())
    assert torch.equal(record.at("END").visible()[0, 0, 0], record.visible()[0, 0, 0, len(record.prompts[0]) - 1])
