"""What ships: scores, roles and attention records of models that were measured, without the models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import pandas as pd

from helpers.attention.record import AttentionRecord
from helpers.reference.measured import MeasuredCircuit, measured_circuit
from helpers.scores.comparison import SCORES, rank_scores
from helpers.statistics.effects import THRESHOLD


@cache
def measured_tasks() -> tuple[tuple[str, str], ...]:
    """(model, task) of every shipped circuit."""
    root = resources.files(__package__)
    found = []
    for model in sorted(root.iterdir(), key=lambda entry: entry.name):
        if model.is_dir():
            found += [(model.name, task.name) for task in model.iterdir() if (task / "heads.csv").is_file()]
    return tuple(sorted(found))


def head_scores(model: str, task: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Every score of every head, as `helpers.scores.comparison.score_heads` returns them.

    Raises:
        ValueError: if nothing was measured there.
    """
    _known(model, task)
    folder = resources.files(__package__) / model / task
    with (folder / "scores.csv").open() as file:
        return pd.read_csv(file), json.loads((folder / "reasons.json").read_text(encoding="utf-8"))


def shipped_attribution(model: str, task: str) -> pd.DataFrame:
    """Attribution patching in both directions, one row a head: ``denoising`` and ``noising``, in logits, mean over pairs.

    It was measured on the pairs of the scores, after these had been judged; ``denoising`` is the score "attribution patching".

    Raises:
        ValueError: if nothing was measured there.
    """
    _known(model, task)
    with (resources.files(__package__) / model / task / "attribution.csv").open() as file:
        return pd.read_csv(file)


def ranked_scores(
    model: str,
    task: str,
    names: Sequence[str] = tuple(SCORES),
    *,
    threshold: float = THRESHOLD,
    n_permutations: int = 20_000,
) -> pd.DataFrame:
    """How scores (default: every one) rank the causal heads of a measured circuit (`helpers.scores.comparison.rank_scores`).

    Raises:
        ValueError: as `head_scores`, and if fewer than two heads are causal at the threshold.
    """
    values, reasons = head_scores(model, task)
    scores = {name: SCORES[name] for name in names}
    return rank_scores(values, reasons, _known(model, task).circuit(threshold), scores, n_permutations=n_permutations)


def shipped_roles(model: str) -> pd.DataFrame:
    """The roles of a measured model's heads (`helpers.contents.roles.head_roles`)."""
    with (resources.files(__package__) / model / "roles.csv").open() as file:
        return pd.read_csv(file, keep_default_na=False, na_values=[""]).fillna({"role": ""})


def shipped_record(model: str, name: str) -> AttentionRecord:
    """Attention rows of all positions: ``"ioi"`` and ``"abc"`` (the post's prompts), ``"clean"`` and ``"corrupt"`` (minimal pairs).

    Raises:
        FileNotFoundError: if there is no such record.
    """
    with resources.as_file(resources.files(__package__) / model / "records" / f"{name}.safetensors") as path:
        return AttentionRecord.load(Path(path))


def _known(model: str, task: str) -> MeasuredCircuit:
    found = measured_circuit(model, task)
    if found is None:
        known = ", ".join(f"{m}/{t}" for m, t in measured_tasks())
        raise ValueError(f"model, task: expected one of {known}, got {model}/{task}")
    return found
