"""Statistics of heads: from evidence to one number a head, with a unit, a price and what must be run.

A new statistic is one more entry of `SCORES` (or of `helpers.diagnostics.shapes.SHAPES`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from helpers.attention.record import AttentionRecord
from helpers.contents.outputs import HeadOutputs, output_change
from helpers.diagnostics.distances import DISTANCES, total_variation
from helpers.diagnostics.heads import diagnose, head_resolution, row_rounding
from helpers.diagnostics.shapes import SHAPES, shape_shift
from helpers.scores.evidence import Evidence, HeadScore
from helpers.statistics.pairs import position_scan, row_scan


@dataclass(frozen=True)
class Score:
    """A statistic of heads: larger = more likely to matter.

    Attributes:
        of: evidence -> one number a head, shape ``(layer, head)``; a head for which it is not defined is NaN. A
            ValueError says in one sentence why a model or prompts do not allow it.
        passes: forward passes for each pair of prompts (a backward pass counts as two), and ``passes_per_head``.
        needs: what must be run: nothing, "two sets" of prompts, or "pairs" of prompts that differ in one thing.
        unit: what the number is measured in.
    """

    of: Callable[[Evidence], HeadScore]
    passes: float
    needs: str = "two sets"
    passes_per_head: float = 0
    unit: str = "none"

    def cost(self, n_heads: int) -> float:
        """Forward passes a pair for a model with that many heads in all."""
        return self.passes + self.passes_per_head * n_heads


def _layer(evidence: Evidence) -> HeadScore:
    return np.repeat(np.arange(evidence.shape[0], dtype=float)[:, None], evidence.shape[1], axis=1)


# ---- attention at END


def _shift(name: str, evidence: Evidence) -> HeadScore:
    return np.asarray(np.abs(shape_shift(name, *evidence.end())))


def _distance(name: str, evidence: Evidence) -> HeadScore:
    evidence.pairs()
    active, control = evidence.end()
    return np.asarray(DISTANCES[name](active.rows, control.rows).mean(0))


# ---- attention at every position but the first, whose query sees one key


def _by_position(name: str, record: AttentionRecord) -> np.ndarray:
    """KL or chi, ``(prompt, layer, head, position)``."""
    return np.asarray(getattr(diagnose(record), name.lower())[..., 1:])


def _furthest_shift(name: str, evidence: Evidence) -> HeadScore:
    """|mean shift| at the position where that is largest."""
    active, control = (_by_position(name, record) for record in evidence.positions())
    return np.asarray(np.abs((active - control).mean(0)).max(-1))


def _furthest_distance(evidence: Evidence) -> HeadScore:
    """Mean total variation of matched rows at the position where that is largest."""
    active, control = evidence.positions()
    return np.asarray(total_variation(active.rows, control.rows).mean(0).max(-1))


def scan_positions(
    evidence: Evidence, of: str = "KL", *, by: Literal["t", "shift"] = "t", n_flips: int = 10_000
) -> pd.DataFrame:
    """Where each head moves most, with a p that counts how many positions were looked at.

    Args:
        of: ``"KL"`` or ``"chi"``: `position_scan`, with flips of whole pairs; ``by="shift"`` is the null of the scores
            "|d KL|, furthest position" and "|d chi|, furthest position". ``"total variation"``: `row_scan`, pairs whose
            names stand in the same places together.

    Raises:
        ValueError: if the prompts have several lengths, or there is no such number.
    """
    active, control = evidence.positions()
    names = [f"token {t}" for t in range(1, active.rows.shape[-1])]
    if of == "total variation":
        rows, others = (record.rows[..., 1:, :].double().numpy() for record in (active, control))
        places = [tuple(sorted(p.positions.items())) for p in active.prompts]
        resolution = max(row_rounding(record) for record in (active, control))
        return row_scan(rows, others, names, groups=places, n_flips=n_flips, resolution=resolution)
    if of not in ("KL", "chi"):
        raise ValueError(f"of: expected 'KL', 'chi' or 'total variation', got {of!r}")
    sides, name = [diagnose(record) for record in (active, control)], of.lower()
    values = *(getattr(side, name) for side in sides), head_resolution(name, *sides)
    left, right, smallest = (value[..., 1:] for value in values)
    return position_scan(left, right, names, by=by, n_flips=n_flips, resolution=smallest)


def _best_position(evidence: Evidence) -> HeadScore:
    """The largest |t| of KL over all query positions."""
    return np.asarray(scan_positions(evidence, n_flips=1).t.abs().to_numpy().reshape(evidence.shape))


# ---- outputs at END


def _means(name: str, evidence: Evidence, of: Callable[[HeadOutputs], np.ndarray]) -> HeadScore:
    """|shift of the mean| of a number of head outputs."""
    sides = evidence.outputs()
    values = [of(side) for side in sides]
    for side, value in zip(sides, values, strict=True):
        if np.isnan(value).all((1, 2)).any():
            missing = f"prompts: expected an answer and a foil in each, got {np.isnan(value).all((1, 2)).sum()} without"
            raise ValueError(side.reasons.get(name, missing))
    return np.asarray(np.abs(values[0].mean(0) - values[1].mean(0)))


def _variance(side: HeadOutputs) -> np.ndarray:
    if side.value_variance is None:
        raise ValueError("evidence: expected the variance of values, which was not gathered")
    return side.value_variance.astype(float)


def _output_change(evidence: Evidence) -> HeadScore:
    evidence.pairs()
    return np.asarray(output_change(*evidence.outputs()).mean(0))


# ---- contributions to the residual stream


def _change(where: str, relative: bool, evidence: Evidence) -> HeadScore:
    """Mean norm of the change at END, at the position where that is largest, or summed over all.

    Relative: the mean over pairs divided by the mean over pairs of the head's own norm (of both sides), at the same
    position; furthest is then where the ratio is largest, and over all positions it is the ratio of the sums. 0 where a
    head writes nothing on either side.
    """
    changes = evidence.have("changes")
    if where == "END":
        change, own = (changes.at_end(x).mean(0) for x in (changes.change, changes.own))
    else:
        evidence.positions()
        change, own = (x.mean(0, dtype=float) for x in (changes.change, changes.own))
    if where == "all positions":
        change, own = change.sum(-1), own.sum(-1)
    value = np.divide(change, own, out=np.zeros_like(change), where=own > 0) if relative else change
    return np.asarray(value.max(-1) if where == "furthest position" else value)


# ---- effects


def _effect(name: str, evidence: Evidence) -> HeadScore:
    return np.asarray(np.abs(evidence.have(name)))


_SHAPE_UNITS = {
    "entropy": "nats", "max weight": "share of attention", "BOS weight": "share of attention",
    "chi given KL": "share of largest chi",
}  # fmt: skip
_STREAM = "norm in the residual stream"


def _changes() -> dict[str, Score]:
    found = {}
    for where in ("END", "furthest position", "all positions"):
        for relative in (False, True):
            name = f"output change, {where}" + (", relative" if relative else "")
            unit = "share of own output" if relative else _STREAM
            found[name] = Score(partial(_change, where, relative), 2, "pairs", unit=unit)
    return found


#: All statistics that are compared. Two sets are enough for a shift of means; distances and changes need pairs.
SCORES: dict[str, Score] = {
    "layer index": Score(_layer, 0, "nothing"),
    **{f"|d {name}|": Score(partial(_shift, name), 2, unit=_SHAPE_UNITS.get(name, "normalised")) for name in SHAPES},
    "total variation": Score(partial(_distance, "total variation"), 2, "pairs", unit="share of attention"),
    "Jensen-Shannon": Score(partial(_distance, "Jensen-Shannon"), 2, "pairs"),
    "total variation, furthest position": Score(_furthest_distance, 2, "pairs", unit="share of attention"),
    "|d KL|, furthest position": Score(partial(_furthest_shift, "KL"), 2, "pairs", unit="normalised"),
    "|d chi|, furthest position": Score(partial(_furthest_shift, "chi"), 2, "pairs", unit="normalised"),
    "|t| of KL, best position": Score(_best_position, 2, "pairs"),
    "|d output magnitude|": Score(
        partial(_means, "magnitude", of=lambda side: side.magnitude), 2, unit="mean square of z"
    ),
    "|d Var_v|": Score(partial(_means, "value_variance", of=_variance), 2, unit="mean square of values"),
    "|d log Var_v|": Score(partial(_means, "value_variance", of=lambda side: np.log(_variance(side) + 1e-8)), 2),
    "|d direct logit attribution|": Score(
        partial(_means, "attribution", of=lambda side: side.attribution), 2, unit="logits"
    ),
    "output change": Score(_output_change, 2, "pairs", unit="norm of z"),
    **_changes(),
    "attribution patching": Score(partial(_effect, "attribution"), 4, "pairs", unit="logits"),
    "activation patching": Score(partial(_effect, "patching"), 2, "pairs", passes_per_head=2, unit="share of gap"),
}
