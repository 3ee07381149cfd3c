"""Measured circuits: saved and read again, judged by other thresholds, and those that ship."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from models import CIRCUIT, HEADS, LAYERS, toy_record, toy_side

from helpers import analyse, circuit_of
from helpers.circuit_wording import circuit_report
from helpers.experiment import asks_ioi
from helpers.heads import head_index
from helpers.measured.shipped import measured_tasks
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.prompts.tokens import tokenize
from helpers.reference.measured import ABOUT, FORMAT, TABLE, MeasuredCircuit, measured_circuit
from helpers.statistics.effects import DIRECTIONS, OTHER_THRESHOLDS, THRESHOLD, is_causal
from helpers.wording import report, thresholds_table

SHIPPED = measured_tasks()


def made_up(seed: int = 0, shape: tuple[int, int] = (LAYERS, HEADS), **about: Any) -> MeasuredCircuit:
    """A circuit of the toy model: heads of `CIRCUIT` have effects of 6 to 30 %, all others below 5 %."""
    rng = np.random.default_rng(seed)
    table = head_index(*shape)
    inside = [head in CIRCUIT.heads for head in zip(table.layer, table["head"], strict=True)]
    for way in DIRECTIONS:
        effect = np.where(inside, rng.uniform(0.06, 0.3, len(table)), rng.uniform(-0.04, 0.04, len(table)))
        table[way], table[f"{way}_low"], table[f"{way}_high"] = effect, effect - 0.01, effect + 0.01
    table["causal"] = is_causal(table)
    table["acts_at"] = np.where(table.causal, np.where(table.layer > 1, "END", "in between"), "")
    said = {
        "format": FORMAT, "model": "toy", "weights": "0" * 16, "task": "ioi", "pairs": 40, "tokens": 15, "top_1": 0.9,
        "settings": {"dtype": "float32"}, "accuracy": 0.95, "clean": 4.0, "corrupt": 0.5, "gap": 3.5,
        "readout": "logit difference", "screened_above": None, "heads_patched": len(table), "left_out": [],
    }  # fmt: skip
    return MeasuredCircuit(table, said | about)


# Files


def test_read_as_it_was_saved(tmp_path: Path) -> None:
    """From the folder or one of its files: the same table, bit by bit, NaN of heads that were not patched included."""
    measured = made_up()
    effects = [column for column in measured.table if column.startswith(DIRECTIONS)]
    measured.table.loc[[0, 5], effects] = np.nan
    measured.save(tmp_path)
    for path in (tmp_path, tmp_path / TABLE, str(tmp_path / ABOUT)):
        again = MeasuredCircuit.load(path)
        pd.testing.assert_frame_equal(again.table, measured.table, check_exact=True, check_dtype=False)
        assert again.about == measured.about
        assert again.circuit() == measured.circuit()


def _other_format(folder: Path) -> None:
    (folder / ABOUT).write_text(json.dumps({"format": "theirs"}))


def _no_task(folder: Path) -> None:
    about = json.loads((folder / ABOUT).read_text())
    del about["task"]
    (folder / ABOUT).write_text(json.dumps(about))


def _a_head_is_missing(folder: Path) -> None:
    lines = (folder / TABLE).read_text().splitlines()
    (folder / TABLE).write_text("\n".join([*lines[:3], *lines[4:]]))


def _a_column_is_missing(folder: Path) -> None:
    pd.read_csv(folder / TABLE).drop(columns="noising_low").to_csv(folder / TABLE, index=False)


SPOILT: dict[str, Callable[[Path], Any]] = {
    "nothing": lambda folder: [path.unlink() for path in folder.iterdir()],
    "no table": lambda folder: (folder / TABLE).unlink(),
    "empty table": lambda folder: (folder / TABLE).write_text(""),
    "binary table": lambda folder: (folder / TABLE).write_bytes(b"\xff\xfe\x00\x01"),
    "broken json": lambda folder: (folder / ABOUT).write_text("{"),
    "list": lambda folder: (folder / ABOUT).write_text("[]"),
    "other format": _other_format,
    "no task": _no_task,
    "a head is missing": _a_head_is_missing,
    "a column is missing": _a_column_is_missing,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_refuses_what_is_no_measured_circuit(spoil: Callable[[Path], Any], tmp_path: Path) -> None:
    """One sentence that names the folder."""
    made_up().save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=r"circuit: expected a folder that make circuit wrote \(.*\), got '.*'"):
        MeasuredCircuit.load(tmp_path)


# Circuits by threshold


def test_circuit_by_each_rule() -> None:
    """Heads above the threshold, by the position at which they act; of those below 5 % that is not known."""
    measured = made_up()
    assert set(measured.circuit().heads) == set(CIRCUIT.heads)
    assert set(measured.circuit().roles) == {"acts at END", "acts in between"}
    counts = [len(measured.circuit(t).heads) for t in (0.02, THRESHOLD, 0.1)]
    assert counts == [int(is_causal(measured.table, t).sum()) for t in (0.02, 0.05, 0.1)]
    assert counts[0] > counts[1] >= counts[2]
    assert "acts somewhere" in measured.circuit(0.02).roles
    assert (measured.circuit().n_layers, measured.circuit().n_heads) == measured.shape == (LAYERS, HEADS)
    assert "40 pairs, more than 5% of the gap" in measured.circuit().source


# An experiment scored with one


def ioi_sides(words: Any) -> tuple[Any, Any]:
    """Records of the toy model with the prompts of the post."""
    active, control = toy_side(seed=1, sharpen=CIRCUIT.heads), toy_side(seed=2)
    return (
        replace(active, prompts=tokenize(ioi_prompts(20), words)),
        replace(control, prompts=tokenize(abc_prompts(20), words)),
    )


def test_rankings_by_each_rule(words: Any) -> None:
    """The 5 % rule gives `rankings`; the others are what the circuit of that threshold gives by itself."""
    measured, sides = made_up(), ioi_sides(words)
    experiment = analyse(*sides, measured)
    assert experiment.circuit == measured.circuit()
    assert experiment.rankings == analyse(*sides, measured.circuit()).rankings
    assert set(experiment.other_rankings) == set(OTHER_THRESHOLDS)
    for threshold, rankings in experiment.other_rankings.items():
        assert rankings == analyse(*sides, measured.circuit(threshold)).rankings
    assert analyse(*sides, measured.circuit()).other_rankings == {}
    shown = thresholds_table(experiment)
    assert shown["more than"].tolist() == ["2% of the gap", "5% of the gap", "10% of the gap"]
    assert shown["heads"].tolist() == [str(len(measured.circuit(t).heads)) for t in (0.02, 0.05, 0.1)]
    assert shown["|dKL| AUROC"][1].startswith(f"{experiment.rankings['|dKL|'].auroc:.2f} (")
    assert shown["|dchi| within layers"][2].startswith(
        f"{experiment.other_rankings[0.1]['|dchi|'].within_auroc:.2f} (p "
    )
    assert shown.to_string(index=False) in report(experiment)
    assert experiment.notes == []


def test_circuits_too_small_to_rank(words: Any) -> None:
    """With one head above 5 % and none above 10 % there is no ranking by these rules, and the report says why."""
    measured = made_up()
    table = measured.table.copy()
    table.loc[table.causal.cumsum() > 1, list(DIRECTIONS)] *= 0.1
    table.loc[table.causal & (table.causal.cumsum() == 1), list(DIRECTIONS)] = 0.06
    experiment = analyse(*ioi_sides(words), MeasuredCircuit(table, measured.about))
    assert experiment.rankings == experiment.other_rankings[0.10] == {}
    text = report(experiment)
    assert text.count("The circuit has 1 of 24 heads: a ranking needs at least two on either side.") == 2


NOTES: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": "other"}, "The circuit was measured on the model 'other', the prompts were run on 'toy'."),
    "task": ({"task": "repeated"}, "The circuit was measured on the task 'repeated', and these are IOI prompts."),
    "screen": ({"screened_above": 0.0125}, "The circuit was screened by attribution patching"),
}


@pytest.mark.parametrize(("about", "words_"), NOTES.values(), ids=NOTES)
def test_notes_on_where_the_circuit_is_from(about: dict[str, Any], words_: str, words: Any) -> None:
    """One note for each thing that is not as it is in the experiment."""
    sides = ioi_sides(words)
    assert asks_ioi(*sides)
    (note,) = analyse(*sides, made_up(**about)).notes
    assert note.startswith(words_)


def test_own_prompts_may_ask_something_else() -> None:
    """Of texts without a template it can't be known what they ask."""
    active, control = toy_side(seed=1, n=12), toy_side(seed=2, n=11)
    assert not asks_ioi(active, control)
    (note,) = analyse(active, control, made_up()).notes
    assert note.startswith("The circuit was measured on the task 'ioi': whether these prompts ask the same")


