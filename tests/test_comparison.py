"""Every statistic under one protocol: planted evidence is ranked right, costs add up, and a new score is one function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from models import CIRCUIT, HEADS, LAYERS, causal_rows, toy_prompt, toy_record
from sklearn.metrics import average_precision_score, roc_auc_score

from helpers import load_model
from helpers.comparison import SCORES, Evidence, Score, compare, gather, scan_positions
from helpers.models.changes import HeadChanges
from helpers.models.outputs import HeadOutputs
from helpers.prompts.tasks import TASKS
from helpers.reference.circuits import ACRONYMS, GREATER_THAN
from helpers.reference.demo import circuit_of

PAIRS, LENGTH, D_HEAD = 12, 9, 5
INSIDE = np.array([divmod(i, HEADS) in CIRCUIT.heads for i in range(LAYERS * HEADS)])


def outputs(seed: int) -> HeadOutputs:
    rng = np.random.default_rng(seed)
    shape = PAIRS, LAYERS, HEADS
    z, attribution, variance = rng.normal(size=(*shape, D_HEAD)), rng.normal(size=shape), rng.uniform(1, 2, shape)
    return HeadOutputs([toy_prompt(LENGTH)] * PAIRS, "END", z, attribution, variance)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """Pairs in which only heads of the circuit do anything: other rows, outputs and effects are alike on both sides."""
    lengths = [LENGTH] * PAIRS
    control_rows = causal_rows(lengths, LAYERS, HEADS, seed=1)
    moved = causal_rows(lengths, LAYERS, HEADS, seed=2)
    inside = torch.from_numpy(INSIDE.reshape(LAYERS, HEADS))[:, :, None, None]
    active, control = (
        toy_record(rows, query="all", lengths=lengths)
        for rows in (torch.where(inside, moved, control_rows), control_rows)
    )
    one, two = outputs(3), outputs(4)
    where = INSIDE.reshape(LAYERS, HEADS)
    mixed = replace(
        two,
        z=np.where(where[..., None], one.z, two.z),
        attribution=np.where(where, one.attribution, two.attribution),
        value_variance=np.where(where, one.value_variance, two.value_variance),
    )
    effects = np.where(where, np.linspace(-1, -0.1, INSIDE.size).reshape(where.shape), 0.0)
    norms = np.random.default_rng(5).uniform(1, 2, (3, PAIRS, LAYERS, HEADS, LENGTH))
    changes = HeadChanges(*norms[:2], norms[2] * where[..., None], mixed, two)
    return Evidence(active, control, mixed, two, effects, effects, changes)


def test_every_score_finds_heads_that_alone_do_something(evidence: Evidence) -> None:
    """What is exactly 0 for all others ranks the circuit first: AUROC and average precision 1; but for the layer index."""
    table = compare(evidence, CIRCUIT, n_permutations=200)
    assert list(table.index) == list(SCORES)
    others = table.drop(index="layer index")
    assert (others.auroc == 1).all()
    assert (others.average_precision == 1).all()
    assert (others.within == 1).all()
    assert table.auroc["layer index"] < 1
    assert table.within["layer index"] == 0.5
    assert table.attrs["base_rate"] == pytest.approx(INSIDE.mean())


def test_columns_are_the_references(evidence: Evidence) -> None:
    """AUROC and average precision are scikit-learn's on any score; nothing is dropped, the order is that of the scores."""
    noise = np.random.default_rng(0).normal(size=(LAYERS, HEADS))
    table = compare(
        evidence, CIRCUIT, {"b": Score(lambda e: noise, 1), "a": Score(lambda e: -noise, 2)}, n_permutations=99
    )
    assert list(table.index) == ["b", "a"]
    assert table.auroc["b"] == pytest.approx(roc_auc_score(INSIDE, noise.ravel()))
    assert table.auroc["a"] == pytest.approx(1 - table.auroc["b"])
    assert table.average_precision["b"] == pytest.approx(average_precision_score(INSIDE, noise.ravel()))
    assert list(table.passes) == [1, 2]


