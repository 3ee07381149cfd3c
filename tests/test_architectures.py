"""Other architectures than GPT-2: rows are the model's own, local attention is masked, and loading options change nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from models import random_model

from helpers import diagnose, load_model, record_attention
from helpers.attention.record import AttentionRecord

pytestmark = pytest.mark.slow

#: 14 and 5 words; with a window of 5 both have queries that see all keys and queries that do not.
PROMPTS = ["When Mary and John went to the store , John gave a drink to", "red cup lamp red cup Mary saw"]
WINDOW = 5

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 64}
LLAMA_LIKE = SMALL | {"intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.3}


class Architecture(NamedTuple):
    """A configuration class, its tiny shape with wide random weights, and the windows of its two layers."""

    config: type
    shape: dict[str, Any]
    windows: tuple[int, ...] = (0, 0)


ARCHITECTURES = {
    "gpt2": Architecture(
        transformers.GPT2Config,
        {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 64, "initializer_range": 0.2},
    ),
    "gpt_neox": Architecture(
        transformers.GPTNeoXConfig, SMALL | {"intermediate_size": 64, "initializer_range": 0.3}
    ),
    "llama": Architecture(transformers.LlamaConfig, LLAMA_LIKE),
    "mistral": Architecture(
        transformers.MistralConfig, LLAMA_LIKE | {"sliding_window": WINDOW}, (WINDOW, WINDOW)
    ),
    "qwen2": Architecture(transformers.Qwen2Config, LLAMA_LIKE),
    "opt": Architecture(
        transformers.OPTConfig,
        SMALL | {"ffn_dim": 64, "word_embed_proj_dim": 32, "pad_token_id": 1, "init_std": 0.3},
    ),
    "gpt_neo": Architecture(
        transformers.GPTNeoConfig,
        {"num_layers": 2, "num_heads": 4, "hidden_size": 32, "max_position_embeddings": 64, "window_size": WINDOW,
         "attention_types": [[["global", "local"], 1]], "initializer_range": 0.1},
        (0, WINDOW),
    ),
    "gemma2": Architecture(  # layers in turn: a sliding window, and all keys
        transformers.Gemma2Config,
        LLAMA_LIKE | {"sliding_window": WINDOW, "head_dim": 8, "query_pre_attn_scalar": 8},
        (WINDOW, 0),
    ),
}  # fmt: skip
WINDOWED = [name for name, architecture in ARCHITECTURES.items() if any(architecture.windows)]


@pytest.fixture(scope="module")
def folder_of(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The Hugging Face folder of a random tiny model of each architecture, made when first asked for."""
    root = tmp_path_factory.mktemp("architectures")

    @cache
    def make(name: str) -> Path:
        config = ARCHITECTURES[name].config(
            vocab_size=len(words), bos_token_id=words.bos_token_id, eos_token_id=0, **ARCHITECTURES[name].shape
        )
        random_model(config).save_pretrained(root / name)
        words.save_pretrained(root / name)
        return root / name

    return make


@pytest.fixture(scope="module")
def loaded(folder_of: Callable[[str], Path]) -> Callable[..., Any]:
    """`load_model` of an architecture's folder, once a dtype."""
    return cache(lambda name, dtype="float32": load_model(str(folder_of(name)), device="cpu", dtype=dtype))


@pytest.fixture(scope="module")
def recorded(loaded: Callable[..., Any]) -> Callable[..., AttentionRecord]:
    """All rows of `PROMPTS`, once an architecture, dtype and choice of BOS."""
    return cache(
        lambda name, dtype="float32", bos=True: record_attention(
            loaded(name, dtype), PROMPTS, query="all", prepend_bos=bos, progress=False
        )
    )


@pytest.fixture(scope="module")
def by_hf(folder_of: Callable[[str], Path]) -> Callable[..., Any]:
    """The same weights by transformers alone, in eager attention."""

    @cache
    def load(name: str, dtype: str) -> Any:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder_of(name), attn_implementation="eager", dtype=getattr(torch, dtype)
        )
        return model.eval()

    return load


@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no bos"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_equal_output_attentions(
    name: str, dtype: str, bos: bool, recorded: Callable[..., AttentionRecord], by_hf: Callable[..., Any]
) -> None:
    """Every row of both prompts = transformers' output_attentions, float32 to 1e-6; rows are far from all alike."""
    record = recorded(name, dtype, bos)
    assert record.rows.dtype == getattr(torch, dtype)
    assert ["BOS" in prompt.positions for prompt in record.prompts] == [bos, bos]
    for prompt, rows in zip(record.prompts, record.rows, strict=True):
        n = len(prompt)
        with torch.no_grad():
            expected = torch.cat(by_hf(name, dtype)(torch.tensor([prompt.ids]), output_attentions=True).attentions)
        assert rows[:, :, :n, :n].shape == expected.shape == (2, 4, n, n)
        tolerance = 1e-6 if dtype == "float32" else 1e-2
        torch.testing.assert_close(rows[:, :, :n, :n], expected, rtol=0, atol=tolerance)
        assert expected.float().std(1).max() > 0.05, "heads are alike: equality would say nothing"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weight_lies_on_visible_keys_alone(name: str, dtype: str, recorded: Callable[..., AttentionRecord]) -> None:
    """0 outside ``visible()``, above 0 inside; a layer's t-th query sees min(t + 1, window) keys; sums are 1."""
    record = recorded(name, dtype)
    assert record.windows == ARCHITECTURES[name].windows
    visible = record.visible().expand(record.rows.shape)
    assert not record.rows[~visible].any()
    assert (record.rows.float() > 0)[visible].float().mean() > 0.99
    for number, prompt in enumerate(record.prompts):
        for layer, window in enumerate(ARCHITECTURES[name].windows):
            n = len(prompt)
            counts = visible[number, layer, 0, :n].sum(-1).tolist()
            assert counts == [min(t + 1, window or n) for t in range(n)]
            sums = record.rows[number, layer, :, :n].float().sum(-1)
            tolerance = 1e-5 if dtype == "float32" else 1e-2
            torch.testing.assert_close(sums, torch.ones(4, n), rtol=0, atol=tolerance)


