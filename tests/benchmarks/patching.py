"""Time to patch every head of SmolLM2 on IOI pairs, against a plain loop in the same run: part of ``make bench``.

    loop       one head, one direction, one forward pass from the input (what this package did before)
    every head patch_heads: from the patched layer and the first token that differs, several heads a pass
    screened   attribution patching in both directions first, then patch_heads on the heads above the bound

Effects of the first two must be equal to 1e-5 of the gap; for the third the causal heads it misses are named.

    python tests/benchmarks/patching.py [pairs]      (default 16: about ten minutes on two cores)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

PAIRS = 16
EQUAL = 1e-5


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def loop(model: Any, pairs: tuple[list, list]) -> pd.DataFrame:
    """Every head in both directions, one pass each, by TransformerLens's hooks alone."""
    from helpers.patching.heads import PatchingRun, head_effects
    from helpers.patching.pairs import MinimalPairs

    minimal = MinimalPairs(model, *pairs)
    batch, options = np.arange(len(minimal)), {"output_attentions": False, "logits_to_keep": 1}

    def read(ids: torch.Tensor, hooks: list) -> np.ndarray:
        with torch.no_grad():
            return minimal.read(model.run_with_hooks(ids, fwd_hooks=hooks, **options)[:, -1], batch).numpy()

    def with_z(ids: torch.Tensor) -> tuple[list[torch.Tensor], np.ndarray]:
        kept: list[torch.Tensor] = []
        hooks = [(f"blocks.{i}.attn.hook_z", lambda z, hook: kept.append(z.clone())) for i in range(model.cfg.n_layers)]
        return kept, read(ids, hooks)

    (clean_z, clean), (corrupt_z, corrupt) = with_z(minimal.clean), with_z(minimal.corrupt)
    shape = model.cfg.n_layers, model.cfg.n_heads, len(minimal)
    denoised, noised = np.zeros(shape), np.zeros(shape)
    for layer, head in tqdm([*np.ndindex(shape[:2])], desc="loop", leave=False):
        for found, ids, source in ((denoised, minimal.corrupt, clean_z), (noised, minimal.clean, corrupt_z)):

            def replace(
                z: torch.Tensor, hook: Any, new: torch.Tensor = source[layer], head: int = head
            ) -> torch.Tensor:
                z[:, :, head] = new[:, :, head]
                return z

            found[layer, head] = read(ids, [(f"blocks.{layer}.attn.hook_z", replace)])
    return head_effects(PatchingRun(clean, corrupt, denoised, noised))


def main(n: int = PAIRS) -> None:
    from helpers import head_effects, load_model, patch_heads
    from helpers.models.load import ModelUnavailable
    from helpers.patching.circuits import SCREEN, find_circuit
    from helpers.prompts.fit import fit_task

    try:
        model = load_model("smollm2", device="cpu")
    except ModelUnavailable as error:
        print(f"patching: left out, {error}")
        return
    fitted = fit_task("ioi", model.tokenizer, n)
    pairs = (fitted.clean, fitted.corrupt)
    print(
        f"SmolLM2, {n} IOI pairs of {fitted.length} tokens, {torch.get_num_threads()} threads, 270 heads, two directions"
    )
    quick, quick_seconds = timed(lambda: head_effects(patch_heads(model, *pairs)))
    screened, screened_seconds = timed(lambda: find_circuit(model, pairs, task="ioi", screen=SCREEN))
    plain, loop_seconds = timed(lambda: loop(model, pairs))
    apart = max(float((quick[way] - plain[way]).abs().max()) for way in ("denoising", "noising"))
    lost = plain[plain.causal.to_numpy() & ~screened.table.causal.to_numpy()]
    names = ", ".join(f"{row.layer}.{row.head}" for row in lost.itertuples()) or "none"
    print(f"loop        {loop_seconds:7.1f} s")
    print(
        f"every head  {quick_seconds:7.1f} s   {loop_seconds / quick_seconds:.1f} x faster; effects differ by at most {apart:.1e}"
    )
    print(
        f"screened    {screened_seconds:7.1f} s   {loop_seconds / screened_seconds:.1f} x faster, positions of causal heads "
        f"included; {screened.about['heads_patched']} of 270 heads patched; of {int(plain.causal.sum())} causal heads it misses: {names}"
    )
    assert apart <= EQUAL, f"effects differ by {apart}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
