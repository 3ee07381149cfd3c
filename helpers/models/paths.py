"""Which heads act through which: path patching of every pair of heads on minimal pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from helpers.models.pairs import MinimalPairs, hook_z
from helpers.models.patching import shares_of_gap
from helpers.prompts.prompt import Prompt

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

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
    model: TransformerBridge,
    clean: Sequence[Prompt],
    corrupt: Sequence[Prompt],
    *,
    senders: Iterable[tuple[int, int]] | None = None,
    batch_size: int = 100,
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
        senders: ``(layer, head)`` of the senders to patch; default: all heads.
        batch_size: prompts a forward pass; receivers of one layer share passes.

    Raises:
        ValueError: if the sides can't be paired, token by token, or the model has no such sender.

    Source: Wang et al. 2022 (arXiv:2211.00593), section 3.1 and appendix; the receiver here is a whole head, not its
    queries, keys or values.
    """
    pairs = MinimalPairs(model, clean, corrupt)
    batches = pairs.batches(batch_size)
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    chosen = _checked(senders, n_layers, n_heads)
    unpatched: dict[str, list[Tensor]] = {"clean": [], "corrupt": []}
    patched = np.full((n_layers, n_heads, n_layers, n_heads, len(pairs)), np.nan)
    bar = tqdm(total=len(pairs) * len(chosen), desc="path patching", unit="sender", disable=not progress, leave=False)
    for batch in batches:
        clean_z, clean_ld = pairs.run_with_z(batch, pairs.clean)
        corrupt_z, corrupt_ld = pairs.run_with_z(batch, pairs.corrupt)
        unpatched["clean"].append(clean_ld)
        unpatched["corrupt"].append(corrupt_ld)
        for layer, head in chosen:
            received = _send(pairs, batch, clean_z, corrupt_z[layer], layer, head)
            for receiver, z in received.items():
                patched[layer, head, receiver][:, batch] = _receive(pairs, batch, receiver, z, batch_size)
            bar.update(len(batch))
    bar.close()
    return PathRun(torch.cat(unpatched["clean"]).numpy(), torch.cat(unpatched["corrupt"]).numpy(), patched)


def _checked(senders: Iterable[tuple[int, int]] | None, n_layers: int, n_heads: int) -> list[tuple[int, int]]:
    every = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    chosen = every if senders is None else [(int(layer), int(head)) for layer, head in senders]
    for sender in chosen:
        if sender not in every:
            raise ValueError(f"senders: expected heads of {n_layers} layers x {n_heads} heads, got {sender}")
    return chosen


def _send(
    pairs: MinimalPairs, batch: np.ndarray, clean_z: list[Tensor], corrupt_z: Tensor, layer: int, head: int
) -> dict[int, Tensor]:
    """z of each later layer, ``(pair, token, head, d_head)``, if of all heads the sender alone is corrupt."""
    received: dict[int, Tensor] = {}

    def send(z: Tensor, hook: Any) -> Tensor:
        z = clean_z[layer].clone()
        z[:, :, head] = corrupt_z[:, :, head]
        return z

    def note(z: Tensor, hook: Any) -> Tensor:
        receiver = int(hook.name.split(".")[1])
        received[receiver] = z.clone()
        return clean_z[receiver].clone()

    later = range(layer + 1, len(clean_z))
    if later:
        with torch.no_grad():
            pairs.run(batch, pairs.clean, [(hook_z(layer), send), *((hook_z(receiver), note) for receiver in later)])
    return received


def _receive(
    pairs: MinimalPairs, batch: np.ndarray, layer: int, source: Tensor, batch_size: int
) -> Float[np.ndarray, "head pair"]:
    """Logit differences of the clean run with the z of each head of a layer, one at a time, taken from ``source``."""
    n_heads = source.shape[2]
    found = []
    for heads in np.array_split(np.arange(n_heads), -(-n_heads * len(batch) // batch_size)):

        def replace(z: Tensor, hook: Any, heads: np.ndarray = heads) -> Tensor:
            for copy, head in zip(z.chunk(len(heads)), heads, strict=True):
                copy[:, :, head] = source[:, :, head]
            return z

        with torch.no_grad():
            found.append(pairs.run(np.tile(batch, len(heads)), pairs.clean, [(hook_z(layer), replace)]))
    return torch.cat(found).reshape(n_heads, len(batch)).numpy()


def edge_effects(run: PathRun, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Effect of each path as a share of the clean-corrupt logit-difference gap, with bootstrap intervals over pairs.

        effect = mean(clean - patched) / mean(clean - corrupt)

    Returns:
        One row a path that was patched, sender (1) before receiver (2): layer_1, head_1, layer_2, head_2, effect, low,
        high, and causal: |effect| > `EDGE_THRESHOLD` with an interval that excludes 0.

    Raises:
        ValueError: if the mean gap is 0, or no path was patched.
    """
    paths = np.argwhere(np.isfinite(run.patched).all(-1))
    if not len(paths):
        raise ValueError("run: expected at least one patched path, got none")
    moved = run.clean - run.patched[tuple(paths.T)]
    effect, low, high = shares_of_gap(moved, run.clean - run.corrupt, level=level, n_resamples=n_resamples, seed=seed)
    table = pd.DataFrame(paths, columns=["layer_1", "head_1", "layer_2", "head_2"])
    causal = (np.abs(effect) > EDGE_THRESHOLD) & ((low > 0) | (high < 0))
    return table.assign(effect=effect, low=low, high=high, causal=causal)
