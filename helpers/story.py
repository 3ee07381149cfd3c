"""The experiment of notebook 03 on a model of choice: two experiments of one model, and what came out in words and tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from helpers.attention.capture import record_attention
from helpers.attention.record import AttentionRecord
from helpers.contents.roles import circuit_roles
from helpers.design import Q
from helpers.experiment import Experiment, analyse
from helpers.heads import pairs_of
from helpers.measured.shipped import shipped_record, shipped_roles
from helpers.models.load import load_model
from helpers.prompts.fit import fit_task
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.reference.circuits import Circuit
from helpers.reference.demo import circuit_of
from helpers.statistics.coupling import strongest_pairs
from helpers.statistics.shuffles import coupling_null

__all__ = [
    "Story",
    "aurocs",
    "counts_in_words",
    "coupling_in_words",
    "depth_in_words",
    "directions_in_words",
    "parking_in_words",
    "shift_counts",
    "story_of",
    "tell",
]

#: Shuffles of labels at a time: all at once, a model of 270 heads would take half a gigabyte.
BATCH = 10


@dataclass(frozen=True)
class Story:
    """What one model does with the post's two prompt sets, and with minimal pairs of the same task.

    Attributes:
        sets: IOI prompts against ABC prompts, all of one length (`one_length`).
        pairs: IOI prompts against their twins, in which a third name gives.
        everything: the two sets with prompts of every length, as the post drew them.
        source: where the attention rows are from.
    """

    sets: Experiment
    pairs: Experiment
    everything: Experiment
    source: str


def tell(model: str, *, live: bool = False, n: int = 50, n_pairs: int = 32) -> Story:
    """The story of a model: from its shipped attention rows if there are any, else from a run.

    Args:
        model: as `load_model`.
        live: run the model even if its rows ship.
        n, n_pairs: prompts a set, and minimal pairs, of a run.

    Raises:
        ModelUnavailable: if the model has to run and can't be had.
        ValueError: if its tokenizer allows no pairs of the task.
    """
    if not live:
        try:
            rows = {name: shipped_record(model, name).at("END") for name in ("ioi", "abc", "clean", "corrupt")}
            return story_of(*rows.values(), circuit=named_circuit(model), source="rows that ship with this repository")
        except FileNotFoundError:
            pass
    loaded = load_model(model)
    fitted = fit_task("ioi", loaded.tokenizer, n_pairs)
    sides = (ioi_prompts(n), abc_prompts(n), fitted.clean, fitted.corrupt)
    rows_now = [record_attention(loaded, side, readout=True, progress=False) for side in sides]
    return story_of(*rows_now, circuit=named_circuit(model), source="a run on this machine")


def story_of(
    ioi: AttentionRecord,
    abc: AttentionRecord,
    clean: AttentionRecord,
    corrupt: AttentionRecord,
    *,
    circuit: Circuit | None = None,
    source: str = "given records",
) -> Story:
    """The story that four records of END rows tell; errors as `analyse`."""
    everything = analyse(ioi, abc, circuit)
    kept = one_length(ioi, abc)
    sets = everything if len(kept[0].prompts) == len(ioi.prompts) else analyse(*kept, circuit)
    return Story(sets, analyse(clean, corrupt, circuit), everything, source)


def one_length(active: AttentionRecord, control: AttentionRecord) -> tuple[AttentionRecord, AttentionRecord]:
    """The prompts of the length that both sides have most of, so that all rows have one n; both as they are if none is shared.

    Where nothing has to be left out, the records come back unchanged.
    """
    counts = [Counter(len(p) for p in side.prompts) for side in (active, control)]
    shared = {n: min(count[n] for count in counts) for n in counts[0].keys() & counts[1].keys()}
    length = max(shared, key=lambda n: (shared[n], -n), default=0)
    if shared.get(length, 0) < 2 or all(len(count) == 1 for count in counts):
        return active, control
    kept = [side.subset([i for i, p in enumerate(side.prompts) if len(p) == length]) for side in (active, control)]
    return kept[0], kept[1]


def named_circuit(model: str) -> Circuit | None:
    """The IOI circuit of a model (`circuit_of`), by what its heads do where that was measured, else as it is."""
    circuit = circuit_of(model)
    try:
        return circuit and replace(circuit, roles=circuit_roles(shipped_roles(model), circuit))
    except FileNotFoundError:
        return circuit


def shift_counts(experiment: Experiment, column: str = "d_kl") -> pd.DataFrame:
    """How many heads shift (q < 0.05), in the circuit and outside: a table of 2 x 2 counts, or 2 x 1 without a circuit."""
    table = experiment.table
    shifts = table[f"{column}_q"] < Q
    groups = {"circuit": table.in_circuit, "others": ~table.in_circuit} if experiment.circuit else {"all heads": True}
    counts = {name: [int((shifts & inside).sum()), int((~shifts & inside).sum())] for name, inside in groups.items()}
    return pd.DataFrame(counts, index=["shift", "do not"])


def counts_in_words(experiment: Experiment) -> str:
    """`shift_counts` of KL as one sentence, read in both directions."""
    counts, model = shift_counts(experiment), experiment.active.model
    moved = counts.loc["shift"]
    if experiment.circuit is None:
        return f"{model}: {moved['all heads']} of {counts['all heads'].sum()} heads shift; no circuit is known."
    inside, outside = counts.circuit.sum(), counts.others.sum()
    return (
        f"{model}: {moved.circuit} of the {inside} circuit heads shift their KL, and {moved.others} of the {outside} others; so of "
        f"the {moved.sum()} heads that shift, {moved.circuit} matter for the answer."
    )


def directions_in_words(experiment: Experiment) -> str:
    """Which way circuit heads go in the plane, of those that shift KL: is it "KL up, chi down", as post 1 predicts?"""
    table, model = experiment.table, experiment.active.model
    some = table[table.in_circuit & (table.d_kl_q < Q)]
    if some.empty:
        return f"{model}: no circuit head shifts, so none goes anywhere."
    up, wider = some.d_kl > 0, some.d_chi > 0
    return (
        f"{model}: of the {len(some)} circuit heads that shift KL, {(up & wider).sum()} go up in KL and chi, {(up & ~wider).sum()} up in "
        f"KL and down in chi, {(~up & wider).sum()} down and up, {(~up & ~wider).sum()} down in both."
    )


def parking_in_words(experiment: Experiment) -> str:
    """How many heads are parked on BOS when there is nothing to do: largest weight on key 0 in most control prompts."""
    parked = (experiment.control.rows.argmax(-1) == 0).double().mean(0).numpy().ravel() > 0.5
    inside, model = experiment.table.in_circuit.to_numpy(), experiment.control.model
    groups = {"circuit heads": inside, "others": ~inside} if inside.any() else {"heads": ~inside}
    said = " and ".join(f"{parked[some].sum()} of the {some.sum()} {name}" for name, some in groups.items())
    return (
        f"{model}: {said} put their largest weight on BOS in most of the {len(experiment.control.prompts)} ABC prompts."
    )


def depth_in_words(experiment: Experiment) -> str:
    """Where in the model the circuit's heads sit and where heads shift, on average."""
    table, model = experiment.table, experiment.active.model
    last = int(table.layer.max())
    moved = table[table.d_kl_q < Q].layer
    shifting = f"the {len(moved)} heads that shift at layer {moved.mean():.1f}" if len(moved) else "no head shifts"
    if not table.in_circuit.any():
        return f"{model} (layers 0 to {last}), on average: {shifting}; no circuit is known."
    inside, others = (table[table.in_circuit == side].layer.mean() for side in (True, False))
    return (
        f"{model} (layers 0 to {last}), on average: circuit heads sit at layer {inside:.1f}, the others at {others:.1f}, "
        f"{shifting}."
    )


