"""What ships: scores, roles and attention records of models that were measured, without the models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import pandas as pd

from helpers.attention.record import AttentionRecord
from helpers.comparison import SCORES, rank_scores
from helpers.reference.measured import MeasuredCircuit, measured_circuit
from helpers.statistics.effects import THRESHOLD

#: The forward-only score that was named before it was judged (see the protocol in smollm2/PROTOCOL.md).
NAMED = "output change, all positions"
#: (model, task) on which it was named, and the within-layer AUROC that it was to reach on the others.
NAMED_ON = frozenset(
    {(f"demo{seed}", task) for seed in ("", "-seed-1", "-seed-2") for task in ("ioi", "repeated", "ownership")}
    | {("smollm2", "repeated")}
)
WITHIN_GOAL = 0.91
#: The scores that the protocol's hypotheses are about.
READ_BY_VERDICTS = (
    "|d KL|", "|d chi|", "total variation", "|d KL|, furthest position", "total variation, furthest position", NAMED,
    "attribution patching",
)  # fmt: skip


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
    """Every score of every head, as `helpers.comparison.score_heads` returns them.

    Raises:
        ValueError: if nothing was measured there.
    """
    _known(model, task)
    folder = resources.files(__package__) / model / task
    with (folder / "scores.csv").open() as file:
        return pd.read_csv(file), json.loads((folder / "reasons.json").read_text(encoding="utf-8"))


def ranked_scores(
    model: str,
    task: str,
    names: Sequence[str] = tuple(SCORES),
    *,
    threshold: float = THRESHOLD,
    n_permutations: int = 20_000,
) -> pd.DataFrame:
    """How scores (default: every one) rank the causal heads of a measured circuit (`helpers.comparison.rank_scores`).

    Raises:
        ValueError: as `head_scores`, and if fewer than two heads are causal at the threshold.
    """
    values, reasons = head_scores(model, task)
    scores = {name: SCORES[name] for name in names}
    return rank_scores(values, reasons, _known(model, task).circuit(threshold), scores, n_permutations=n_permutations)


def shipped_roles(model: str) -> pd.DataFrame:
    """The roles of a measured model's heads (`helpers.models.roles.head_roles`)."""
    with (resources.files(__package__) / model / "roles.csv").open() as file:
        return pd.read_csv(file, keep_default_na=False, na_values=[""]).fillna({"role": ""})


def shipped_record(model: str, name: str) -> AttentionRecord:
    """Attention rows of all positions: ``"ioi"`` and ``"abc"`` (the post's prompts), ``"clean"`` and ``"corrupt"`` (minimal pairs).

    Raises:
        FileNotFoundError: if there is no such record.
    """
    with resources.as_file(resources.files(__package__) / model / "records" / f"{name}.safetensors") as path:
        return AttentionRecord.load(Path(path))


def verdicts(model: str, *, n_permutations: int = 20_000) -> list[str]:
    """What the measurements say about the three hypotheses of the protocol, one sentence each, on every task."""
    tables = {
        task: ranked_scores(m, task, READ_BY_VERDICTS, n_permutations=n_permutations)
        for m, task in measured_tasks()
        if m == model
    }
    judged = {task: table for task, table in tables.items() if (model, task) not in NAMED_ON}

    def each(say: Callable[[pd.DataFrame], str], some: Mapping[str, pd.DataFrame]) -> str:
        return "; ".join(f"{task}: {say(table)}" for task, table in some.items())

    def post(table: pd.DataFrame) -> str:
        rows = table.loc[["|d KL|", "|d chi|"]]
        yes = ["yes" if row.low > 0.5 and row.within_p < 0.05 else "no" for row in rows.itertuples()]
        return f"|dKL| {yes[0]} ({_numbers(rows.iloc[0])}), |dchi| {yes[1]} ({_numbers(rows.iloc[1])})"

    def place(table: pd.DataFrame) -> str:
        pairs = (("|d KL|", "|d KL|, furthest position"), ("total variation", "total variation, furthest position"))
        return ", ".join(f"{end} {table.auroc[end]:.2f} to {table.auroc[far]:.2f}" for end, far in pairs)

    def named(table: pd.DataFrame) -> str:
        ours, other = table.loc[NAMED], table.loc["attribution patching"]
        reached = ours.auroc >= other.auroc and ours.within >= WITHIN_GOAL
        return f"{'reached' if reached else 'not reached'} ({_numbers(ours)}; attribution patching {_numbers(other)})"

    return [
        f"1. KL and chi at END find the causal heads, and not by depth alone. {each(post, tables)}.",
        f"2. The furthest position does better than END (AUROC). {each(place, tables)}.",
        f'3. "{NAMED}" has the AUROC of attribution patching and {WITHIN_GOAL} within layers. {each(named, judged)}.',
    ]


def _numbers(row: pd.Series) -> str:
    return (
        f"AUROC {row.auroc:.2f}, {row.low:.2f} to {row.high:.2f}; within layers {row.within:.2f}, p {row.within_p:.1g}"
    )


def _known(model: str, task: str) -> MeasuredCircuit:
    found = measured_circuit(model, task)
    if found is None:
        known = ", ".join(f"{m}/{t}" for m, t in measured_tasks())
        raise ValueError(f"model, task: expected one of {known}, got {model}/{task}")
    return found
