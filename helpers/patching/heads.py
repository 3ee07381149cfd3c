"""Which heads cause the answer: activation patching of every head on minimal pairs, in both directions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from helpers.folders import Kept
from helpers.heads import HeadLike, check_heads, head_index
from helpers.models.forward import Logits, StoredRun, hook_z
from helpers.models.model import LanguageModel
from helpers.patching.pairs import MinimalPairs
from helpers.prompts.prompt import Prompt
from helpers.statistics.effects import DIRECTIONS, is_causal, shares_of_gap

Patched = Float[np.ndarray, "head pair"]


@dataclass(frozen=True)
class PatchingRun:
    """Readouts (`MinimalPairs`: logit differences, answer - foil) of every patched run, one entry a pair.

    Attributes:
        clean, corrupt: unpatched, shape ``(pair,)``.
        denoised: corrupt run with one head's output taken from the clean run, ``(layer, head, pair)``.
        noised: clean run with one head's output taken from the corrupt run, ``(layer, head, pair)``.
            Both are NaN for heads that were not patched.
    """

    clean: Float[np.ndarray, " pair"]
    corrupt: Float[np.ndarray, " pair"]
    denoised: Float[np.ndarray, "layer head pair"]
    noised: Float[np.ndarray, "layer head pair"]


def patch_heads(
    model: LanguageModel,
    clean: Sequence[Prompt],
    corrupt: Sequence[Prompt],
    *,
    position: str | None = None,
    heads: Iterable[HeadLike] | None = None,
    batch_size: int = 100,
    whole: bool = False,
    prepend_bos: bool = True,
    bos: str | int | None = None,
    progress: bool = True,
) -> PatchingRun:
    """Patch the output of each head, one at a time, in both directions.

    A patched run starts at the patched layer, at the first token in which the sides differ, from what the unpatched run
    left there (`helpers.models.forward.StoredRun`).

    Args:
        model: what `load_model` returns.
        clean, corrupt: pairs of prompts of equal length (`minimal_pairs`); each pair's answer and foil are those of
            its clean prompt.
        position: patch at this named position of the clean prompt only; default: at every position.
        heads: ``(layer, head)`` of the heads to patch; default: all.
        batch_size: prompts a forward pass; few pairs are patched in several heads a pass.
        whole: start every run at the input (slow; the reference for the way that is taken otherwise).
        prepend_bos, bos: as `record_attention`.

    Raises:
        ValueError: if the sides can't be paired, token by token, or the model has no such head.

    Source: Wang et al. 2022; Heimersheim & Nanda 2024 (arXiv:2404.15255) for the two directions.
    """
    pairs = MinimalPairs(model, clean, corrupt, prepend_bos=prepend_bos, bos=bos)
    chosen = check_heads("heads", heads, model.n_layers, model.n_heads)
    at = None if position is None else pairs.at(position)
    return StoredPairs(pairs, batch_size=batch_size, whole=whole).patch(chosen, at, progress=progress)


class StoredPairs:
    """Minimal pairs with both sides run and kept, so that heads can be patched one after the other.

    Attributes:
        pairs: the pairs.
        clean, corrupt: readouts of the unpatched runs, shape ``(pair,)``.
        is_top: whether a right answer is the most likely token of all in the clean run, ``(pair,)``.
    """

    def __init__(self, pairs: MinimalPairs, *, batch_size: int = 100, whole: bool = False) -> None:
        self.pairs, self.batch_size = pairs, batch_size
        self._batches = [(batch, *pairs.store(batch, whole=whole)) for batch in pairs.batches(batch_size)]
        self.clean = self._unpatched([(batch, clean) for batch, clean, _ in self._batches])
        self.corrupt = self._unpatched([(batch, corrupt) for batch, _, corrupt in self._batches])
        self.is_top = np.concatenate([pairs.is_top(clean.logits, batch) for batch, clean, _ in self._batches])

    def denoise(self, layer: int, heads: Sequence[int], at: Tensor | None = None) -> Patched:
        """Readouts of the corrupt run with the output of each of some heads of a layer, one at a time, from the clean run.

        ``at``: the token at which it is replaced, one a pair; default: every token.
        """
        return self._patch([(batch, corrupt, clean) for batch, clean, corrupt in self._batches], layer, heads, at)

    def noise(self, layer: int, heads: Sequence[int], at: Tensor | None = None) -> Patched:
        """Readouts of the clean run with the outputs of heads, one at a time, from the corrupt run; as `denoise`."""
        return self._patch(self._batches, layer, heads, at)

    def patch(
        self, heads: Sequence[HeadLike], at: Tensor | None = None, *, kept: Kept | None = None, progress: bool = True
    ) -> PatchingRun:
        """Both directions for heads in reading order, layer by layer; layers that ``kept`` has are not run again."""
        model, kept = self.pairs.model, kept or Kept()
        denoised, noised = (np.full((model.n_layers, model.n_heads, len(self.clean)), np.nan) for _ in range(2))

        def both_ways(layer: int, some: list[int]) -> np.ndarray:
            return np.stack([self.denoise(layer, some, at), self.noise(layer, some, at)])

        with tqdm(total=len(heads), desc="patching", unit="head", disable=not progress, leave=False) as bar:
            for layer, some in by_layer(heads):
                denoised[layer, some], noised[layer, some] = kept.get(
                    f"layer-{layer:03}", partial(both_ways, layer, some)
                )
                bar.update(len(some))
        return PatchingRun(self.clean, self.corrupt, denoised, noised)

    def _unpatched(self, runs: Sequence[tuple[np.ndarray, StoredRun]]) -> Float[np.ndarray, " pair"]:
        return torch.cat([self.pairs.read(run.logits, batch) for batch, run in runs]).numpy()

    def _patch(
        self,
        runs: Sequence[tuple[np.ndarray, StoredRun, StoredRun]],
        layer: int,
        heads: Sequence[int],
        at: Tensor | None,
    ) -> Patched:
        """Readouts of (batch, target run, source run), several heads a pass where a batch is small."""
        found = np.zeros((len(heads), len(self.pairs)))
        for batch, target, source in runs:
            where = None if at is None else at[batch] - target.start
            together = max(1, self.batch_size // len(batch))
            for first in range(0, len(heads), together):
                some = heads[first : first + together]
                logits = _replace_heads(target, source.z[layer], layer, some, where)
                read = self.pairs.read(logits, batch, len(some)).reshape(len(batch), len(some))
                found[first : first + together, batch] = read.T.numpy()
        return found


def _replace_heads(target: StoredRun, new: Tensor, layer: int, heads: Sequence[int], at: Tensor | None) -> Logits:
    """Logits of the target run with the z of each head, one a copy of the prompts, taken from ``new``."""
    rows = torch.arange(len(new), device=new.device)
    if at is not None:
        rows, at = rows[at >= 0], at[at >= 0]  # before the first token that differs there is nothing to replace

    def replace(z: Tensor, hook: Any) -> Tensor:
        for k, head in enumerate(heads):
            copy = z[k :: len(heads)]
            if at is None:
                copy[:, :, head] = new[:, :, head]
            else:
                copy[rows, at, head] = new[rows, at, head]
        return z

    return target.resume(layer, [(hook_z(layer), replace)], copies=len(heads))


def by_layer(heads: Sequence[HeadLike]) -> Iterator[tuple[int, list[int]]]:
    """``(layer, its heads)`` of heads in reading order."""
    for layer, group in itertools.groupby(heads, key=lambda head: head[0]):
        yield layer, [head for _, head in group]


def head_effects(run: PatchingRun, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Effect of each head as a share of the clean-corrupt gap, with bootstrap intervals over pairs.

        denoising = mean(denoised - corrupt) / mean(clean - corrupt)
        noising   = mean(clean - noised)     / mean(clean - corrupt)

    Both are 0 for a head that does nothing and 1 for one that restores (or destroys) the whole difference.

    Returns:
        One row a head: layer, head, denoising, denoising_low, denoising_high, noising, noising_low, noising_high, and
        causal (`helpers.statistics.effects.is_causal`). Effects of heads that were not patched are NaN.

    Raises:
        ValueError: if the mean gap is 0.
    """
    gap = run.clean - run.corrupt
    table = head_index(*run.denoised.shape[:2])
    patched = np.isfinite(run.denoised).all(-1).ravel()
    for way, moved in zip(DIRECTIONS, (run.denoised - run.corrupt, run.clean - run.noised), strict=True):
        bounds = np.full((len(table), 3), np.nan)
        of_patched = moved.reshape(-1, len(gap))[patched]
        effects = shares_of_gap(of_patched, gap, level=level, n_resamples=n_resamples, seed=seed)
        bounds[patched] = np.stack(effects, axis=1)
        table[[way, f"{way}_low", f"{way}_high"]] = bounds
    return table.assign(causal=is_causal(table))