# KL and chi


def plain_kl_chi(row: list[float]) -> tuple[float, float]:
    """KL = (log n + sum p log p) / log n and chi = Var_p(log p) / (log n)^2, key by key in float64."""
    total = math.fsum(row)
    p = [x / total for x in row]
    log_n, mean = math.log(len(p)), math.fsum(x * math.log(x) for x in p if x)
    variance = math.fsum(x * (math.log(x) - mean) ** 2 for x in p if x)
    return (log_n + mean) / log_n, variance / log_n**2


@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no bos"])
@pytest.mark.parametrize("name", ["llama", *WINDOWED])
def test_kl_and_chi_equal_a_plain_reference(name: str, bos: bool, recorded: Callable[..., AttentionRecord]) -> None:
    """Each row's n is its window (or t + 1): KL and chi of every query = the sums over its last n weights, to 1e-9."""
    record = recorded(name, "float32", bos)
    measured = diagnose(record)
    for number, prompt in enumerate(record.prompts):
        for layer, window in enumerate(record.windows):
            for head in range(4):
                for t in range(1, len(prompt)):
                    first = max(0, t + 1 - window) if window else 0
                    row = record.rows[number, layer, head, t, first : t + 1].double().tolist()
                    kl, chi = plain_kl_chi(row)
                    assert measured.kl[number, layer, head, t] == pytest.approx(kl, abs=1e-9)
                    assert measured.chi[number, layer, head, t] == pytest.approx(chi, abs=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_kl_and_chi_are_finite(name: str, dtype: str, recorded: Callable[..., AttentionRecord]) -> None:
    """Finite from the second query on, NaN exactly at the first query and at queries the shorter prompt lacks."""
    record = recorded(name, dtype)
    several = (record.visible().sum(-1) > 1).expand(record.rows.shape[:-1]).numpy()
    found = diagnose(record)
    for values in (found.kl, found.chi):
        assert np.array_equal(np.isfinite(values), several)
    assert several.sum() == sum(2 * 4 * (len(prompt) - 1) for prompt in record.prompts)


# What must not change the rows


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama"])
def test_compatibility_mode_changes_no_diagnostic(
    name: str, folder_of: Callable[[str], Path], recorded: Callable[..., AttentionRecord]
) -> None:
    """TransformerLens's folded weights are the same function: KL and chi to 1e-5."""
    model = load_model(str(folder_of(name)), device="cpu")
    weights = model.blocks[0].attn.W_Q.detach().clone()
    model.enable_compatibility_mode()
    assert not torch.equal(weights, model.blocks[0].attn.W_Q), "nothing was folded"
    folded = diagnose(record_attention(model, PROMPTS, query="all", progress=False))
    plain = diagnose(recorded(name))
    np.testing.assert_allclose(folded.kl, plain.kl, rtol=0, atol=1e-5)
    np.testing.assert_allclose(folded.chi, plain.chi, rtol=0, atol=1e-5)


@pytest.mark.parametrize("placement", ["cpu", {"": "cpu"}], ids=["name", "map"])
@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_device_map(
    placement: Any, name: str, folder_of: Callable[[str], Path], recorded: Callable[..., AttentionRecord]
) -> None:
    """device_map with everything on the CPU gives the rows of device="cpu", bit by bit."""
    pytest.importorskip("accelerate", reason="device_map needs accelerate")
    model = load_model(str(folder_of(name)), device_map=placement)
    assert torch.equal(record_attention(model, PROMPTS, query="all", progress=False).rows, recorded(name).rows)


def test_no_bos_token(loaded: Callable[..., Any], by_hf: Callable[..., Any], recorded: Callable[..., Any]) -> None:
    """A tokenizer without BOS is refused by a sentence that names the way out, and that way gives the rows without BOS."""
    model = loaded("qwen2")
    had = model.tokenizer.bos_token
    model.tokenizer.bos_token = None
    try:
        with pytest.raises(ValueError, match=r"^prepend_bos: this tokenizer has no BOS token; pass prepend_bos=False$"):
            record_attention(model, PROMPTS, progress=False)
        record = record_attention(model, PROMPTS, query="all", prepend_bos=False, progress=False)
    finally:
        model.tokenizer.bos_token = had
    assert "BOS" not in record.prompts[0].positions
    assert torch.equal(record.rows, recorded("qwen2", "float32", False).rows)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fingerprint_is_of_the_models_own_weights(
    name: str, folder_of: Callable[[str], Path], loaded: Callable[..., Any]
) -> None:
    """The wrapper's names and additions do not count: hashed are the tensors of transformers' own state dict."""
    from helpers.models import fingerprint

    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder_of(name)).state_dict()
    found = fingerprint._weights(loaded(name))
    assert found.keys() == theirs.keys()
    assert all(torch.equal(found[key], theirs[key]) for key in theirs)
