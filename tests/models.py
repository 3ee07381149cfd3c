"""Builders for tests: small random language models as Hugging Face folders, and attention records without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedConfig

from helpers.attention.record import AttentionRecord
from helpers.demo.train import N_CTX, build_tokenizer
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import TokenizedPrompt
from helpers.reference.circuits import Circuit

#: Why what Binder's memory holds is not asked of every torch.
CUDA_BUILD = "this torch was built for CUDA and takes 0.4 GB more for itself; Binder's is the build for processors"

#: Shape of the synthetic records, and a circuit in it: heads in three layers, so that depth alone does not find them.
LAYERS, HEADS, KEYS = 4, 6, 15
CIRCUIT = Circuit(
    "toy circuit", LAYERS, HEADS, {"Name Mover": ((1, 2), (2, 0), (2, 5)), "Induction": ((0, 3), (3, 1))}, "made up"
)


def random_model(config: PreTrainedConfig, *, seed: int = 0, **options: Any) -> Any:
    """A random model of any architecture, with norms and biases that are not 1 and 0 as in a new one."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    return model


def save_gpt2(folder: Path, tokenizer: Any, *, seed: int = 0, initializer_range: float = 0.02, **config: Any) -> Path:
    """A random GPT-2 with its tokenizer as a Hugging Face folder."""
    torch.manual_seed(seed)
    bos = tokenizer.bos_token_id
    model = GPT2LMHeadModel(
        GPT2Config(initializer_range=initializer_range, bos_token_id=bos, eos_token_id=bos, **config)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_gpt2(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """3 layers x 4 heads, d_model 32, and wide scores, with the demo tokenizer and context (64)."""
    tokenizer = build_tokenizer()
    shape = {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": N_CTX, "vocab_size": len(tokenizer)}
    return save_gpt2(folder, tokenizer, seed=seed, initializer_range=0.2, **shape | config)


def random_rows(*shape: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    """Softmax of normal scores over the last axis; ``spread`` is the scores' standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(*shape, generator=generator, dtype=torch.float64)).softmax(-1).float()


def causal_rows(
    lengths: Sequence[int], n_layers: int = 2, n_heads: int = 3, *, window: int = 0, seed: int = 0
) -> Tensor:
    """Rows of every query, ``(prompt, layer, head, query, key)``: query t weighs keys 0 … t (or the last ``window``)."""
    longest = max(lengths)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(len(lengths), n_layers, n_heads, longest, longest)
    for prompt, length in enumerate(lengths):
        for t in range(length):
            first = max(0, t + 1 - window) if window else 0
            scores = torch.randn(n_layers, n_heads, t + 1 - first, generator=generator)
            rows[prompt, :, :, t, first : t + 1] = scores.softmax(-1)
    return rows


def toy_prompt(length: int, number: int = 0, **positions: int) -> TokenizedPrompt:
    """A prompt of made-up tokens with BOS, END and the positions given; different numbers make different prompts."""
    ids = (0, *(1 + (number * 31 + i) % 997 for i in range(length - 1)))
    tokens = ("<bos>", *(f" t{i}" for i in ids[1:]))
    return TokenizedPrompt(Prompt(f"toy {number}"), ids, tokens, {"BOS": 0, **positions, "END": length - 1})


def toy_record(
    rows: Tensor, *, query: str = "END", lengths: Sequence[int] | None = None, **fields: Any
) -> AttentionRecord:
    """A record of the given rows, with made-up prompts (of full length unless given)."""
    lengths = lengths or [rows.shape[-1]] * len(rows)
    prompts = [toy_prompt(length, number) for number, length in enumerate(lengths)]
    return AttentionRecord(prompts, rows, query, fields.pop("model", "toy"), **fields)


def toy_side(
    *, seed: int, sharpen: Sequence[tuple[int, int]] = (), factor: float = 2.0, n: int = 20, **fields: Any
) -> AttentionRecord:
    """A record of `LAYERS` x `HEADS` heads on ``n`` prompts; heads in ``sharpen`` have ``factor`` times the scores."""
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, LAYERS, HEADS, KEYS)))
    for layer, head in sharpen:
        scores[:, layer, head] *= factor
    return toy_record(scores.softmax(-1).float(), **fields)