def test_costs() -> None:
    """Only patching grows with the number of heads: 2 + 2 heads passes a pair; a shift of means needs no pairs."""
    assert SCORES["activation patching"].cost(48) == 98
    assert {score.cost(48) for name, score in SCORES.items() if name != "activation patching"} == {0, 2, 4}
    assert SCORES["|d KL|"].needs == "two sets"
    assert {SCORES[s].needs for s in ("total variation", "output change", "attribution patching")} == {"pairs"}


def test_undefined_counts_as_nothing(evidence: Evidence) -> None:
    """NaN (no visible BOS, no answer) ranks like 0, lowest of absolute values."""
    value = np.where(INSIDE, 1.0, np.nan).reshape(LAYERS, HEADS)
    assert compare(evidence, CIRCUIT, {"x": Score(lambda e: value, 2)}, n_permutations=9).auroc["x"] == 1


def test_signs_do_not_matter(evidence: Evidence) -> None:
    """Swapping the sides leaves shifts, distances and changes as they are: all are absolute values."""
    swapped = Evidence(
        evidence.control, evidence.active, evidence.outputs_control, evidence.outputs_active,
        evidence.attribution, evidence.patching, evidence.changes,
    )  # fmt: skip
    for name, score in SCORES.items():
        np.testing.assert_allclose(score.of(swapped), score.of(evidence), atol=1e-9, err_msg=name)


def test_scan_looks_everywhere_but_at_the_first_token(evidence: Evidence) -> None:
    """Positions are named token 1 … T - 1, and only heads that moved have a small p."""
    scan = scan_positions(evidence, n_flips=2000)
    assert set(scan.position) <= {f"token {t}" for t in range(1, LENGTH)}
    assert (scan.p[~INSIDE] == 1).all()
    assert (scan.t[~INSIDE] == 0).all()
    assert (scan.t[INSIDE] != 0).all()


def test_bad_input(evidence: Evidence) -> None:
    """A circuit of another model, effects that were not gathered, prompts of several lengths: one sentence each."""
    with pytest.raises(ValueError, match="circuit: expected heads of a model of shape"):
        compare(evidence, GREATER_THAN)
    with pytest.raises(ValueError, match="expected attribution, which was not gathered"):
        SCORES["attribution patching"].of(replace(evidence, attribution=None))
    lengths = [LENGTH] * (PAIRS - 1) + [LENGTH - 1]
    uneven = toy_record(causal_rows(lengths, LAYERS, HEADS), query="all", lengths=lengths)
    with pytest.raises(ValueError, match="expected prompts of one length"):
        scan_positions(replace(evidence, active=uneven))


def test_on_the_demo_model() -> None:
    """On pairs that the truth never saw, patching finds the causal heads again, and attribution patching nearly."""
    found = gather(load_model("demo"), *TASKS["IOI"](24, seed=11))
    shown = {name: SCORES[name] for name in ("|d KL|", "attribution patching", "activation patching")}
    table = compare(found, circuit_of("demo"), shown, n_permutations=200)
    assert table.auroc["activation patching"] > 0.98
    assert table.auroc["attribution patching"] > 0.95
    assert table.auroc["|d KL|"] < 0.6


@pytest.mark.parametrize(("task", "circuit"), [("greater-than", GREATER_THAN), ("acronyms", ACRONYMS)])
def test_gpt2_tasks_run_on_its_shape(gpt2_like: Any, task: str, circuit: Any) -> None:
    """Everything but patching runs on a random model of GPT-2 small's shape with the real tokenizer."""
    cheap = {name: score for name, score in SCORES.items() if "patching" not in name}
    table = compare(gather(gpt2_like, *TASKS[task](4), expensive=False), circuit, cheap, n_permutations=99)
    assert list(table.index) == list(cheap)
    assert table.auroc.between(0, 1).all()
    assert 0.42 <= table.auroc["layer index"] <= 0.57
