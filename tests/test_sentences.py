"""Every refusal of the pure functions, word for word: one sentence with the argument, the rule and the value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from models import causal_rows, toy_record, toy_side

from helpers.diagnostics.discrimination import draws_needed, false_alarm
from helpers.diagnostics.distances import total_variation
from helpers.diagnostics.heads import diagnose_sink
from helpers.diagnostics.plane import archetypes, largest_chi, one_favourite, split_sink, upper_curve
from helpers.diagnostics.rows import kl_selectivity, susceptibility
from helpers.diagnostics.shapes import SHAPES, shape_shift
from helpers.diagnostics.tempering import beta_for_budget, tempered
from helpers.statistics.coupling import cross_correlation
from helpers.statistics.direct import average_precision_interval, partial_correlations
from helpers.statistics.effects import shares_of_gap
from helpers.statistics.pairs import differences, paired_tests, position_scan, power_curve, row_scan
from helpers.statistics.ranking import rank_heads
from helpers.statistics.screening import passes_to_recall, screen
from helpers.statistics.shifts import check_sides, head_shifts, head_tests
from helpers.statistics.shuffles import coupling_intervals, coupling_null

ROW = [0.5, 0.25, 0.25]
PAIRS = np.random.default_rng(0).normal(size=(12, 2, 3))
SIX = np.arange(6.0)
LABELS = SIX < 3
NAN = np.where(PAIRS > 1.5, np.nan, PAIRS)
TWO_KEYS = torch.tensor([[0.5, 0.5]])


def ranked(score: Any = SIX, labels: Any = LABELS, layer: Any = SIX) -> Any:
    return rank_heads(score, labels, layer, n_permutations=1, n_resamples=1)


REFUSALS: dict[str, tuple[Callable[[], Any], str]] = {
    # rows
    "integers": (lambda: kl_selectivity([1, 0]), "pi: expected floating-point attention rows, got torch.int64"),
    "shape": (lambda: kl_selectivity([]), "pi: expected shape (*batch, key) with at least one key, got (0,)"),
    "no such float": (
        lambda: kl_selectivity(torch.tensor(ROW).to(torch.float8_e5m2)),
        "pi: expected float64, float32, float16, bfloat16, got torch.float8_e5m2",
    ),
    "infinite": (lambda: kl_selectivity([0.5, np.inf]), "pi: expected finite weights, got inf"),
    "negative": (lambda: kl_selectivity([1.25, -0.25]), "pi: expected weights >= 0, got -0.25"),
    "not visible": (lambda: kl_selectivity(ROW, n=2), "pi: expected weight 0 on keys that are not visible, got 0.25"),
    "sum": (
        lambda: kl_selectivity([0.5, 0.25]),
        "pi: expected rows that sum to 1 over the last axis (within 0.0001), got a sum of 0.75; if another axis holds "
        "the keys, move it to the end",
    ),
    "both": (lambda: kl_selectivity(ROW, n=3, mask=[True] * 3), "n, mask: expected one of them, got both"),
    "float mask": (
        lambda: kl_selectivity(ROW, mask=[1.0, 1.0, 1.0]),
        "mask: expected True where a key is visible, got torch.float32",
    ),
    "float n": (lambda: kl_selectivity(ROW, n=3.0), "n: expected whole numbers of visible keys, got torch.float32"),
    "n of 0": (lambda: kl_selectivity(ROW, n=0), "n: expected 1 to 3 visible keys a row, got 0"),
    "empty mask": (
        lambda: kl_selectivity(ROW, mask=[False] * 3),
        "mask: expected 1 to 3 visible keys a row, got 0",
    ),
    "n of other rows": (
        lambda: kl_selectivity([ROW], n=[3, 3]),
        "n: expected a shape that broadcasts to (1,), got (2,)",
    ),
    "mask of other keys": (
        lambda: kl_selectivity([ROW], mask=[True, True]),
        "mask: expected a shape that broadcasts to (1, 3), got (2,)",
    ),
    "log of 1, KL": (
        lambda: kl_selectivity([1.0]),
        "n: normalised KL divides by log n, which is 0 for a row with one visible key; pass normalized=False (the value "
        "is then 0), or leave such rows out",
    ),
    "log of 1, chi": (
        lambda: susceptibility([1.0]),
        "n: normalised chi divides by log n, which is 0 for a row with one visible key; pass normalized=False (the value "
        "is then 0), or leave such rows out",
    ),
    "unmatched rows": (
        lambda: total_variation(torch.tensor(ROW), torch.tensor([0.5, 0.5])),
        "q: expected the shape of p, (3,), got (2,)",
    ),
    # records
    "sink of all queries": (
        lambda: diagnose_sink(toy_record(causal_rows([4, 3]), query="all", lengths=[4, 3])),
        "record: expected the rows of one query position; choose one with record.at(position)",
    ),
    "no such number": (
        lambda: shape_shift("rho", toy_side(seed=1), toy_side(seed=2)),
        f"name: expected one of {', '.join(SHAPES)}, got 'rho'",
    ),
    # plane
    "one key": (lambda: one_favourite(1.0, 1), "n: expected at least 2 visible keys, got 1"),
    "weight": (
        lambda: one_favourite([0.5, 1.5], 4),
        "p: expected the favourite's weight in [1/n, 1] = [0.25, 1], got 1.5",
    ),
    "curve of one key": (lambda: upper_curve(1), "n: expected at least 2 visible keys, got 1"),
    "KL": (lambda: largest_chi(1.5, 15), "kl: expected a normalised KL in [0, 1], got 1.5"),
    "KL of one key": (lambda: largest_chi(0.5, 1), "n: expected at least 2 visible keys, got 1"),
    "three keys": (lambda: archetypes(3), "n: expected at least 4 visible keys, got 3"),
    "sink alone": (lambda: split_sink([1.0]), "pi: splitting off a sink needs at least 2 keys, got 1"),
    "sink elsewhere": (lambda: split_sink(ROW, sink=3), "sink: expected the index of one of 3 keys, got 3"),
    "sink before the first": (lambda: split_sink(ROW, sink=-4), "sink: expected the index of one of 3 keys, got -4"),
    # budget and draws
    "beta": (
        lambda: tempered(ROW, -1.0),
        "beta: expected an inverse temperature, finite and >= 0, got -1.0",
    ),
    "rho": (
        lambda: beta_for_budget([0.0, 1.0, 2.0], 5.0),
        "rho: expected a budget in [0, 1.099) nats for these scores, got 5.0",
    ),
    "scores": (lambda: tempered([[0.0]], 1.0), "z: expected scores of shape (n,), got shape (1, 1)"),
    "infinite scores": (lambda: tempered([0.0, -np.inf], 1.0), "z: expected finite scores, got -inf"),
    "null": (
        lambda: tempered([0.0, 1.0], 1.0, null=[0.5, 0.75]),
        "null: expected a distribution over 2 keys, got [0.5  0.75]",
    ),
    "delta": (lambda: draws_needed(ROW, 1.0), "delta: expected a probability in (0, 1), got 1.0"),
    "uniform": (
        lambda: draws_needed([0.5, 0.5], 0.1),
        "pi: expected a row that differs from uniform, got the uniform row",
    ),
    "row": (
        lambda: false_alarm([0.5, 0.75], 10),
        "pi: expected one row of weights >= 0 that sum to 1, got [0.5  0.75]",
    ),
    "a matrix of rows": (
        lambda: false_alarm([[0.5, 0.5]], 10),
        "pi: expected one row of weights >= 0 that sum to 1, got [[0.5 0.5]]",
    ),
    "a negative weight": (
        lambda: false_alarm([1.5, -0.5], 10),
        "pi: expected one row of weights >= 0 that sum to 1, got [ 1.5 -0.5]",
    ),
    "no chance": (lambda: draws_needed(ROW, 0.0), "delta: expected a probability in (0, 1), got 0.0"),
    # sides
    "one prompt": (
        lambda: check_sides(PAIRS[:1], PAIRS),
        "active: expected at least 2 prompts, shape (prompt, layer, head), got shape (1, 2, 3)",
    ),
    "flat": (
        lambda: head_shifts(PAIRS, PAIRS[:, 0]),
        "control: expected at least 2 prompts, shape (prompt, layer, head), got shape (12, 3)",
    ),
    "not finite": (
        lambda: head_tests(PAIRS, NAN),
        f"control: expected finite values, got {np.isnan(NAN).sum()} others",
    ),
    "other heads": (
        lambda: check_sides(PAIRS, PAIRS[:, :1]),
        "control: expected the heads of active, (2, 3), got (1, 3)",
    ),
    "other prompts": (
        lambda: cross_correlation(PAIRS, PAIRS[:11]),
        "second: expected the 12 prompts of first, got 11",
    ),
    # coupling
    "heads that vary": (
        lambda: coupling_null(PAIRS[:, :1, :1], PAIRS[:, :1, :1]),
        "active, control: expected at least 2 heads that vary in both sets, got 1",
    ),
    "intervals of heads that vary": (
        lambda: coupling_intervals(PAIRS * 0, PAIRS),
        "active, control: expected at least 2 heads that vary in both sets, got 0",
    ),
    "groups": (
        lambda: coupling_null(PAIRS, PAIRS, groups=(["a"] * 12, ["a"])),
        "groups: expected one a prompt, 12 and 12, got 12 and 1",
    ),
    "few prompts": (
        lambda: partial_correlations(PAIRS[:9]),
        "values: expected at least 10 prompts, shape (prompt, layer, head), got shape (9, 2, 3)",
    ),
    "method": (
        lambda: partial_correlations(PAIRS, method="inverse"),  # type: ignore[arg-type]
        "method: expected one of graphical lasso, ledoit-wolf, got 'inverse'",
    ),
    "one head varies": (
        lambda: partial_correlations(PAIRS[:, :1, :1]),
        "values: expected at least 2 heads that vary, got 1",
    ),
    "all true": (
        lambda: average_precision_interval(np.arange(3.0), np.ones(3, dtype=bool)),
        "truth: expected one value a score, some true and some not, got 3 true of 3 for 3 scores",
    ),
    # pairs
    "no pairs": (
        lambda: paired_tests(PAIRS, PAIRS[:11]),
        "active, control: expected at least 2 pairs, got shapes (12, 2, 3) and (11, 2, 3)",
    ),
    "one pair": (
        lambda: differences(PAIRS[:1], PAIRS[:1]),
        "active, control: expected at least 2 pairs, got shapes (1, 2, 3) and (1, 2, 3)",
    ),
    "pairs not finite": (
        lambda: differences(PAIRS, NAN),
        f"active, control: expected finite values, got {np.isnan(NAN).sum()} others",
    ),
    "by": (
        lambda: position_scan(PAIRS[..., None], PAIRS[..., None], ["x"], by="mean"),  # type: ignore[arg-type]
        "by: expected 't' or 'shift', got 'mean'",
    ),
    "positions": (
        lambda: position_scan(PAIRS[..., None], PAIRS[..., None], ["x", "y"]),
        "positions: expected a name for each of 1 positions, got 2",
    ),
    "rows of other positions": (
        lambda: row_scan(PAIRS[..., None, None], PAIRS[..., None, None], ["x", "y"]),
        "active: expected shape (pair, layer, head, 2 positions, key), got (12, 2, 3, 1, 1)",
    ),
    "rows without keys": (
        lambda: row_scan(PAIRS[..., None], PAIRS[..., None], ["x"]),
        "active: expected shape (pair, layer, head, 1 positions, key), got (12, 2, 3, 1)",
    ),
    "labels": (
        lambda: row_scan(PAIRS[..., None, None], PAIRS[..., None, None], ["x"], groups=["a"]),
        "groups: expected a label for each of 12 pairs, got 1",
    ),
    "small sizes": (
        lambda: power_curve(PAIRS, PAIRS, [2, 4]),
        "sizes: expected 3 to 6 (half of the pool of 12 pairs), got [2, 4]",
    ),
    "large sizes": (
        lambda: power_curve(PAIRS, PAIRS, [3, 7]),
        "sizes: expected 3 to 6 (half of the pool of 12 pairs), got [3, 7]",
    ),
    "no gap": (
        lambda: shares_of_gap(np.ones((1, 2)), np.array([1.0, -1.0]), level=0.95, n_resamples=9, seed=0),
        "run: expected clean and corrupt runs of different mean logit difference, got a mean gap of 0",
    ),
    # ranking
    "lengths": (
        lambda: ranked(np.arange(5.0)),
        "score, in_circuit, layer: expected one value a head each, got shapes (5,), (6,), (6,)",
    ),
    "scores not finite": (
        lambda: ranked(np.where(SIX < 2, np.nan, 1.0)),
        "score: expected finite values, got 2 others",
    ),
    "one in the circuit": (
        lambda: ranked(labels=np.arange(6) < 1),
        "in_circuit: expected at least 2 heads on each side, got 1 of 6",
    ),
    "one outside": (
        lambda: ranked(labels=np.arange(6) < 5),
        "in_circuit: expected at least 2 heads on each side, got 5 of 6",
    ),
    "nothing causal": (
        lambda: screen([1, 2, 3], [False] * 3, screening=1),
        "causal: expected one value a head, at least one of them true, got 0 true of 3 for 3 scores",
    ),
    "screened scores": (
        lambda: screen([1, np.nan, np.inf], [True, False, False], screening=1),
        "score: expected finite values, got 2 others",
    ),
    "recall": (
        lambda: passes_to_recall(screen([1.0], [True], screening=0), 1.1),
        "recall: expected a share in [0, 1], got 1.1",
    ),
}


@pytest.mark.parametrize(("call", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_refuses_in_these_words(call: Callable[[], Any], sentence: str) -> None:
    """The message is the whole sentence."""
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        call()


# What lies just inside a bound is accepted

ACCEPTED: dict[str, Callable[[], Any]] = {
    "beta of 0": lambda: tempered(ROW, 0.0),
    "two keys": lambda: (one_favourite(0.5, 2), upper_curve(2), largest_chi(0.5, 2), split_sink([0.5, 0.5])),
    "four keys": lambda: archetypes(4),
    "ends of KL": lambda: (largest_chi(0.0, 15), largest_chi(1.0, 15)),
    "last and first sink": lambda: (split_sink(ROW, sink=2), split_sink(ROW, sink=-3)),
    "n of 1 and all": lambda: (kl_selectivity([1.0, 0.0], n=1, normalized=False), kl_selectivity(ROW, n=3)),
    "two prompts": lambda: check_sides(PAIRS[:2], PAIRS[:2]),
    "two pairs": lambda: differences(PAIRS[:2], PAIRS[:2]),
    "ten prompts": lambda: partial_correlations(PAIRS[:10], method="ledoit-wolf"),
    "two heads that vary": lambda: (
        coupling_null(PAIRS[:, :1, :2], PAIRS[:, :1, :2], n_permutations=2),
        partial_correlations(PAIRS[:, :1, :2], method="ledoit-wolf"),
    ),
    "sizes from 3 to half": lambda: power_curve(PAIRS, PAIRS[::-1], [3, 6], draws=1),
    "two heads on a side": lambda: (ranked(labels=np.arange(6) < 2), ranked(labels=np.arange(6) < 4)),
    "recall of 0 and 1": lambda: [passes_to_recall(screen([1.0], [True], screening=0), share) for share in (0, 1)],
}


@pytest.mark.parametrize("call", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts_the_last_that_is_allowed(call: Callable[[], Any]) -> None:
    """A value at the edge of what a refusal allows gives a result."""
    call()
