"""Find the heads that cause an answer, in any model: accuracy first, then patching of every head, or of a screen of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from helpers.attention.capture import run_settings
from helpers.models.attribution import attribute_heads
from helpers.models.fingerprint import fingerprint
from helpers.models.forward import forward
from helpers.models.pairs import MinimalPairs
from helpers.models.patching import PatchingRun, StoredPairs, by_layer, check_heads, head_effects
from helpers.prompts.fit import VARIANTS, FittedTask, fit_task
from helpers.prompts.prompt import Prompt
from helpers.reference.circuits import Head
from helpers.reference.measured import FORMAT, MeasuredCircuit
from helpers.statistics.effects import THRESHOLD, is_causal

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

#: A model does a task if the readout is above 0 in at least this share of the clean prompts.
REQUIRED_ACCURACY = 0.9
#: Screening patches the heads whose estimated effect, in either direction, is above this share of the gap.
SCREEN = THRESHOLD / 4


def find_circuit(
    model: TransformerBridge,
    pairs: tuple[Sequence[Prompt], Sequence[Prompt]],
    *,
    task: str = "own prompts",
    screen: float | None = None,
    work: str | Path | None = None,
    min_accuracy: float = REQUIRED_ACCURACY,
    batch_size: int = 100,
    prepend_bos: bool = True,
    bos: str | int | None = None,
    left_out: Sequence[str] = (),
    progress: bool = True,
) -> MeasuredCircuit:
    """The causal heads of a model on minimal pairs, by the rule that the demo models have.

    1. Run both sides. A model that does not do the task is refused here, before anything is patched.
    2. Patch every head in both directions (`patch_heads`, `head_effects`).
    3. Patch each causal head at each named position alone (denoising): it acts where at least half of its effect is.

    Args:
        model: what `load_model` returns.
        pairs: (clean, corrupt), prompts paired in order, all of one length (`helpers.prompts.fit.fit_task` makes them).
        task: what the table says it is.
        screen: patch only the heads whose effect, estimated by attribution patching in both directions, is above this
            share of the gap (`SCREEN`, a quarter of the causal threshold, is a good value); default: every head.
        work: a folder in which finished layers are kept, so that a run that was killed goes on; it is emptied at the end.
        min_accuracy: smallest share of clean prompts with a readout above 0.
        batch_size: prompts a forward pass.
        prepend_bos, bos: as `record_attention`.
        left_out: sentences for the record: which prompts were not used, and why.

    Raises:
        ValueError: if the sides can't be paired, the model does not do the task, or the sides do not differ in it.
    """
    clean, corrupt = pairs
    tokens = {"prepend_bos": prepend_bos, "bos": bos}
    minimal = MinimalPairs(model, clean, corrupt, **tokens)
    stored = StoredPairs(minimal, batch_size=batch_size)
    _check_task(stored, task, min_accuracy)
    weights = fingerprint(model)
    estimates = _estimates(model, pairs, stored, batch_size=batch_size, progress=progress, **tokens) if screen else None
    heads = check_heads("heads", _above(estimates, screen, model.cfg.n_heads), model.cfg.n_layers, model.cfg.n_heads)
    key = _key(weights, minimal, run_settings(model, prepend_bos, bos))
    with _kept_in(work, key) as folder:
        run = _patch(stored, heads, folder, progress)
    table = head_effects(run)
    table["acts_at"] = _where(stored, table, progress)
    if estimates is not None:
        table = table.assign(**estimates)
    about = {
        "format": FORMAT,
        "model": model.cfg.model_name,
        "weights": weights,
        "task": task,
        "pairs": len(minimal),
        "tokens": minimal.clean.shape[1],
        "settings": run_settings(model, prepend_bos, bos),
        "accuracy": float((stored.clean > 0).mean()),
        "top_1": float(stored.is_top.mean()),
        "clean": float(stored.clean.mean()),
        "corrupt": float(stored.corrupt.mean()),
        "gap": float((stored.clean - stored.corrupt).mean()),
        "readout": minimal.readout,
        "threshold": THRESHOLD,
        "screened_above": screen,
        "heads_patched": len(heads),
        "left_out": list(left_out),
        "versions": {name: version(name) for name in ("torch", "transformers", "transformer_lens")},
        "prompts": [{"clean": c.text, "corrupt": x.text} for c, x in zip(clean, corrupt, strict=True)],
    }
    return MeasuredCircuit(table, about)


def _check_task(stored: StoredPairs, task: str, min_accuracy: float) -> None:
    accuracy, gap = (stored.clean > 0).mean(), (stored.clean - stored.corrupt).mean()
    if not accuracy >= min_accuracy:
        raise ValueError(
            f"task {task!r}: expected a model that prefers the answer to the foil in at least {min_accuracy:.0%} of the clean "
            f"prompts, got {accuracy:.0%} of {len(stored.clean)}; nothing was patched"
        )
    if not gap > 0:
        raise ValueError(
            f"task {task!r}: expected clean prompts with a larger mean readout than corrupt ones, got a gap of {gap:.3g}"
        )


def _estimates(
    model: TransformerBridge, pairs: tuple[Sequence[Prompt], Sequence[Prompt]], stored: StoredPairs, **options: Any
) -> dict[str, np.ndarray]:
    """Effects of all heads, estimated by attribution patching in both directions, as columns of the table."""
    gap = (stored.clean - stored.corrupt).mean()
    found = {}
    for way, at in (("denoising", "corrupt"), ("noising", "clean")):
        estimate = attribute_heads(model, *pairs, at=at, **options | {"batch_size": min(50, options["batch_size"])})  # type: ignore[arg-type]
        found[f"attribution_{way}"] = (estimate.mean(-1) / gap).ravel()
    return found


def _above(estimates: dict[str, np.ndarray] | None, screen: float | None, n_heads: int) -> list[Head] | None:
    """The heads to patch: those above the screen in either direction, or all (None)."""
    if estimates is None:
        return None
    largest = np.abs(list(estimates.values())).max(0)
    return [(int(i) // n_heads, int(i) % n_heads) for i in np.flatnonzero(largest > screen)]


def _patch(stored: StoredPairs, heads: Sequence[Head], folder: Path | None, progress: bool) -> PatchingRun:
    """Patch heads layer by layer, taking from the folder what an earlier run left there."""
    config = stored.pairs.model.cfg
    denoised, noised = (np.full((config.n_layers, config.n_heads, len(stored.clean)), np.nan) for _ in range(2))
    bar = tqdm(total=len(heads), desc="patching", unit="head", disable=not progress)
    for layer, some in by_layer(heads):
        path = folder and folder / f"layer-{layer:03}.npy"
        if path and path.exists():
            found = np.load(path)
        else:
            found = np.stack([stored.denoise(layer, some), stored.noise(layer, some)])
            if path:
                part = path.with_suffix(".part")
                with part.open("wb") as file:
                    np.save(file, found)
                part.replace(path)
        denoised[layer, some], noised[layer, some] = found
        bar.update(len(some))
    bar.close()
    return PatchingRun(stored.clean, stored.corrupt, denoised, noised)


def _where(stored: StoredPairs, table: pd.DataFrame, progress: bool) -> pd.Series:
    """Position at which each causal head has at least half of its effect alone, else "in between".

    The effect is that of denoising, or of noising for a head that is causal in that direction alone.
    """
    causal = table[table.causal]
    positions, gap = stored.pairs.positions(), (stored.clean - stored.corrupt).mean()
    alone = pd.DataFrame(np.nan, index=causal.index, columns=list(positions))
    whole = causal.denoising.where(is_causal(causal.assign(noising=0.0)), causal.noising)
    bar = tqdm(total=len(causal), desc="positions", unit="head", disable=not progress)
    for row in causal.itertuples():
        denoises = whole[row.Index] == row.denoising
        for position in positions:
            at, head = stored.pairs.at(position), [row.head]
            moved = (
                stored.denoise(row.layer, head, at) - stored.corrupt
                if denoises
                else stored.clean - stored.noise(row.layer, head, at)
            )
            alone.loc[row.Index, position] = moved.mean() / gap
        bar.update()
    bar.close()
    share = alone.div(whole, axis=0)
    where = pd.Series("", index=table.index)
    if len(causal):
        where[causal.index] = share.idxmax(axis=1).where(share.max(axis=1) >= 0.5, "in between")
    return where


def _key(weights: str, pairs: MinimalPairs, settings: dict[str, Any]) -> str:
    """What a kept layer depends on."""
    text = json.dumps([weights, pairs.clean.tolist(), pairs.corrupt.tolist(), pairs.answers, settings])
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _kept_in(work: str | Path | None, key: str) -> Iterator[Path | None]:
    """A folder for the layers of one measurement; those of another are refused, its own are removed at the end."""
    if work is None:
        yield None
        return
    folder, mark = Path(work), Path(work, "key")
    if folder.exists() and (not mark.exists() or mark.read_text() != key):
        raise ValueError(
            f"work: expected a new folder or that of the same measurement, got {str(work)!r}, left by another; remove it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(key)
    yield folder
    for path in (*folder.glob("layer-*"), mark):
        path.unlink()
    folder.rmdir()


def task_accuracy(
    model: TransformerBridge, pairs: tuple[Sequence[Prompt], Sequence[Prompt]], *, batch_size: int = 100, **tokens: Any
) -> tuple[float, float]:
    """How well a model does a task, from one pass over the clean prompts.

    Returns:
        (accuracy, top_1): share of prompts with a readout above 0 (answer above foil), and share of prompts in which (one
        of) the right answers is the most likely token of all.
    """
    minimal = MinimalPairs(model, *pairs, **tokens)
    above, top = [], []
    with torch.no_grad():
        for batch in minimal.batches(batch_size):
            logits = forward(model, minimal.clean[batch])
            above.append((minimal.read(logits, batch) > 0).numpy())
            top.append(minimal.is_top(logits, batch))
    return float(np.concatenate(above).mean()), float(np.concatenate(top).mean())


def fit_to_model(model: TransformerBridge, task: str, n: int, *, seed: int = 0, **tokens: Any) -> FittedTask:
    """Pairs of a task that are right for the model's tokenizer, in the form of the task that the model can do.

    Of the forms in `VARIANTS` the first in which the answer is the most likely token of all in at least
    `REQUIRED_ACCURACY` of the clean prompts; where there is none, the one in which it is above the foil most often.
    Nothing but answers is looked at.

    Raises:
        ValueError: as `fit_task`.
    """
    tried = []
    for options in VARIANTS.get(task, ({},)):
        fitted = fit_task(task, model.tokenizer, n, seed=seed, **tokens, **options)
        accuracy, top_1 = task_accuracy(model, (fitted.clean, fitted.corrupt), **tokens)
        if top_1 >= REQUIRED_ACCURACY:
            return fitted
        tried.append((accuracy, fitted))
    return max(tried, key=lambda pair: pair[0])[1]