def test_a_circuit_of_another_shape_is_refused() -> None:
    """Its name and both shapes in one sentence."""
    record = toy_record(toy_side(seed=1).rows)
    with pytest.raises(
        ValueError, match=r"circuit: expected heads of a model of shape \(4, 6\) .* got .* of shape \(3, 6\)"
    ):
        analyse(record, record, made_up(shape=(3, 6)))


# The report of a measurement


def test_report_of_a_circuit() -> None:
    """Model, weights, accuracy, gap, what was left out, the count by each rule, and every causal head with its numbers."""
    measured = made_up(left_out=["frame 3 makes 16 tokens"], screened_above=0.0125, heads_patched=9)
    text = circuit_report(measured)
    counts = [len(measured.circuit(t).heads) for t in (0.02, 0.05, 0.1)]
    assert f"Causal: {counts[1]} of 24 heads" in text
    assert f"at other thresholds: {counts[0]} at 2%, {counts[2]} at 10%" in text
    assert "answer   above the foil in 95% of the clean prompts, the most likely token of all in 90%" in text
    assert "clean 4.00, corrupt 0.50, gap 3.50" in text
    assert "NOTE  left out: frame 3 makes 16 tokens" in text
    assert "NOTE  9 heads were patched" in text
    causal = measured.table[measured.table.causal]
    for layer, head, effect in zip(causal.layer, causal["head"], causal.denoising, strict=True):
        (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{layer}.{head} ")]
        assert f"{effect:+.3f}" in line


def test_report_of_no_head() -> None:
    """A table without a causal head says so."""
    measured = made_up()
    table = measured.table.assign(causal=False, denoising=0.0, noising=0.0)
    assert circuit_report(MeasuredCircuit(table, measured.about)).endswith("No head is causal.\n")


# What ships


@pytest.mark.parametrize(("model", "task"), SHIPPED)
def test_shipped_circuits(model: str, task: str) -> None:
    """Every shipped table says whose it is, has its causal column by the rule, and at least two heads to score with."""
    measured = measured_circuit(model, task)
    assert (measured.about["model"], measured.about["task"]) == (model, task)
    assert measured.about["accuracy"] >= 0.9
    assert measured.about["gap"] == pytest.approx(measured.about["clean"] - measured.about["corrupt"])
    assert measured.table.causal.tolist() == is_causal(measured.table).tolist()
    assert (measured.table.acts_at != "").tolist() == measured.table.causal.tolist()
    assert len(measured.circuit().heads) >= 2
    assert len(measured.about["prompts"]) == measured.about["pairs"] >= 32
    assert not measured.table.denoising.isna().any()


def test_circuit_of_a_measured_model() -> None:
    """The IOI circuit by the model's name has the shipped table's heads; what does not ship is None, paths and parts included."""
    for model in {model for model, task in SHIPPED if task == "ioi"}:
        assert circuit_of(model).roles == measured_circuit(model).circuit().roles
    assert all(
        measured_circuit(*name) is None for name in (("nobody",), ("smollm2", "no task"), ("..", "measured"), ("/", ""))
    )
