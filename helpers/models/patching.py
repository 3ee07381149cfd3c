"""Which heads cause the answer: activation patching of every head on minimal pairs, in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

from helpers.attention.capture import tokenize_for
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import first_token

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

#: A head is causal if it moves the logit difference by more than this share of the clean-corrupt gap, either way.
THRESHOLD = 0.05


@dataclass(frozen=True)
class PatchingRun:
    """Logit differences (answer - foil) of every patched run, one entry a pair.

    Attributes:
        clean, corrupt: unpatched, shape ``(pair,)``.
        denoised: corrupt run with one head's output taken from the clean run, ``(layer, head, pair)``.
        noised: clean run with one head's output taken from the corrupt run, ``(layer, head, pair)``.
    """

    clean: Float[np.ndarray, " pair"]
    corrupt: Float[np.ndarray, " pair"]
    denoised: Float[np.ndarray, "layer head pair"]
    noised: Float[np.ndarray, "layer head pair"]


def patch_heads(
    model: TransformerBridge,
    clean: Sequence[Prompt],
    corrupt: Sequence[Prompt],
    *,
    position: str | None = None,
    batch_size: int = 100,
    progress: bool = True,
) -> PatchingRun:
    """Patch the output of each head, one at a time, in both directions.

    Args:
        model: what `load_model` returns.
        clean, corrupt: pairs of prompts of equal length (`minimal_pairs`); each pair's answer and foil are those of
            its clean prompt.
        position: patch at this named position of the clean prompt only; default: at every position.
        batch_size: pairs a forward pass.

    Raises:
        ValueError: if the sides can't be paired, token by token.

    Source: Wang et al. 2022; Heimersheim & Nanda 2024 (arXiv:2404.15255) for the two directions.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1 pair a forward pass, got {batch_size}")
    pairs = _Pairs(model, clean, corrupt, position)
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    unpatched: dict[str, list[Tensor]] = {"clean": [], "corrupt": []}
    patched = {way: np.zeros((n_layers, n_heads, len(clean))) for way in ("denoised", "noised")}
    bar = tqdm(total=len(clean) * n_layers * n_heads, desc="patching", unit="run", disable=not progress, leave=False)
    for batch in pairs.batches(batch_size):
        clean_z, clean_ld = pairs.run_with_z(batch, pairs.clean)
        corrupt_z, corrupt_ld = pairs.run_with_z(batch, pairs.corrupt)
        unpatched["clean"].append(clean_ld)
        unpatched["corrupt"].append(corrupt_ld)
        for layer in range(n_layers):
            for head in range(n_heads):
                for way, ids, z in (("denoised", pairs.corrupt, clean_z), ("noised", pairs.clean, corrupt_z)):
                    patched[way][layer, head, batch] = pairs.run_patched(batch, ids, layer, head, z[layer])
                bar.update(len(batch))
    bar.close()
    return PatchingRun(*(torch.cat(unpatched[side]).numpy() for side in ("clean", "corrupt")), **patched)


class _Pairs:
    """Token ids of minimal pairs, and the three kinds of runs that patching needs."""

    def __init__(
        self, model: TransformerBridge, clean: Sequence[Prompt], corrupt: Sequence[Prompt], position: str | None
    ) -> None:
        left, right = tokenize_for(model, clean), tokenize_for(model, corrupt)
        if [len(p) for p in left] != [len(p) for p in right]:
            raise ValueError("corrupt: expected one prompt for each clean one, of the same number of tokens")
        if len({len(p) for p in left}) > 1:
            raise ValueError("clean: expected prompts of one length; patch each length by itself")
        self.model, self.position = model, position
        device = model.cfg.device
        self.clean, self.corrupt = (torch.tensor([p.ids for p in side], device=device) for side in (left, right))
        first = [[_first_token(model, word) for word in (p.answer, p.foil)] for p in clean]
        self.answers = torch.tensor(first, device=device)
        self.at = None if position is None else torch.tensor([p.position(position) for p in left], device=device)

    def batches(self, size: int) -> list[np.ndarray]:
        n = len(self.clean)
        return np.array_split(np.arange(n), -(-n // size))

    def run_with_z(self, batch: np.ndarray, ids: Tensor) -> tuple[list[Tensor], Tensor]:
        """Head outputs z of every layer, and the logit difference of each pair."""
        kept: list[Tensor] = []

        def keep(z: Tensor, hook: Any) -> None:
            kept.append(z.clone())

        hooks = [(f"blocks.{layer}.attn.hook_z", keep) for layer in range(self.model.cfg.n_layers)]
        return kept, self._logit_difference(batch, ids, hooks)

    def run_patched(self, batch: np.ndarray, ids: Tensor, layer: int, head: int, source: Tensor) -> Tensor:
        """Logit differences with one head's z replaced, at every position or at the chosen one."""
        rows = torch.arange(len(batch), device=ids.device)
        at = None if self.at is None else self.at[batch]

        def replace(z: Tensor, hook: Any) -> Tensor:
            if at is None:
                z[:, :, head] = source[:, :, head]
            else:
                z[rows, at, head] = source[rows, at, head]
            return z

        return self._logit_difference(batch, ids, [(f"blocks.{layer}.attn.hook_z", replace)])

    def _logit_difference(self, batch: np.ndarray, ids: Tensor, hooks: list[Any]) -> Tensor:
        with torch.no_grad():
            logits = self.model.run_with_hooks(ids[batch], fwd_hooks=hooks)[:, -1].double()
        right, wrong = logits.gather(1, self.answers[batch]).unbind(1)
        return (right - wrong).cpu()


def _first_token(model: TransformerBridge, word: str | None) -> int:
    if word is None:
        raise ValueError("clean: expected prompts with an answer and a foil, got one without")
    return first_token(model.tokenizer, word)


def head_effects(run: PatchingRun, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Effect of each head as a share of the clean-corrupt logit-difference gap, with bootstrap intervals over pairs.

        denoising = mean(denoised - corrupt) / mean(clean - corrupt)
        noising   = mean(clean - noised)     / mean(clean - corrupt)

    Both are 0 for a head that does nothing and 1 for one that restores (or destroys) the whole difference.

    Returns:
        One row a head: layer, head, denoising, denoising_low, denoising_high, noising, noising_low, noising_high, and
        causal: |effect| > `THRESHOLD` in either direction, with an interval that excludes 0.
    """
    gap = run.clean - run.corrupt
    n_layers, n_heads = run.denoised.shape[:2]
    layer, head = np.divmod(np.arange(n_layers * n_heads), n_heads)
    table = pd.DataFrame({"layer": layer, "head": head})
    causal = np.zeros(len(table), dtype=bool)
    for way, moved in (("denoising", run.denoised - run.corrupt), ("noising", run.clean - run.noised)):
        moved = moved.reshape(-1, len(gap))
        interval = stats.bootstrap(
            (moved, np.broadcast_to(gap, moved.shape)),
            lambda m, g, axis: m.mean(axis) / g.mean(axis),
            axis=-1,
            paired=True,
            vectorized=True,
            confidence_level=level,
            n_resamples=n_resamples,
            batch=100,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        effect = moved.mean(-1) / gap.mean()
        table[[way, f"{way}_low", f"{way}_high"]] = np.stack([effect, interval.low, interval.high], axis=1)
        causal |= (np.abs(effect) > THRESHOLD) & ((interval.low > 0) | (interval.high < 0))
    return table.assign(causal=causal)
