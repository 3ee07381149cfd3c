"""Minimal pairs of IOI, head by head: what a row at END does between a prompt and its twin, in which S2 is another name."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from helpers.attention.record import AttentionRecord
from helpers.design import Q
from helpers.diagnostics.heads import head_resolution
from helpers.experiment import Experiment
from helpers.heads import Head, head_names, heads_of
from helpers.statistics.pairs import paired_tests

__all__ = ["CHANGES", "LOOKS", "MOVES", "change_counts", "example_heads", "looks_table", "row_changes"]

#: A row moves if on average at least this share of its attention is on other tokens than in the prompt's twin; and a head
#: looks at a token if it puts at least `LOOKS` there. Both are round numbers of ours: they only sort heads.
MOVES, LOOKS = 0.1, 0.4

#: What can happen to a head's row at END between a prompt and its twin, in the order of `row_changes`' tests.
SAME_PLACE = "looks at the giver either way"
STAYS = "row stays as it is"
SAME_SHAPE = "attention moves, shape stays"
BY_SINK = "shape shifts, mostly by BOS"
BY_REST = "shape shifts, mostly beyond BOS"
CHANGES = (SAME_PLACE, STAYS, SAME_SHAPE, BY_SINK, BY_REST)


def row_changes(pairs: Experiment) -> pd.DataFrame:
    """What each head's row at END does between an IOI prompt and its twin, in which S2 is another name.

    Args:
        pairs: an experiment on minimal pairs, whose rows are over the same keys.

    Returns:
        One row a head: layer, head, role, in_circuit; moved (mean total variation, share of attention); d_kl and its
        parts d_kl_sink_part, d_kl_rest_part (normalised; `split_sink`); q (sign-flip test of KL over pairs); giver (mean weight
        on S2, the smaller of both sides); change (one of `CHANGES`): a row that moves less than `MOVES` stays, and looks
        at the giver if that has at least `LOOKS`; one that moves shifts its shape if q < 0.05.

    Raises:
        ValueError: if the sides are not matched prompt by prompt.
    """
    table = pairs.table[["layer", "head", "role", "in_circuit", "d_kl", "d_kl_sink_part", "d_kl_rest_part"]].copy()
    if pairs.table.total_variation.isna().any():
        raise ValueError("pairs: expected sides matched prompt by prompt, got prompts of other lengths or numbers")
    table["moved"] = pairs.table.total_variation
    sides = pairs.kl_chi_active, pairs.kl_chi_control
    table["q"] = paired_tests(sides[0].kl, sides[1].kl, resolution=head_resolution("kl", *sides)).q
    giver = weight_at(pairs.active, "S2"), weight_at(pairs.control, "S2", pairs.active)
    table["giver"] = np.minimum(*giver).ravel()
    by_sink = table.d_kl_sink_part.abs() > table.d_kl_rest_part.abs()
    moves, shifts = table.moved >= MOVES, table.q < Q
    tests = [~moves & (table.giver >= LOOKS), ~moves, moves & ~shifts, by_sink]
    return table.assign(change=np.select(tests, CHANGES[:4], CHANGES[4]))


def weight_at(
    record: AttentionRecord, position: str, named_in: AttentionRecord | None = None
) -> Float[np.ndarray, "layer head"]:
    """Mean weight of the token at a named position; 0 where a prompt does not name it.

    Args:
        named_in: a record whose prompts say where the position is (default: the record's own).
    """
    prompts = (named_in or record).prompts
    if any(position not in p.positions for p in prompts):
        return np.zeros(tuple(record.rows.shape[1:3]))
    places, which = np.array([p.positions[position] for p in prompts]), np.arange(len(prompts))
    return np.asarray(record.rows.double().numpy()[which, :, :, places].mean(0))


def looks_table(pairs: Experiment, heads: pd.DataFrame) -> pd.DataFrame:
    """Mean weight that heads put on BOS and the names at END, on IOI prompts and (in brackets) on their twins, as strings.

    Args:
        heads: one row a head: layer, head.
    """
    shown = {}
    for position in ("BOS", "IO", "S1", "S2"):
        here, there = (weight_at(side, position, pairs.active) for side in (pairs.active, pairs.control))
        shown[position] = [f"{here[head]:.2f} ({there[head]:.2f})" for head in heads_of(heads)]
    return pd.DataFrame(shown, index=head_names(heads))


def change_counts(changes: pd.DataFrame) -> pd.DataFrame:
    """`row_changes` counted: a row a kind of change, columns for the circuit's heads and the others."""
    groups = {"circuit": changes.in_circuit, "others": ~changes.in_circuit}
    groups = groups if changes.in_circuit.any() else {"all heads": changes.in_circuit | True}
    return pd.DataFrame({g: changes[inside].change.value_counts() for g, inside in groups.items()}).reindex(CHANGES).fillna(0).astype(int)  # fmt: skip


def example_heads(pairs: Experiment) -> tuple[Head, Head]:
    """Two heads to look at: the one whose KL shifts most between twins, and one that keeps its shape and has a say all the same.

    The second is the circuit head (without a circuit: any head) whose shape does not shift and that has most attention on the
    giver, or moving from token to token.
    """
    changes = row_changes(pairs)
    first = changes.d_kl.abs().idxmax()
    rest = changes.drop(index=first)
    keeps = rest[~rest.change.isin([BY_SINK, BY_REST]) & (rest.in_circuit | ~changes.in_circuit.any())]
    some = keeps if len(keeps) else rest
    one, other = heads_of(changes.loc[[first, (some.moved + some.giver).idxmax()]])
    return one, other
