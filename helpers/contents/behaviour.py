"""Where every head looks: on random tokens that repeat, and at END of a prompt; each score with a null."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from helpers.models.forward import Ids, forward
from helpers.models.model import LanguageModel

#: Random tokens a sequence draws before they repeat, where vocabulary and context allow it.
PERIOD = 50


@dataclass(frozen=True)
class Behaviour:
    """One score of every head, sample by sample, and what it is where there is nothing to find.

    Attributes:
        samples: the score, between 0 and 1, ``(sample, layer, head)``; a sample is a sequence or a prompt.
        null: the same of shuffled samples, ``(shuffled, layer, head)``.
    """

    samples: Float[np.ndarray, "sample layer head"]
    null: Float[np.ndarray, "shuffled layer head"]

    @property
    def score(self) -> Float[np.ndarray, "layer head"]:
        """Mean over samples."""
        return np.asarray(self.samples.mean(0))

    def bar(self, *, level: float = 0.99, n_resamples: int = 1000, seed: int = 0) -> Float[np.ndarray, "layer head"]:
        """Quantile ``level`` of the mean of as many shuffled samples as there are samples, for each head by itself."""
        n, many = len(self.samples), len(self.null)
        counts = np.random.default_rng(seed).multinomial(n, np.full(many, 1 / many), size=n_resamples)
        means = counts @ self.null.reshape(many, -1) / n
        return np.asarray(np.quantile(means, level, axis=0).reshape(self.null.shape[1:]))


def random_sequences(
    tokenizer: Any, *, first: int | None, period: int, n: int = 16, seed: int = 0
) -> tuple[Int[np.ndarray, "sequence token"], Int[np.ndarray, "sequence token"]]:
    """Random tokens twice in a row, and the same first halves followed by other tokens.

    Tokens are drawn from the vocabulary without its special tokens; within a sequence none is drawn twice.

    Args:
        tokenizer: a Hugging Face tokenizer.
        first: id of a BOS token in front, or None.
        period: number of tokens drawn for each half.

    Returns:
        (repeated, shuffled): token ids, each of ``2 period`` tokens and the BOS.
    """
    ids, rng = ordinary_ids(tokenizer), np.random.default_rng(seed)
    drawn = np.stack([rng.choice(ids, 2 * period, replace=False) for _ in range(n)])
    front = np.full((n, 0 if first is None else 1), first or 0)
    half = drawn[:, :period]
    return np.concatenate([front, half, half], 1), np.concatenate([front, drawn], 1)


def ordinary_ids(tokenizer: Any) -> Int[np.ndarray, " id"]:
    """Ids of the vocabulary that are no special tokens."""
    special = {*tokenizer.all_special_ids, *(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)}
    return np.array(sorted(set(tokenizer.get_vocab().values()) - special))


def check_period(model: LanguageModel, period: int | None, first: int | None) -> int:
    """The period asked for, or the largest up to `PERIOD` that context and vocabulary allow.

    Raises:
        ValueError: if there are too few tokens for it, or it is below 3 (the null needs other distances).
    """
    room = (model.n_ctx or 10**9) - (first is not None)
    most = min(room, len(ordinary_ids(model.tokenizer))) // 2
    chosen = min(PERIOD, most) if period is None else period
    if not 3 <= chosen <= most:
        raise ValueError(f"period: expected 3 to {most} tokens (context and vocabulary allow no more), got {chosen}")
    return chosen


def on_random_tokens(
    model: LanguageModel,
    *,
    first: int | None = None,
    period: int | None = None,
    n: int = 16,
    batch_size: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Behaviour]:
    """Previous-token, duplicate-token and induction score of every head, on random tokens twice in a row.

        a_d             = mean over t in the second half of pi_t(t - d)
        previous_token  = a_1,       of the shuffled sequences; null: a_2 ... a_P of the same
        duplicate_token = a_P,       to the same token one period P before; null: a_P of the shuffled sequences
        induction       = a_{P - 1}, to the token that followed it; null: a_{P - 1} of the shuffled sequences

    In the shuffled sequences the second half is other random tokens, so that nothing repeats. Heads that see fewer than
    P keys (local attention) have scores of 0.

    Args:
        model: what `load_model` returns.
        first: id of the BOS token in front, or None.
        period: P; default: 50, or as many as context and vocabulary allow.
        n: number of sequences of each kind.
        batch_size: sequences a forward pass.

    Returns:
        name -> `Behaviour`, a sample a sequence.

    Raises:
        ValueError: if the period does not fit (`check_period`), or n or batch_size is below 1.

    Source: Elhage et al. 2021; Olsson et al. 2022 (arXiv:2209.11895), prefix matching; Wang et al. 2022
    (arXiv:2211.00593) for all three on repeated random tokens.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"n, batch_size: expected at least 1 sequence, got {n} and {batch_size}")
    period = check_period(model, period, first)
    sides = random_sequences(model.tokenizer, first=first, period=period, n=n, seed=seed)
    bar = tqdm(total=2 * n, desc="random tokens", unit="sequence", disable=not progress, leave=False)
    found = []
    for side in sides:
        parts = []
        for batch in np.array_split(side, -(-n // batch_size)):
            parts.append(_by_distance(model, torch.tensor(batch, device=model.device), period))
            bar.update(len(batch))
        found.append(np.concatenate(parts))
    bar.close()
    repeated, shuffled = found
    others = np.moveaxis(shuffled[..., 1:], -1, 0)
    return {
        "previous_token": Behaviour(shuffled[..., 0], others.reshape(-1, *others.shape[2:])),
        "duplicate_token": Behaviour(repeated[..., -1], shuffled[..., -1]),
        "induction": Behaviour(repeated[..., -2], shuffled[..., -2]),
    }


def _by_distance(model: LanguageModel, ids: Ids, period: int) -> Float[np.ndarray, "sequence layer head distance"]:
    """Mean attention of the last ``period`` queries to the token 1 ... ``period`` places before each."""
    found = torch.zeros(len(ids), model.n_layers, model.n_heads, period, dtype=torch.float64)
    queries = torch.arange(ids.shape[1] - period, ids.shape[1])
    keys = queries[:, None] - torch.arange(1, period + 1)

    def keep(layer: int, pattern: Tensor) -> None:
        rows = pattern[:, :, -period:]
        found[:, layer] = rows.gather(-1, keys.to(rows.device).expand(*rows.shape[:2], -1, -1)).double().mean(2).cpu()

    _see_patterns(model, ids, keep)
    return found.numpy()


def on_prompts(
    model: LanguageModel, ids: Ids, at: Mapping[str, Tensor], *, batch_size: int = 32
) -> dict[str, Behaviour]:
    """END's attention to a token of each prompt; null: END's attention to the prompt's other tokens.

    Args:
        model: what `load_model` returns.
        ids: prompts of one length, ``(prompt, token)``.
        at: name of a score -> index of the token in each prompt, ``(prompt,)``.
        batch_size: prompts a forward pass.

    Returns:
        name -> `Behaviour`, a sample a prompt.
    """
    parts = []
    for batch in ids.split(batch_size):
        part = torch.zeros(len(batch), model.n_layers, model.n_heads, ids.shape[1], dtype=torch.float64)

        def keep(layer: int, pattern: Tensor, part: Tensor = part) -> None:
            part[:, layer] = pattern[:, :, -1].double().cpu()

        _see_patterns(model, batch, keep)
        parts.append(part)
    rows = torch.cat(parts).permute(0, 3, 1, 2)
    here = {
        name: torch.zeros(ids.shape, dtype=torch.bool).scatter(1, to.cpu()[:, None], True) for name, to in at.items()
    }
    return {name: Behaviour(rows[is_it].numpy(), rows[~is_it].numpy()) for name, is_it in here.items()}


def _see_patterns(model: LanguageModel, ids: Ids, keep: Callable[[int, Tensor], None]) -> None:
    """Run the model and hand each layer's pattern, ``(prompt, head, query, key)``, to ``keep(layer, pattern)``."""

    def see(pattern: Tensor, hook: Any) -> None:
        keep(int(hook.name.split(".")[1]), pattern)

    with torch.no_grad():
        forward(model, ids, [(f"blocks.{layer}.attn.hook_pattern", see) for layer in range(model.n_layers)])