def aurocs(experiment: Experiment) -> pd.DataFrame:
    """AUROC of |dKL|, |dchi| and the layer index, in the form that `plot_scores` draws; no rows where nothing can be ranked.

    Returns:
        One row a score: auroc, low, high, within (layers), within_p, needs; the layer index has no interval.
    """
    rows = {
        f"{score} at END": (r.auroc, r.low, r.high, r.within_auroc, r.within_p, "two sets")
        for score, r in experiment.rankings.items()
    }
    for r in list(experiment.rankings.values())[:1]:
        rows["layer index"] = (r.layer_auroc, np.nan, np.nan, np.nan, np.nan, "nothing")
    columns = ["auroc", "low", "high", "within", "within_p", "needs"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def coupling_in_words(experiment: Experiment, *, n_permutations: int = 400, top: int = 10) -> str:
    """The largest change of a correlation between two heads, beside shuffled labels; and whom the strongest pairs concern."""
    kl = experiment.kl_chi_active.kl, experiment.kl_chi_control.kl
    batches = [min(BATCH, n_permutations - start) for start in range(0, n_permutations, BATCH)]
    nulls = [coupling_null(*kl, n_permutations=batch, seed=seed) for seed, batch in enumerate(batches)]
    reached = sum(int((null.largest >= null.observed).sum()) for null in nulls)
    pairs = pairs_of(strongest_pairs(experiment.coupling, experiment.active.n_heads, top=top))
    known = set(experiment.circuit.heads) if experiment.circuit else set()
    head, count = Counter(head for pair in pairs for head in pair).most_common(1)[0]
    said = (
        f"{sum(bool(known & {*pair}) for pair in pairs)} have a circuit head on one side"
        if known
        else "no circuit is known"
    )
    return (
        f"{experiment.active.model}: the largest |C_diff| is {nulls[0].observed:.2f}, with shuffled labels it is as large in "
        f"{reached} of {n_permutations}. Of the {len(pairs)} strongest pairs {said}; head {head} "
        f"is in {count}."
    )
