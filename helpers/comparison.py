"""Every statistic under one protocol: which of them finds the heads that matter, and what does it cost?

`gather` runs a model on minimal pairs once; each of `SCORES` turns that evidence into one number a head; `compare`
ranks the heads by each. A new statistic is one more entry of `SCORES` (or of `helpers.diagnostics.shapes.SHAPES`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.metrics import average_precision_score

from helpers.attention.capture import record_attention
from helpers.attention.record import AttentionRecord
from helpers.diagnostics.distances import DISTANCES
from helpers.diagnostics.heads import diagnose
from helpers.diagnostics.shapes import SHAPES, shape_shift
from helpers.models.attribution import attribute_heads
from helpers.models.outputs import HeadOutputs, output_change, record_outputs
from helpers.models.patching import head_effects, patch_heads
from helpers.prompts.prompt import Prompt
from helpers.reference.circuits import Circuit
from helpers.statistics.pairs import position_scan
from helpers.statistics.ranking import Ranking, rank_heads
from helpers.statistics.shifts import head_index

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

HeadScore = Float[np.ndarray, "layer head"]


@dataclass(frozen=True)
class Evidence:
    """What is known about every head from one set of minimal pairs.

    Attributes:
        active, control: attention records of all query positions; prompt k of both is a pair.
        outputs_active, outputs_control: head outputs at END.
        attribution, patching: estimated and measured effect of each head, ``(layer, head)``; None if not asked for.
    """

    active: AttentionRecord
    control: AttentionRecord
    outputs_active: HeadOutputs
    outputs_control: HeadOutputs
    attribution: HeadScore | None = None
    patching: HeadScore | None = None

    def end(self) -> tuple[AttentionRecord, AttentionRecord]:
        """The END rows of both sides."""
        return self.active.at("END"), self.control.at("END")


@dataclass(frozen=True)
class Score:
    """A statistic of heads: larger = more likely to matter.

    Attributes:
        of: evidence -> one number a head, shape ``(layer, head)``; NaN where it is not defined counts as 0.
        passes: forward passes for each pair of prompts (a backward pass counts as two), and ``passes_per_head``.
        needs: what must be run: nothing, "two sets" of prompts, or "pairs" of prompts that differ in one thing.
    """

    of: Callable[[Evidence], HeadScore]
    passes: float
    needs: str = "two sets"
    passes_per_head: float = 0

    def cost(self, n_heads: int) -> float:
        """Forward passes a pair for a model with that many heads in all."""
        return self.passes + self.passes_per_head * n_heads


def gather(
    model: TransformerBridge, active: Sequence[Prompt], control: Sequence[Prompt], *, expensive: bool = True
) -> Evidence:
    """Run a model on minimal pairs and keep what the scores need.

    Args:
        active, control: prompt k of both is a pair (see `helpers.prompts.tasks`), all of one length.
        expensive: also patch (attribution patching, and activation patching of every head in both directions).
    """
    record = partial(record_attention, model, query="all", progress=False)
    output = partial(record_outputs, model, progress=False)
    evidence = Evidence(record(active), record(control), output(active), output(control))
    if not expensive:
        return evidence
    effects = head_effects(patch_heads(model, active, control, progress=False))
    patching = effects[["denoising", "noising"]].abs().max(axis=1).to_numpy()
    shape = evidence.active.n_layers, evidence.active.n_heads
    attribution = attribute_heads(model, active, control, progress=False).mean(-1)
    return Evidence(**vars(evidence) | {"attribution": attribution, "patching": patching.reshape(shape)})


def compare(
    evidence: Evidence,
    circuit: Circuit,
    scores: Mapping[str, Score] | None = None,
    *,
    n_permutations: int = 20_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank the heads by every score: one row each, in the order of ``scores``; none is dropped.

    Returns:
        Columns auroc, low, high (95 % bootstrap interval over heads), within (within-layer AUROC), within_p,
        average_precision (base rate: the share of heads in the circuit, in ``attrs["base_rate"]``), passes, needs.

    Raises:
        ValueError: if the circuit belongs to a model of another shape.
    """
    shape = evidence.active.n_layers, evidence.active.n_heads
    if (circuit.n_layers, circuit.n_heads) != shape:
        raise ValueError(f"circuit: expected heads of a model of shape {shape} (layers, heads), got {circuit.name!r}")
    heads = head_index(*shape)
    inside = np.array([head in set(circuit.heads) for head in zip(heads.layer, heads["head"], strict=True)])
    rows = {}
    for name, score in (scores or SCORES).items():
        value = np.nan_to_num(score.of(evidence)).ravel()
        r = rank_heads(value, inside, heads.layer, n_permutations=n_permutations, seed=seed)
        rows[name] = _row(r, float(average_precision_score(inside, value)), score)
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.attrs["base_rate"] = float(inside.mean())
    return table


