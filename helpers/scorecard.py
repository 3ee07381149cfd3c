"""Does a run on GPT-2 small agree with the published result? Every figure of the post, line by line.

Tolerances follow the printed precision: 0.0005 for means and sds printed with four decimals, one unit of the last place
for correlations (three decimals) and weights, half a unit of the last printed digit for p, 0.5 (a tie) for U.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.attention.record import AttentionRecord
from helpers.experiment import Experiment
from helpers.heads import Head, heads_of, pairs_of
from helpers.reference import published
from helpers.statistics.coupling import upper_triangle

__all__ = [
    "Line",
    "as_text",
    "scorecard",
    "summary",
]

FOUR_DECIMALS, THREE_DECIMALS = 0.0005, 0.001


class Line(NamedTuple):
    """One published figure and ours."""

    section: str
    what: str
    published: float
    measured: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        return bool(abs(self.measured - self.published) <= self.tolerance + 1e-12)


def scorecard(experiment: Experiment) -> pd.DataFrame:
    """Compare a run of the post's protocol with everything the post prints.

    Args:
        experiment: the post's 50 IOI and 50 ABC prompts on GPT-2 small (`helpers.experiment.analyse`).

    Returns:
        One row a figure: section, what, published, measured, tolerance, agrees.

    Raises:
        ValueError: if the model is not of GPT-2 small's shape, or the prompts are not 50 and 50.
    """
    shape = (experiment.active.n_layers, experiment.active.n_heads)
    counts = (len(experiment.active.prompts), len(experiment.control.prompts))
    if shape != (12, 12) or counts != (50, 50) or not experiment.rankings:
        raise ValueError(
            "experiment: expected the post's 50 + 50 prompts on a model of 12 layers x 12 heads with its circuit, got "
            f"{counts[0]} + {counts[1]} prompts and {shape[0]} x {shape[1]} heads"
        )
    sections = (_heads, _tests, _correlations, _coupling, _idle_heads)
    lines = [line for section in sections for line in section(experiment)]
    return pd.DataFrame([{**line._asdict(), "agrees": line.agrees} for line in lines])


def _heads(experiment: Experiment) -> Iterator[Line]:
    quantities = ["kl_active", "kl_control", "d_kl", "chi_active", "chi_control", "d_chi"]
    table = experiment.table.set_index(["layer", "head"])
    figures = pd.concat([published.circuit_heads(), published.OTHER_HEADS])
    for head, row in zip(heads_of(figures), figures.itertuples(), strict=True):
        for quantity in quantities:
            measured = float(table.loc[head, quantity])
            yield Line("heads", f"{head} {quantity}", getattr(row, quantity), measured, FOUR_DECIMALS)


def _tests(experiment: Experiment) -> Iterator[Line]:
    for row in published.TESTS.itertuples():
        ours = experiment.rankings[row.statistic]
        yield Line("tests", f"{row.statistic} U", row.u, ours.u, 0.5)
        yield Line("tests", f"{row.statistic} p", row.p, ours.p, row.p_precision)
        for name in ("mean_circuit", "sd_circuit", "mean_other", "sd_other"):
            yield Line("tests", f"{row.statistic} {name}", getattr(row, name), getattr(ours, name), FOUR_DECIMALS)


def _correlations(experiment: Experiment) -> Iterator[Line]:
    for name, value in published.CORRELATIONS.items():
        yield Line("correlations", str(name), value, experiment.correlations[name], THREE_DECIMALS)
    per_prompt = np.corrcoef(experiment.kl_chi_active.kl.ravel(), experiment.kl_chi_active.chi.ravel())[0, 1]
    yield Line("correlations", "KL, chi (per prompt)", published.PER_PROMPT_CORRELATION, per_prompt, THREE_DECIMALS)


def _coupling(experiment: Experiment) -> Iterator[Line]:
    coupling = experiment.coupling
    matrices = {"c_active": coupling.active, "c_control": coupling.control, "c_diff": coupling.difference}
    for name, matrix in matrices.items():
        values = upper_triangle(matrix)
        for end, value, ours in zip(
            ("min", "max"), published.COUPLING[name], (values.min(), values.max()), strict=True
        ):
            yield Line("coupling", f"{name} {end}", value, ours, THREE_DECIMALS)
    sd = upper_triangle(coupling.difference).std()
    yield Line("coupling", "c_diff sd", published.COUPLING_SD, sd, THREE_DECIMALS)
    pairs = published.top_pairs()
    by_head = coupling.difference.reshape((12,) * 4)
    for (one, two), value in zip(pairs_of(pairs), pairs.c_diff, strict=True):
        yield Line("coupling", f"{one} {two} c_diff", value, by_head[(*one, *two)], THREE_DECIMALS)


def _idle_heads(experiment: Experiment) -> Iterator[Line]:
    """Where heads look on the first 20 ABC prompts: BOS, the previous token, the verb (the token after C)."""
    first = experiment.control.subset(range(20))
    idle = published.IDLE_HEADS
    for head, row in zip(heads_of(idle), idle.itertuples(), strict=True):
        share, weight = _looks_at(first, head, row.target)
        if not np.isnan(row.share):
            name = f"{head} looks at {row.target}: share of prompts"
            yield Line("idle heads", name, row.share, share, row.share_precision)
        yield Line("idle heads", f"{head} mean largest weight", row.weight, weight, row.weight_precision)


def _looks_at(record: AttentionRecord, head: Head, target: str) -> tuple[float, float]:
    """Share of prompts whose largest weight is on the target, and the mean largest weight."""
    rows = record.rows[:, *head]
    wanted = {
        "BOS": lambda p: p.position("BOS"),
        "the previous token": lambda p: p.position("END") - 1,
        "the verb": lambda p: p.position("C") + 1,
    }[target]
    hits = [int(row.argmax()) == wanted(prompt) for row, prompt in zip(rows, record.prompts, strict=True)]
    return float(np.mean(hits)), float(rows.amax(-1).mean())


def summary(card: pd.DataFrame) -> str:
    """The last line: how many rows agree."""
    return f"{int(card.agrees.sum())} of {len(card)} published figures agree"


def as_text(card: pd.DataFrame) -> str:
    """The scorecard as a plain table."""
    shown = card.assign(
        published=card.published.map("{:.6g}".format),
        measured=card.measured.map("{:.6g}".format),
        tolerance=card.tolerance.map("{:g}".format),
        agrees=card.agrees.map({True: "yes", False: "NO"}),
    )
    return "\n\n".join(
        f"{section}\n{rows.drop(columns='section').to_string(index=False)}"
        for section, rows in shown.groupby("section", sort=False)
    )
