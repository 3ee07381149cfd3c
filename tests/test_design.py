"""Pairs or sets: the rule that tells them, the test each gets, and what that test could find at best."""

from __future__ import annotations

import importlib
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from models import HEADS, KEYS, LAYERS, random_rows, toy_prompt, toy_side

from helpers import AttentionRecord, analyse, save_results
from helpers.__main__ import main
from helpers.design import design_in_words, design_of, power_note, smallest_q
from helpers.diagnostics.heads import head_resolution
from helpers.prompts.pairing import are_pairs, are_twins
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import TokenizedPrompt
from helpers.statistics import head_shifts, head_tests, paired_tests
from helpers.statistics.pairs import smallest_paired_p


def twin(prompt: TokenizedPrompt, changed: int) -> TokenizedPrompt:
    """The same prompt with other tokens at its last places."""
    keep = len(prompt) - changed
    ids = (*prompt.ids[:keep], *(i + 1000 for i in prompt.ids[keep:]))
    return replace(prompt, ids=ids, prompt=Prompt(f"{prompt.prompt.text} twin"))


def paired_side(active: AttentionRecord, *, changed: int = 1, seed: int = 9, shift: float = 0.0) -> AttentionRecord:
    """A control record whose prompts are twins of the active ones; ``shift`` moves one head in every pair."""
    noise = random_rows(len(active.prompts), LAYERS, HEADS, KEYS, seed=seed, spread=0.05)
    rows = (active.rows.log() + noise).softmax(-1)
    rows[:, 1, 2] = (active.rows[:, 1, 2].log() * (1 + shift)).softmax(-1)
    return replace(active, prompts=[twin(p, changed) for p in active.prompts], rows=rows)


@pytest.mark.parametrize(("length", "changed", "said"), [(15, 0, False), (15, 1, True), (15, 5, True), (15, 6, False)])
def test_twins(length: int, changed: int, said: bool) -> None:
    """At least one token and at most a third of them differ."""
    one = toy_prompt(length)
    assert are_twins(one, twin(one, changed)) is said


def test_what_breaks_pairs() -> None:
    """One prompt more, one of another length, one twin that is the same prompt, a query at another token: these are sets."""
    active = [toy_prompt(15, number, S2=9) for number in range(6)]
    control = [twin(p, 1) for p in active]
    assert are_pairs(active, control, "S2")
    assert not are_pairs(active, control[:5])
    assert not are_pairs(active, [*control[:5], toy_prompt(14, 5)])
    assert not are_pairs(active, [*control[:5], active[5]])
    elsewhere = replace(control[5], positions={**control[5].positions, "S2": 8})
    assert not are_pairs(active, [*control[:5], elsewhere], "S2")
    assert are_pairs(active, [*control[:5], elsewhere], "END")


def test_pairs_get_the_paired_test_and_sets_the_rank_test() -> None:
    """The table's shift, interval, p and q are those of the design's own functions, to the last digit."""
    active = toy_side(seed=1)
    control = paired_side(active)
    for asked, design in ((None, "pairs"), ("pairs", "pairs"), ("sets", "sets")):
        experiment = analyse(active, control, design=asked)
        assert experiment.design == design
        sides = experiment.kl_chi_active, experiment.kl_chi_control
        for name in ("kl", "chi"):
            values = [getattr(side, name) for side in sides]
            options = {"resolution": head_resolution(name, *sides)}
            paired = paired_tests(*values, **options)
            expected = paired if design == "pairs" else head_shifts(*values, **options)
            tests = paired if design == "pairs" else head_tests(*values, **options)
            for column, found in {"": expected["shift"], "_low": expected.low, "_q": tests.q}.items():
                pd.testing.assert_series_equal(experiment.table[f"d_{name}{column}"], found, check_names=False)


def test_a_shift_within_pairs_is_found_that_sets_hide() -> None:
    """A head that moves a little in every pair, less than prompts differ among themselves: pairs see it, sets don't."""
    active = toy_side(seed=1)
    control = paired_side(active, shift=0.05)
    at = 1 * HEADS + 2
    assert analyse(active, control).table.d_kl_q[at] < 0.05
    assert analyse(active, control, design="sets").table.d_kl_q[at] > 0.05


@pytest.mark.parametrize("n", [2, 5, 12, 40])
def test_smallest_p_of_pairs_is_that_of_a_perfect_shift(n: int) -> None:
    """What `paired_tests` gives a head that moves alike in every pair, near 2^(1 - n) and never below 1 / 10,001."""
    moved = np.ones((n, 1, 1)) + np.linspace(0, 0.01, n)[:, None, None]
    found = paired_tests(moved, np.zeros((n, 1, 1)), n_resamples=9).p.item()
    assert smallest_paired_p(n) == found
    assert found == pytest.approx(max(2.0 ** (1 - n), 1e-4), abs=0.02 if n < 10 else 5e-4)


def test_words() -> None:
    """The name of the test, the number of pairs or prompts, and the q that can be reached; too few are told."""
    assert design_in_words("pairs", 12, 12, 48).startswith(
        "paired sign-flip test over 12 pairs; smallest q of a head that shifts alone: 0.02"
    )
    assert "over two sets of 5 and 4 prompts" in design_in_words("sets", 5, 4, 48)
    assert power_note("pairs", 12, 12, 48) == ""
    assert "q < 0.05 over 48 heads can't be reached" in power_note("pairs", 4, 4, 48)
    q = smallest_q("pairs", 8, 8, 48)
    assert q == pytest.approx(48 * smallest_paired_p(8))
    needed = int(power_note("pairs", 8, 8, 48).split("needs ")[1].split()[0])
    assert smallest_q("pairs", 8, 8, 48, needed) < 0.05 <= smallest_q("pairs", 8, 8, 48, needed - 1)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [("twins", "design: expected 'pairs' or 'sets', got 'twins'"), ("pairs", "as many active as control prompts")],
)
def test_designs_that_are_refused(wanted: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        design_of([toy_prompt(15)] * 3, [toy_prompt(15)] * 2, wanted=wanted)


def test_the_command_says_which_test_ran(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``run --record`` takes pairs for pairs, and ``--design sets`` for sets; the report names the test."""
    monkeypatch.setattr(importlib.import_module("helpers.results"), "all_figures", lambda experiment: {})
    active = toy_side(seed=1)
    save_results(analyse(active, paired_side(active)), tmp_path / "first")
    for options, said in (
        ([], "test     paired sign-flip test over 20 pairs; smallest q of a head that shifts alone: 0.0024"),
        (["--design", "sets"], "test     rank test (Mann-Whitney) over two sets of 20 and 20 prompts"),
    ):
        assert main(["run", "--record", str(tmp_path / "first"), "--out", str(tmp_path / "out"), *options]) == 0
        assert said in capsys.readouterr().out


def test_make_hands_the_design_on() -> None:
    """``make run DESIGN=sets`` as the command line has it; told what it would do, make does nothing."""
    root = Path(__file__).parents[1]
    for given, options in ((["DESIGN=sets"], '--design "sets"'), ([], "")):
        done = subprocess.run(["make", "-n", "run", *given], cwd=root, capture_output=True, text=True, check=True)
        (said,) = (line for line in done.stdout.splitlines() if "helpers run" in line)
        assert said.split("helpers run")[1].strip() == options
