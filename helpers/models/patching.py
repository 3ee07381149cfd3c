"""Which heads cause the answer: activation patching of every head on minimal pairs, in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

from helpers.models.pairs import MinimalPairs
from helpers.prompts.prompt import Prompt

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
    pairs = MinimalPairs(model, clean, corrupt, position)
    batches = pairs.batches(batch_size)
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    unpatched: dict[str, list[Tensor]] = {"clean": [], "corrupt": []}
    patched = {way: np.zeros((n_layers, n_heads, len(clean))) for way in ("denoised", "noised")}
    bar = tqdm(total=len(clean) * n_layers * n_heads, desc="patching", unit="run", disable=not progress, leave=False)
    for batch in batches:
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


def head_effects(run: PatchingRun, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Effect of each head as a share of the clean-corrupt logit-difference gap, with bootstrap intervals over pairs.

        denoising = mean(denoised - corrupt) / mean(clean - corrupt)
        noising   = mean(clean - noised)     / mean(clean - corrupt)

    Both are 0 for a head that does nothing and 1 for one that restores (or destroys) the whole difference.

    Returns:
        One row a head: layer, head, denoising, denoising_low, denoising_high, noising, noising_low, noising_high, and
        causal: |effect| > `THRESHOLD` in either direction, with an interval that excludes 0.

    Raises:
        ValueError: if the mean gap is 0.
    """
    gap = run.clean - run.corrupt
    n_layers, n_heads = run.denoised.shape[:2]
    layer, head = np.divmod(np.arange(n_layers * n_heads), n_heads)
    table = pd.DataFrame({"layer": layer, "head": head})
    causal = np.zeros(len(table), dtype=bool)
    for way, moved in (("denoising", run.denoised - run.corrupt), ("noising", run.clean - run.noised)):
        effect, low, high = shares_of_gap(
            moved.reshape(-1, len(gap)), gap, level=level, n_resamples=n_resamples, seed=seed
        )
        table[[way, f"{way}_low", f"{way}_high"]] = np.stack([effect, low, high], axis=1)
        causal |= (np.abs(effect) > THRESHOLD) & ((low > 0) | (high < 0))
    return table.assign(causal=causal)


def shares_of_gap(
    moved: Float[np.ndarray, "row pair"], gap: Float[np.ndarray, " pair"], *, level: float, n_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean(moved) / mean(gap) of each row, with percentile bootstrap bounds over pairs resampled together.

    Returns:
        effect, low and high, each ``(row,)``.

    Raises:
        ValueError: if the mean gap is 0, so that there is nothing to be a share of.
    """
    if gap.mean() == 0:
        raise ValueError("run: expected clean and corrupt runs of different mean logit difference, got a mean gap of 0")
    interval = stats.bootstrap(
        (moved, np.broadcast_to(gap, moved.shape)),
        lambda m, g, axis: m.mean(axis) / g.mean(axis),
        axis=-1,
        paired=True,
        vectorized=True,
        confidence_level=level,
        n_resamples=n_resamples,
        batch=int(np.clip(10**7 // moved.size, 1, 100)),  # memory only: resamples are drawn one after the other
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return moved.mean(-1) / gap.mean(), interval.low, interval.high
