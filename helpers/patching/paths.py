"""Which heads act through which: path patching of every pair of heads on minimal pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from helpers.heads import HeadLike, check_heads, pair_index
from helpers.models.forward import StoredRun, hook_z
from helpers.models.model import LanguageModel
from helpers.patching.heads import Patched, by_layer
from helpers.patching.pairs import MinimalPairs
from helpers.prompts.prompt import Prompt
from helpers.statistics.effects import shares_of_gap

#: A path is causal if it moves the logit difference by more than this share of the clean-corrupt gap, either way.
#: Fixed before any path was patched: a head counts from 5 % on, and what it does is shared among its paths.
EDGE_THRESHOLD = 0.01


@dataclass(frozen=True)
class PathRun:
    """Logit differences (answer - foil) of every patched path, one entry a pair of prompts.

    Attributes:
        clean, corrupt: unpatched, shape ``(pair,)``.
        patched: clean run in which the receiver's output is what it computes if the sender's output, and no other
            head's, is the corrupt run's; ``(layer_s, head_s, layer_r, head_r, pair)``, NaN where the sender is not in
            an earlier layer than the receiver, and for senders that were not asked for.
    """

    clean: Float[np.ndarray, " pair"]
    corrupt: Float[np.ndarray, " pair"]
    patched: Float[np.ndarray, "layer_s head_s layer_r head_r pair"]


def patch_paths(
    model: LanguageModel,
    clean: Sequence[Prompt],
    corrupt: Sequence[Prompt],
    *,
    senders: Iterable[HeadLike] | None = None,
    receivers: Iterable[HeadLike] | None = None,
    batch_size: int = 100,
    prepend_bos: bool = True,
    bos: str | int | None = None,
    progress: bool = True,
) -> PathRun:
    """Patch the path from each head to each head of a later layer, one at a time, into the clean run.

    1. Run the clean and the corrupt prompts; keep the output z = sum_i pi_i v_i of every head.
    2. For each sender, run the clean prompts with the z of all heads held at its clean value but the sender's, which is
       that of the corrupt run; MLPs and norms are computed anew. Note what each later head would have put out.
    3. For each receiver, run the clean prompts with its z replaced, at every position, by what was noted.

    A path through MLPs counts as direct, one through a third head does not.

    Args:
        model: what `load_model` returns.
        clean, corrupt: pairs of prompts of equal length (`minimal_pairs`); each pair's answer and foil are those of
            its clean prompt.
        senders, receivers: ``(layer, head)`` of the heads at either end; default: all heads.
        batch_size: prompts a forward pass; receivers of one layer share passes.
        prepend_bos, bos: as `record_attention`.

    Raises:
        ValueError: if the sides can't be paired, token by token, or the model has no such head.

    Source: Wang et al. 2022 (arXiv:2211.00593), section 3.1 and appendix; the receiver here is a whole head, not its
    queries, keys or values.
    """
    pairs = MinimalPairs(model, clean, corrupt, prepend_bos=prepend_bos, bos=bos)
    n_layers, n_heads = model.n_layers, model.n_heads
    from_heads = check_heads("senders", senders, n_layers, n_heads)
    to_heads = dict(by_layer(check_heads("receivers", receivers, n_layers, n_heads)))
    unpatched: tuple[list[Tensor], list[Tensor]] = ([], [])
    patched = np.full((n_layers, n_heads, n_layers, n_heads, len(pairs)), np.nan)
    bar = tqdm(
        total=len(pairs) * len(from_heads), desc="path patching", unit="sender", disable=not progress, leave=False
    )
    for batch in pairs.batches(batch_size):
        clean_run, corrupt_run = pairs.store(batch)
        for side, run in zip(unpatched, (clean_run, corrupt_run), strict=True):
            side.append(pairs.read(run.logits, batch))
        for layer, head in from_heads:
            later = [receiver for receiver in to_heads if receiver > layer]
            for receiver, z in _send(clean_run, corrupt_run, layer, head, later).items():
                some = to_heads[receiver]
                found = _receive(pairs, batch, clean_run, receiver, some, z, batch_size)
                patched[layer, head, receiver, np.array(some)[:, None], batch] = found
            bar.update(len(batch))
    bar.close()
    clean_end, corrupt_end = (torch.cat(side).numpy() for side in unpatched)
    return PathRun(clean_end, corrupt_end, patched)


def _send(clean: StoredRun, corrupt: StoredRun, layer: int, head: int, later: Sequence[int]) -> dict[int, Tensor]:
    """z of the layers in ``later``, ``(pair, token, head, d_head)``, if of all heads the sender alone is corrupt."""
    received: dict[int, Tensor] = {}

    def send(z: Tensor, hook: Any) -> Tensor:
        z = clean.z[layer].clone()
        z[:, :, head] = corrupt.z[layer][:, :, head]
        return z

    def note(z: Tensor, hook: Any) -> Tensor:
        receiver = int(hook.name.split(".")[1])
        if receiver in later:
            received[receiver] = z.clone()
        return clean.z[receiver].clone()

    if later:
        held = range(layer + 1, max(later) + 1)
        clean.resume(layer, [(hook_z(layer), send), *((hook_z(i), note) for i in held)])
    return received


def _receive(
    pairs: MinimalPairs,
    batch: np.ndarray,
    clean: StoredRun,
    layer: int,
    heads: Sequence[int],
    source: Tensor,
    batch_size: int,
) -> Patched:
    """Readouts of the clean run with the z of each head of a layer, one at a time, taken from ``source``."""
    found = []
    for some in np.array_split(np.asarray(heads), -(-len(heads) * len(batch) // batch_size)):

        def replace(z: Tensor, hook: Any, some: np.ndarray = some) -> Tensor:
            for k, head in enumerate(some):
                z[k :: len(some), :, head] = source[:, :, head]
            return z

        logits = clean.resume(layer, [(hook_z(layer), replace)], copies=len(some))
        found.append(pairs.read(logits, batch, len(some)).reshape(len(batch), len(some)).T)
    return torch.cat(found).numpy()


def edge_effects(run: PathRun, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Effect of each path as a share of the clean-corrupt logit-difference gap, with bootstrap intervals over pairs.

        effect = mean(clean - patched) / mean(clean - corrupt)

    Returns:
        One row a path that was patched, sender before receiver: the columns of `pair_index`, effect, low, high, and causal: |effect| > `EDGE_THRESHOLD` with an interval that excludes 0.

    Raises:
        ValueError: if the mean gap is 0, or no path was patched.
    """
    paths = np.argwhere(np.isfinite(run.patched).all(-1))
    if not len(paths):
        raise ValueError("run: expected at least one patched path, got none")
    moved = run.clean - run.patched[tuple(paths.T)]
    effect, low, high = shares_of_gap(moved, run.clean - run.corrupt, level=level, n_resamples=n_resamples, seed=seed)
    causal = (np.abs(effect) > EDGE_THRESHOLD) & ((low > 0) | (high < 0))
    return pair_index(paths[:, :2], paths[:, 2:]).assign(effect=effect, low=low, high=high, causal=causal)
