"""A measured circuit in words and tables: the report of ``make circuit``, and what model cards say of causal heads."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from helpers.heads import head_names
from helpers.reference.measured import MeasuredCircuit
from helpers.statistics.effects import DIRECTIONS, OTHER_THRESHOLDS, THRESHOLD


def circuit_report(measured: MeasuredCircuit) -> str:
    """A measured circuit as plain text: what was run, how well the model does it, and the causal heads."""
    about, table = measured.about, measured.table
    causal = table[table.causal]
    top_1 = f", the most likely token of all in {about['top_1']:.0%}"
    counts = {f"{t:.0%}": len(measured.circuit(t).heads) for t in (OTHER_THRESHOLDS[0], THRESHOLD, OTHER_THRESHOLDS[1])}
    lines = [
        f"model    {about['model']} (weights {about['weights']}, {about['settings']['dtype']})",
        f"task     {about['task']}, {about['pairs']} pairs of {about['tokens']} tokens",
        f"answer   above the foil in {about['accuracy']:.0%} of the clean prompts{top_1}",
        f"readout  {about['readout']}: clean {about['clean']:.2f}, corrupt {about['corrupt']:.2f}, gap {about['gap']:.2f}",
        *(f"NOTE  left out: {sentence}" for sentence in about["left_out"]),
        "",
        f"Causal: {len(causal)} of {len(table)} heads (more than {THRESHOLD:.0%} of the gap in either direction, interval without 0); "
        + "at other thresholds: "
        + ", ".join(f"{count} at {name}" for name, count in counts.items() if name != f"{THRESHOLD:.0%}"),
    ]
    if about["screened_above"] is not None:
        lines.append(
            f"NOTE  {about['heads_patched']} heads were patched: those that attribution patching puts above "
            f"{about['screened_above']:.2%} of the gap. A head that it misjudges is missing."
        )
    shown = pd.DataFrame(
        {
            "head": head_names(causal),
            **{way: [effect(row, way) for _, row in causal.iterrows()] for way in DIRECTIONS},
            "acts at": causal.acts_at,
        }
    )
    return "\n".join(lines) + "\n\n" + (shown.to_string(index=False) if len(shown) else "No head is causal.") + "\n"


def effect(row: pd.Series, way: str) -> str:
    """A head's effect in one direction with its interval, e.g. ``"+0.311 (+0.250 to +0.372)"``."""
    return f"{row[way]:+.3f} ({row[f'{way}_low']:+.3f} to {row[f'{way}_high']:+.3f})"


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, its index as the first, nameless column."""
    lines = ["| | " + " | ".join(map(str, table.columns)) + " |", "|---" * (len(table.columns) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(map(str, row)) + " |"
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return "\n".join(lines)


def causal_rows(causal: pd.DataFrame, more: Sequence[str] = ()) -> str:
    """Causal heads in Markdown: effects in both directions with intervals, where they act, and further columns as they are."""
    columns = {f"{way} (95 % interval)": [effect(row, way) for _, row in causal.iterrows()] for way in DIRECTIONS}
    columns |= {"acts at": causal.acts_at.to_list()} | {name: causal[name].to_list() for name in more}
    return markdown(pd.DataFrame(columns, index=head_names(causal)))
