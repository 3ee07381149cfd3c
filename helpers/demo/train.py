"""Train the demo model: a small GPT-2 on the synthetic corpus, from a seed, resumable.

The recipe is fixed here and is the same for every seed. Nothing in it looks at an attention pattern.
"""

from __future__ import annotations

import hashlib
import math
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tqdm.auto import trange
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from helpers.demo.corpus import BOS, UNK, documents, split_words, vocabulary

N_CTX = 64
STEPS, BATCH, PEAK_LR, WARMUP = 6000, 64, 2e-3, 300
SENTENCES = {1: 0.65, 2: 0.25, 3: 0.1}
CHECKPOINT_EVERY = 500


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word or punctuation mark; `<|endoftext|>` is BOS and EOS, as in GPT-2."""
    ids = {word: i for i, word in enumerate(vocabulary())}
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=BOS,
        unk_token=UNK,
        model_max_length=N_CTX,
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int) -> GPT2LMHeadModel:
    """Six layers of eight heads (d_head 16) with narrow MLPs, about 0.7 million parameters, no dropout."""
    torch.manual_seed(seed)
    vocab = vocabulary()
    config = GPT2Config(
        vocab_size=len(vocab), n_positions=N_CTX, n_embd=128, n_layer=6, n_head=8, n_inner=128,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own function in one kernel
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=vocab.index(BOS), eos_token_id=vocab.index(BOS),
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def batch(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels (-100 = not scored) of one step; a pure function of (seed, step)."""
    rng = random.Random(f"{seed}/{step}")
    n_sentences = rng.choices(list(SENTENCES), weights=list(SENTENCES.values()))[0]
    ids = {word: i for i, word in enumerate(vocabulary())}
    rows = [[ids[BOS], *(ids[w] for w in split_words(text))] for text in documents(rng, BATCH, n_sentences)]
    width = min(max(map(len, rows)), N_CTX)
    tokens = torch.zeros(BATCH, width, dtype=torch.long)
    labels = torch.full((BATCH, width), -100)
    for i, row in enumerate(rows):
        row = row[:width]
        tokens[i, : len(row)] = labels[i, : len(row)] = torch.tensor(row)
    return tokens, labels


def learning_rate(step: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < WARMUP:
        return PEAK_LR * (step + 1) / WARMUP
    return PEAK_LR * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def recipe(seed: int) -> str:
    """What a checkpoint belongs to: the seed, the settings, and the corpus (by a sample of it)."""
    sample = documents(random.Random(0), 20, 2)
    settings = (STEPS, BATCH, PEAK_LR, WARMUP, sorted(SENTENCES.items()), build_model(seed).config.to_json_string())
    return f"{seed}/" + hashlib.sha256(repr((settings, sample)).encode()).hexdigest()


def train(seed: int, checkpoint: Path, *, steps: int = STEPS, device: str | None = None) -> GPT2LMHeadModel:
    """Train from ``seed``, going on from ``checkpoint`` where that file exists."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = build_model(seed).train()
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05)
    start = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        if saved["recipe"] != recipe(seed):
            raise ValueError(
                f"checkpoint: expected one of this recipe and seed {seed}, got {str(checkpoint)!r} of another"
            )
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    bar = trange(start, steps, initial=start, total=steps, desc=f"seed {seed}", unit="step", mininterval=5)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        tokens, labels = (t.to(device) for t in batch(seed, step))
        loss = model(input_ids=tokens, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % CHECKPOINT_EVERY == 0:
            _save_checkpoint(checkpoint, model, optimizer, step + 1, recipe(seed))
    return model.eval()


def _save_checkpoint(
    path: Path, model: GPT2LMHeadModel, optimizer: torch.optim.Optimizer, step: int, recipe: str
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "recipe": recipe}
    torch.save(saved, part)
    part.replace(path)


def save(model: GPT2LMHeadModel, folder: Path) -> None:
    """Write config, tokenizer and weights (safetensors, rounded to float16) in Hugging Face format."""
    model.cpu().half().save_pretrained(folder)
    model.config.dtype = torch.float32  # how to compute with them
    model.config.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