def _row(r: Ranking, precision: float, score: Score) -> dict[str, float | str]:
    return {
        "auroc": r.auroc,
        "low": r.low,
        "high": r.high,
        "within": r.within_auroc,
        "within_p": r.within_p,
        "average_precision": precision,
        "passes": score.cost(r.n_circuit + r.n_other),
        "needs": score.needs,
    }


# ---- the scores


def _layer(evidence: Evidence) -> HeadScore:
    layers = np.arange(evidence.active.n_layers, dtype=float)
    return np.repeat(layers[:, None], evidence.active.n_heads, axis=1)


def _shift(name: str, evidence: Evidence) -> HeadScore:
    return np.abs(shape_shift(name, *evidence.end()))


def _distance(name: str, evidence: Evidence) -> HeadScore:
    active, control = evidence.end()
    return DISTANCES[name](active.rows, control.rows).mean(0)


def _furthest(name: str, evidence: Evidence) -> HeadScore:
    """The largest mean distance of matched rows over all query positions."""
    return DISTANCES[name](*_rows_of_all(evidence)).mean(0).max(-1)


def _rows_of_all(evidence: Evidence) -> tuple:
    lengths = {len(p) for record in (evidence.active, evidence.control) for p in record.prompts}
    if len(lengths) > 1:
        raise ValueError(f"active, control: expected prompts of one length, got lengths {sorted(lengths)}")
    return evidence.active.rows, evidence.control.rows


def scan_positions(evidence: Evidence, *, n_flips: int = 10_000) -> pd.DataFrame:
    """`position_scan` of KL at every query position but the first, which sees one key."""
    _rows_of_all(evidence)
    active, control = (diagnose(record).kl[..., 1:] for record in (evidence.active, evidence.control))
    return position_scan(active, control, [f"token {t}" for t in range(1, active.shape[-1] + 1)], n_flips=n_flips)


def _best_position(evidence: Evidence) -> HeadScore:
    """The largest |t| of KL over all query positions."""
    return scan_positions(evidence, n_flips=1).t.abs().to_numpy().reshape(evidence.active.rows.shape[1:3])


def _magnitude(evidence: Evidence) -> HeadScore:
    """Shift of ||z||^2 / d_head at END (Fields 2026)."""
    return np.abs(evidence.outputs_active.magnitude.mean(0) - evidence.outputs_control.magnitude.mean(0))


def _output_change(evidence: Evidence) -> HeadScore:
    return output_change(evidence.outputs_active, evidence.outputs_control).mean(0)


def _direct(evidence: Evidence) -> HeadScore:
    """Shift of the head's direct logit attribution, answer - foil, at END."""
    return np.abs((evidence.outputs_active.attribution - evidence.outputs_control.attribution).mean(0))


def _expensive(name: str, evidence: Evidence) -> HeadScore:
    value = getattr(evidence, name)
    if value is None:
        raise ValueError(f"evidence: expected {name} effects (gather with expensive=True), got none")
    return np.abs(value)


#: All statistics that are compared. Two sets are enough for a shift of means; distances and changes need pairs.
SCORES: dict[str, Score] = {
    "layer index": Score(_layer, 0, "nothing"),
    **{f"|d {name}|": Score(partial(_shift, name), 2) for name in SHAPES},
    **{name: Score(partial(_distance, name), 2, "pairs") for name in DISTANCES},
    "total variation, furthest position": Score(partial(_furthest, "total variation"), 2, "pairs"),
    "|t| of KL, best position": Score(_best_position, 2, "pairs"),
    "|d output magnitude|": Score(_magnitude, 2),
    "|d direct logit attribution|": Score(_direct, 2),
    "output change": Score(_output_change, 2, "pairs"),
    "attribution patching": Score(partial(_expensive, "attribution"), 4, "pairs"),
    "activation patching": Score(partial(_expensive, "patching"), 2, "pairs", passes_per_head=2),
}
