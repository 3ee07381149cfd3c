"""The experiment: two attention records in, one analysis out. No model is needed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from helpers.attention.record import AttentionRecord, check_same_run
from helpers.design import Design, design_of, power_note, shifts_and_tests
from helpers.diagnostics.distances import DISTANCES
from helpers.diagnostics.heads import HeadDiagnostics, diagnose, head_resolution
from helpers.diagnostics.shapes import SHAPES, shape_shift
from helpers.heads import heads_of
from helpers.prompts.tokens import compare_notes
from helpers.reference.circuits import Circuit
from helpers.reference.measured import MeasuredCircuit
from helpers.statistics.coupling import Coupling, correlations, couple_heads
from helpers.statistics.effects import OTHER_THRESHOLDS, is_causal
from helpers.statistics.ranking import Ranking, rank_heads
from helpers.statistics.shifts import check_sides

#: The two scores whose ranking of heads is the question.
RANKED_SHIFTS = {"|dKL|": "d_kl", "|dchi|": "d_chi"}


@dataclass(frozen=True)
class Experiment:
    """What two prompt sets say about the heads of a model.

    Attributes:
        active, control: the attention records.
        kl_chi_active, kl_chi_control: KL and chi of every prompt and head.
        table: one row a head: layer, head, role, in_circuit; KL and chi means on both sets (``kl_active``, …), shifts
            active - control (``d_kl``, ``d_chi``) with bootstrap intervals (``_low``, ``_high``), and a two-sided test
            over pairs or prompts (``_p``, ``_q``); then the mean shift of every other number in `SHAPES` (``d_max_weight``, …)
            and, where the two sets are matched prompt by prompt, mean distances of rows (`DISTANCES`; else NaN).
        circuit: the heads that are known to matter, or None.
        rankings: for each of `RANKED_SHIFTS`, how it ranks circuit heads; empty without a circuit, or with fewer than two heads on
            either side.
        other_rankings: of a measured circuit, the same by other thresholds of the causal rule (`OTHER_THRESHOLDS`).
        correlations: over heads, as post 2 lists them.
        coupling: cross-head correlations of per-prompt KL.
        notes: what a reader should know before any number.
        design: ``"pairs"`` if shifts were tested within pairs (sign flips), ``"sets"`` if between two sets (Mann-Whitney).
    """

    active: AttentionRecord
    control: AttentionRecord
    kl_chi_active: HeadDiagnostics
    kl_chi_control: HeadDiagnostics
    table: pd.DataFrame
    circuit: Circuit | None
    rankings: dict[str, Ranking]
    correlations: pd.Series
    coupling: Coupling
    notes: list[str] = field(default_factory=list)
    other_rankings: Mapping[float, dict[str, Ranking]] = field(default_factory=dict)
    design: Design = "sets"


def analyse(
    active: AttentionRecord,
    control: AttentionRecord,
    circuit: Circuit | MeasuredCircuit | None = None,
    *,
    design: Design | None = None,
) -> Experiment:
    """Compare two records of one model, head by head, at the query position they hold.

    Args:
        active, control: the records.
        circuit: the heads that are known to matter.
        design: ``"pairs"`` tests within pairs (prompt k of both sides), ``"sets"`` between two sets. Default: pairs if there
            are as many prompts on both sides and each is as long as its twin, read at the same token, and like it in two
            thirds of the tokens or more, but not in all.

    Raises:
        ValueError: if the records hold different positions, other models, or rows with a single visible key; if
            the circuit belongs to a model of another shape; or if pairs are wanted and can't be had.
    """
    measured = circuit if isinstance(circuit, MeasuredCircuit) else None
    circuit = circuit.circuit() if isinstance(circuit, MeasuredCircuit) else circuit
    _check(active, control, circuit)
    chosen = design_of(active.prompts, control.prompts, active.query, design)
    sides = diagnose(active), diagnose(control)
    table = pd.concat([_head_table(*sides, circuit, chosen), _further_columns(active, control)], axis=1)
    return Experiment(
        active=active,
        control=control,
        kl_chi_active=sides[0],
        kl_chi_control=sides[1],
        table=table,
        circuit=circuit,
        rankings=_rank_if_possible(table, table.in_circuit),
        correlations=correlations(table),
        coupling=couple_heads(sides[0].kl, sides[1].kl, resolution=head_resolution("kl", *sides)),
        notes=[
            *compare_notes(active.prompts, control.prompts),
            *_notes(active, control, chosen),
            *_rounding_notes(*sides),
            *_circuit_notes(active, control, measured),
        ],
        other_rankings=_rank_by_other_rules(table, measured) if measured else {},
        design=chosen,
    )


def asks_ioi(active: AttentionRecord, control: AttentionRecord) -> bool:
    """Whether the two sets are the post's: IOI prompts against ABC prompts."""
    sides = [{p.prompt.template for p in record.prompts} for record in (active, control)]
    return sides[0] <= {"ABBA", "BABA"} and sides[1] == {"ABC"}


def rank_shifts(table: pd.DataFrame) -> dict[str, Ranking]:
    """How each of `RANKED_SHIFTS` ranks the heads that the table marks as in the circuit."""
    return {
        name: rank_heads(table[column].abs(), table.in_circuit, table.layer) for name, column in RANKED_SHIFTS.items()
    }


