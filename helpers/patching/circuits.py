"""Find the heads that cause an answer, in any model: accuracy first, then patching of every head, or of a screen of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from helpers.attention.capture import run_settings
from helpers.folders import Kept, kept_in
from helpers.heads import Head, check_heads, head_index, heads_of
from helpers.models.fingerprint import fingerprint
from helpers.models.forward import forward
from helpers.models.model import LanguageModel
from helpers.patching.attribution import attribute_heads
from helpers.patching.heads import StoredPairs, head_effects
from helpers.patching.pairs import MinimalPairs
from helpers.prompts.fit import VARIANTS, FittedTask, fit_task
from helpers.prompts.prompt import Prompt
from helpers.reference.measured import FORMAT, MeasuredCircuit
from helpers.statistics.effects import THRESHOLD, is_causal

#: A model does a task if the readout is above 0 in at least this share of the clean prompts.
REQUIRED_ACCURACY = 0.9
#: Screening patches the heads whose estimated effect, in either direction, is above this share of the gap.
SCREEN = THRESHOLD / 4


def find_circuit(
    model: LanguageModel,
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
    3. Patch each causal head at each named position alone: it acts where it has at least half of its effect.

    Args:
        model: what `load_model` returns.
        pairs: (clean, corrupt), prompts paired in order, all of one length (`helpers.prompts.fit.fit_task` makes them).
        task: what the table says it is.
        screen: patch only the heads whose effect, estimated by attribution patching in both directions, is above this
            share of the gap (`SCREEN`, a quarter of the causal threshold, is a good value); default: every head.
        work: a folder in which finished layers are kept, so that a run that was stopped goes on; it is removed at the end.
        min_accuracy: smallest share of clean prompts with a readout above 0.
        batch_size: prompts a forward pass.
        prepend_bos, bos: as `record_attention`.
        left_out: sentences for the record: which prompts were not used, and why.

    Raises:
        ValueError: if the sides can't be paired or are one pair, the model does not do the task, the sides do not differ in
            it, or ``work`` holds something else.
    """
    tokens: dict[str, Any] = {"prepend_bos": prepend_bos, "bos": bos}
    if not 0 <= min_accuracy <= 1:
        raise ValueError(f"min_accuracy: expected a share from 0 to 1, got {min_accuracy}")
    minimal = MinimalPairs(model, *pairs, **tokens)
    if len(minimal) < 2:
        raise ValueError(f"pairs: expected at least 2, for intervals over pairs, got {len(minimal)}")
    stored = StoredPairs(minimal, batch_size=batch_size)
    _check_task(stored, task, min_accuracy)
    weights, settings = fingerprint(model), run_settings(model, prepend_bos, bos)
    with kept_in(work, _key(weights, minimal, settings, screen)) as kept:
        columns: dict[str, np.ndarray] = {}
        if screen is not None:
            columns = _estimates(model, pairs, stored, kept, batch_size=batch_size, progress=progress, **tokens)
        heads = _above(columns, screen, model.n_layers, model.n_heads)
        table = head_effects(stored.patch(heads, kept=kept, progress=progress))
        table["acts_at"] = _where(stored, table, kept, progress)
    about = {
        "format": FORMAT,
        "model": model.name,
        "weights": weights,
        "task": task,
        **_about_runs(stored),
        "settings": settings,
        "threshold": THRESHOLD,
        "screened_above": screen,
        "heads_patched": len(heads),
        "left_out": list(left_out),
        "versions": {name: version(name) for name in ("torch", "transformers", "transformer_lens")},
        "prompts": [{"clean": c.text, "corrupt": x.text} for c, x in zip(*pairs, strict=True)],
    }
    return MeasuredCircuit(table.assign(**columns), about)


def _about_runs(stored: StoredPairs) -> dict[str, Any]:
    """The unpatched runs in numbers."""
    return {
        "pairs": len(stored.clean),
        "tokens": stored.pairs.clean.shape[1],
        "accuracy": float((stored.clean > 0).mean()),
        "top_1": float(stored.is_top.mean()),
        "clean": float(stored.clean.mean()),
        "corrupt": float(stored.corrupt.mean()),
        "gap": float((stored.clean - stored.corrupt).mean()),
        "readout": stored.pairs.readout,
    }


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
    model: LanguageModel,
    pairs: tuple[Sequence[Prompt], Sequence[Prompt]],
    stored: StoredPairs,
    kept: Kept,
    *,
    batch_size: int,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Effects of all heads, estimated by attribution patching in both directions, as columns of the table."""
    gap, size = (stored.clean - stored.corrupt).mean(), min(50, batch_size)

    def estimate(at: Literal["corrupt", "clean"]) -> np.ndarray:
        return np.asarray(attribute_heads(model, *pairs, at=at, batch_size=size, **options).mean(-1).ravel() / gap)

    return {
        "attribution_denoising": kept.get("attribution-denoising", lambda: estimate("corrupt")),
        "attribution_noising": kept.get("attribution-noising", lambda: estimate("clean")),
    }


def _above(estimates: dict[str, np.ndarray], screen: float | None, n_layers: int, n_heads: int) -> list[Head]:
    """The heads to patch: those estimated above the screen in either direction, or all."""
    if screen is None:
        return check_heads("heads", None, n_layers, n_heads)
    largest = np.abs(list(estimates.values())).max(0)
    return heads_of(head_index(n_layers, n_heads)[largest > screen])


def _where(stored: StoredPairs, table: pd.DataFrame, kept: Kept, progress: bool) -> pd.Series:
    """Position at which each causal head has at least half of its effect alone, else "in between"; "" for the others.

    The effect is that of denoising, or of noising for a head that is causal in that direction alone.
    """
    names = list(stored.pairs.positions())
    gap = (stored.clean - stored.corrupt).mean()
    denoises = is_causal(table.assign(noising=0.0))
    where = pd.Series("", index=table.index)

    def alone(layer: int, head: int, way: str) -> np.ndarray:
        """The head's effect at each position alone."""
        places = [stored.pairs.at(name) for name in names]
        if way == "denoising":
            return np.array([(stored.denoise(layer, [head], at) - stored.corrupt).mean() / gap for at in places])
        return np.array([(stored.clean - stored.noise(layer, [head], at)).mean() / gap for at in places])

    for i in tqdm(np.flatnonzero(table.causal), desc="positions", unit="head", disable=not progress):
        layer, head = int(table.layer[i]), int(table["head"][i])
        way = "denoising" if denoises[i] else "noising"
        shares = kept.get(f"positions-{layer:03}-{head:03}", partial(alone, layer, head, way)) / table[way][i]
        where[i] = names[shares.argmax()] if shares.max() >= 0.5 else "in between"
    return where


def _key(weights: str, pairs: MinimalPairs, settings: dict[str, Any], screen: float | None) -> str:
    """What kept parts depend on."""
    ids = pairs.clean.tolist(), pairs.corrupt.tolist()
    return hashlib.sha256(json.dumps([weights, ids, pairs.answers, settings, screen]).encode()).hexdigest()


def task_accuracy(
    model: LanguageModel, pairs: tuple[Sequence[Prompt], Sequence[Prompt]], *, batch_size: int = 100, **tokens: Any
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


def fit_to_model(model: LanguageModel, task: str, n: int, *, seed: int = 0, **tokens: Any) -> FittedTask:
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
