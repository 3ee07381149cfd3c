"""What was fixed before SmolLM2's tables were looked at (smollm2/PROTOCOL.md), and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from helpers.measured.shipped import measured_tasks, ranked_scores

#: The forward-only score that was named before it was judged.
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
