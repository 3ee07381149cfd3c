"""What is done where nothing else is asked for: the documented numbers of draws, levels and seeds, and no progress bar."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.diagnostics.discrimination import draws_needed, expected_draws, false_alarm, log_likelihood_ratios
from helpers.diagnostics.resolution import RESOLUTION, ROUNDING
from helpers.patching.heads import PatchingRun, head_effects
from helpers.statistics.coupling import couple_heads, strongest_pairs
from helpers.statistics.direct import (
    PENALTIES,
    average_precision_interval,
    edge_table,
    partial_correlations,
    rank_edges,
)
from helpers.statistics.effects import OTHER_THRESHOLDS, THRESHOLD, is_causal
from helpers.statistics.pairs import paired_tests, position_scan, power_curve, row_scan
from helpers.statistics.ranking import auroc_gain, rank_heads, within_layer_auroc
from helpers.statistics.screening import screen
from helpers.statistics.shifts import head_shifts
from helpers.statistics.shuffles import coupling_intervals, coupling_null

ROW = np.array([0.6, 0.3, 0.1])
RNG = np.random.default_rng(0)
SIDES = RNG.normal(size=(2, 9, 2, 3))
PLACES = RNG.normal(size=(2, 9, 1, 3, 2))
ROWS = RNG.dirichlet(np.ones(3), size=(2, 9, 1, 2, 2))
SCORE, LABELS, LAYER = RNG.normal(size=30), np.arange(30) % 3 == 0, np.repeat([0, 1, 2], 10)
RUN = PatchingRun(SIDES[0, :, 0, 0], SIDES[1, :, 0, 0] - 9, SIDES[0].T[:2], SIDES[1].T[:2])
EFFECTS = head_effects(RUN, n_resamples=50)
NAMES = ["a", "b"]
EDGES = edge_table({"c": RNG.normal(size=(12, 12))}, 3, 4).assign(causal=np.arange(48) % 3 == 0)

#: function -> a call of it without options, and its options with the values that they have then.
DEFAULTS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "log_likelihood_ratios": (partial(log_likelihood_ratios, ROW, 9, trials=50), {"seed": 0, "under_null": False}),
    "false_alarm": (partial(false_alarm, ROW, 9), {"miss": 0.1, "trials": 20_000, "seed": 0}),
    "draws_needed": (partial(draws_needed, ROW, 1e-60), {"miss": 0.1, "trials": 5000, "seed": 0}),
    "expected_draws": (partial(expected_draws, 0.2, 0.3, 0.01), {"miss": 0.1}),
    "head_shifts": (partial(head_shifts, *SIDES), {"level": 0.95, "n_resamples": 2000, "seed": 0}),
    "paired_tests": (
        partial(paired_tests, *SIDES),
        {"n_flips": 10_000, "level": 0.95, "n_resamples": 2000, "seed": 0},
    ),
    "position_scan": (partial(position_scan, *PLACES, NAMES), {"by": "t", "n_flips": 10_000, "seed": 0}),
    "row_scan": (partial(row_scan, *ROWS, NAMES), {"groups": None, "n_flips": 10_000, "seed": 0}),
    "power_curve": (partial(power_curve, *SIDES, [3]), {"draws": 200, "alpha": 0.05, "seed": 0}),
    "coupling_null": (
        lambda **options: vars(coupling_null(*SIDES, **options)),
        {"groups": None, "n_permutations": 10_000, "seed": 0, "progress": False},
    ),
    "coupling_intervals": (
        partial(coupling_intervals, *SIDES),
        {"top": 10, "n_resamples": 1000, "level": 0.95, "seed": 0},
    ),
    "strongest_pairs": (partial(strongest_pairs, couple_heads(*SIDES), 3), {"top": 10}),
    "partial_correlations": (partial(partial_correlations, RNG.normal(size=(12, 1, 3))), {"method": "graphical lasso"}),
    "rank_edges": (partial(rank_edges, EDGES, ["c"]), {"n_resamples": 400}),
    "average_precision_interval": (
        partial(average_precision_interval, SCORE, LABELS),
        {"level": 0.95, "n_resamples": 1000, "seed": 0},
    ),
    "rank_heads": (
        lambda **options: vars(rank_heads(SCORE, LABELS, LAYER, **options)),
        {"n_permutations": 20_000, "n_resamples": 2000, "level": 0.95, "seed": 0},
    ),
    "within_layer_auroc": (partial(within_layer_auroc, SCORE, LABELS, LAYER), {"n_permutations": 20_000}),
    "auroc_gain": (partial(auroc_gain, SCORE, LAYER, LABELS), {"level": 0.95, "n_resamples": 2000, "seed": 0}),
    "head_effects": (partial(head_effects, RUN), {"level": 0.95, "n_resamples": 2000, "seed": 0}),
    "is_causal": (partial(is_causal, EFFECTS), {"threshold": THRESHOLD}),
    "screen": (partial(screen, SCORE, LABELS, screening=1), {"per_head": 2.0}),
}


COUNTS = ("trials", "n_flips", "n_permutations", "n_resamples", "draws")


def alike(one: Any, two: Any) -> bool:
    """Equal in every number, NaN to NaN."""
    if isinstance(one, pd.DataFrame):
        return bool(one.equals(two))
    if isinstance(one, dict):
        return all(np.array_equal(one[key], two[key], equal_nan=True) for key in one)
    return bool(np.array_equal(one, two, equal_nan=True))


@pytest.mark.parametrize(("call", "options"), DEFAULTS.values(), ids=DEFAULTS)
def test_defaults(call: Callable[..., Any], options: dict[str, Any]) -> None:
    """Asked for by name, each default changes nothing."""
    assert alike(call(), call(**options))


@pytest.mark.parametrize(
    ("name", "options"), [(n, o) for n, (_, o) in DEFAULTS.items() if "seed" in o], ids=lambda x: x if isinstance(x, str) else ""
)  # fmt: skip
def test_a_seed_gives_its_own_numbers_again(name: str, options: dict[str, Any]) -> None:
    """Two calls with seed 5 agree, and differ from seed 0 (but for the number of draws needed, good to a few per cent)."""
    call, _ = DEFAULTS[name]
    few = {key: 300 for key in COUNTS if key in options and key != "draws"}
    again = [call(**few, seed=5) for _ in range(2)]
    assert alike(*again)
    assert name == "draws_needed" or not alike(again[0], call(**few, seed=0))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        (name, key)
        for name, (_, options) in DEFAULTS.items()
        for key in options
        if key in COUNTS and name != "draws_needed"
    ],
)
def test_a_number_of_draws_is_the_one_asked_for(name: str, count: str) -> None:
    """300 draws give other numbers than 301."""
    call, _ = DEFAULTS[name]
    assert not alike(call(**{count: 300}), call(**{count: 301}))


def test_constants() -> None:
    """The thresholds by which results are read, and the grid of penalties: even steps of the logarithm from 0.8 to 0.001."""
    assert (THRESHOLD, OTHER_THRESHOLDS) == (0.05, (0.02, 0.10))
    assert ROUNDING == {"float64": 2**-47, "float32": 2**-18, "float16": 2**-8, "bfloat16": 2**-5}
    assert ROUNDING["float32"] == RESOLUTION
    assert (len(PENALTIES), PENALTIES[0], PENALTIES[-1]) == (18, pytest.approx(0.8), pytest.approx(0.001))
    np.testing.assert_allclose(np.diff(np.log(PENALTIES)), -np.log(800) / 17)


def test_no_bar_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """The bar of the permutations says what it counts."""
    coupling_null(*SIDES, n_permutations=300)
    assert capsys.readouterr() == ("", "")
    coupling_null(*SIDES, n_permutations=300, progress=True)
    assert "permutations:" in capsys.readouterr().err