def _rank_if_possible(table: pd.DataFrame, in_circuit: ArrayLike) -> dict[str, Ranking]:
    """`rank_shifts`, or nothing where a side has fewer than two heads."""
    inside = np.count_nonzero(in_circuit)
    return rank_shifts(table.assign(in_circuit=in_circuit)) if 2 <= inside <= len(table) - 2 else {}


def _rank_by_other_rules(table: pd.DataFrame, measured: MeasuredCircuit) -> dict[float, dict[str, Ranking]]:
    return {t: _rank_if_possible(table, is_causal(measured.table, t)) for t in OTHER_THRESHOLDS}


def _notes(active: AttentionRecord, control: AttentionRecord, design: Design) -> list[str]:
    """What these prompts can't show, whatever the heads do."""
    ids = [[p.ids for p in record.prompts] for record in (active, control)]
    said = []
    if sorted(ids[0]) == sorted(ids[1]):
        said.append("Both sets hold the same prompts: nothing can shift between them.")
    for name, side in zip(("active", "control"), ids, strict=True):
        if len(set(side)) == 1:
            said.append(f"The {name} prompts are all alike: intervals and tests over prompts say nothing about others.")
    few = power_note(design, len(ids[0]), len(ids[1]), active.n_layers * active.n_heads)
    return [*said, few] if few else said


def _rounding_notes(*sides: HeadDiagnostics) -> list[str]:
    """How coarse KL and chi are, where that can be seen in what is printed."""
    kl, chi = (head_resolution(name, *sides).max() for name in ("kl", "chi"))
    if max(kl, chi) < 5e-4:
        return []
    return [
        f"At this precision rounding moves KL by up to {kl:.2g} and chi by up to {chi:.2g}: such shifts count as 0."
    ]


def _circuit_notes(active: AttentionRecord, control: AttentionRecord, measured: MeasuredCircuit | None) -> list[str]:
    """Where a measured circuit is from, if that is not where these records are from."""
    if measured is None:
        return []
    model, task, said = measured.about["model"], measured.about["task"], []
    if model != active.model:
        said.append(f"The circuit was measured on the model {model!r}, the prompts were run on {active.model!r}.")
    if not asks_ioi(active, control):
        said.append(
            f"The circuit was measured on the task {task!r}: whether these prompts ask the same can't be seen here."
        )
    elif task != "ioi":
        said.append(f"The circuit was measured on the task {task!r}, and these are IOI prompts.")
    if measured.about["screened_above"] is not None:
        said.append("The circuit was screened by attribution patching: heads that it misjudges count as others.")
    return said


def _head_table(
    active: HeadDiagnostics, control: HeadDiagnostics, circuit: Circuit | None, design: Design
) -> pd.DataFrame:
    check_sides(active.kl, control.kl)
    parts = []
    for name in ("kl", "chi"):
        sides, resolution = (getattr(active, name), getattr(control, name)), head_resolution(name, active, control)
        shifts, tests = shifts_and_tests(*sides, design, resolution=resolution)
        parts.append(
            pd.DataFrame(
                {
                    f"{name}_active": shifts.active,
                    f"{name}_control": shifts.control,
                    f"d_{name}": shifts["shift"],
                    f"d_{name}_low": shifts.low,
                    f"d_{name}_high": shifts.high,
                    f"d_{name}_p": tests.p,
                    f"d_{name}_q": tests.q,
                }
            )
        )
    heads = shifts[["layer", "head"]]
    role = [circuit.role(*head) if circuit else "unknown" for head in heads_of(heads)]
    in_circuit = circuit.mask(*active.kl.shape[1:]).ravel() if circuit else False
    return pd.concat([heads.assign(role=role, in_circuit=in_circuit), *parts], axis=1)


def shape_columns() -> dict[str, str]:
    """Name of each further number -> its column in the table, e.g. ``"max weight"`` -> ``"d_max_weight"``."""
    shifts = {name: f"d_{_slug(name)}" for name in SHAPES if name not in ("KL", "chi")}
    return shifts | {name: _slug(name) for name in DISTANCES}


def _further_columns(active: AttentionRecord, control: AttentionRecord) -> pd.DataFrame:
    columns = shape_columns()
    shifts = {columns[name]: shape_shift(name, active, control).ravel() for name in SHAPES if name in columns}
    # rows of a pair are over the same keys if both prompts are as long and the query stands at the same token
    keys = [[(len(p), p.position(record.query)) for p in record.prompts] for record in (active, control)]
    matched = keys[0] == keys[1]
    n_heads = active.n_layers * active.n_heads
    distances = {
        columns[name]: distance(active.rows, control.rows).mean(0).ravel() if matched else np.full(n_heads, np.nan)
        for name, distance in DISTANCES.items()
    }
    return pd.DataFrame(shifts | distances)


def _slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "_").replace("-", "_")


def _check(active: AttentionRecord, control: AttentionRecord, circuit: Circuit | None) -> None:
    if active.query == "all" or control.query == "all":
        raise ValueError(
            "active, control: expected the rows of one query position; choose one with record.at(position)"
        )
    for what in ("model", "query"):
        left, right = getattr(active, what), getattr(control, what)
        if left != right:
            raise ValueError(f"control: expected the same {what} as the active record, {left!r}, got {right!r}")
    check_same_run("active, control", active, control)
    if circuit:
        circuit.check_shape(active.n_layers, active.n_heads)
    if bool((active.visible().sum(-1) < 2).any() or (control.visible().sum(-1) < 2).any()):
        raise ValueError("active, control: a row with one visible key has no normalised KL; ask for a later position")
