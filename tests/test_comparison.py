"""Every statistic under one protocol: planted evidence is ranked right, costs add up, and a new score is one function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_architectures
import torch
import transformers
from models import CIRCUIT, HEADS, LAYERS, causal_rows, toy_prompt, toy_record
from sklearn.metrics import average_precision_score, roc_auc_score

from helpers import Prompt, abc_prompts, diagnose, head_effects, load_model, minimal_pairs, patch_heads
from helpers.contents.changes import HeadChanges
from helpers.contents.outputs import HeadOutputs
from helpers.prompts.tasks import TASKS
from helpers.reference.circuits import ACRONYMS, GREATER_THAN, Circuit
from helpers.reference.demo import circuit_of
from helpers.scores.comparison import SCORES, Evidence, Score, compare, gather, scan_positions

pytestmark = pytest.mark.slow

folder_of = test_architectures.folder_of

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
    assert SCORES["|d KL|"].needs == SCORES["|d Var_v|"].needs == "two sets"
    assert {s.needs for name, s in SCORES.items() if "output change" in name or "position" in name} == {"pairs"}
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


def test_every_score_has_a_unit(evidence: Evidence) -> None:
    """The table's unit column is each score's own; numbers of one kind share it."""
    table = compare(evidence, CIRCUIT, n_permutations=9)
    assert list(table.unit) == [score.unit for score in SCORES.values()]
    assert (table.reason == "").all()
    assert SCORES["|d entropy|"].unit == "nats"
    assert SCORES["|d KL|"].unit == SCORES["|d KL|, furthest position"].unit == "normalised"
    assert SCORES["output change, END"].unit == SCORES["output change, all positions"].unit
    assert {s.unit for name, s in SCORES.items() if name.endswith("relative")} == {"share of own output"}
    assert SCORES["activation patching"].unit == "share of gap"


# Definitions, by loops over the evidence


def test_output_changes(evidence: Evidence) -> None:
    """END: mean at the last token; furthest: largest mean; all: sum of means; relative: the same over the mean own norm."""
    changes = evidence.changes
    assert changes is not None
    change, own = changes.change.mean(0), ((changes.clean + changes.corrupt) / 2).mean(0)
    ratio = change / own
    expected = {
        "END": (change[..., -1], ratio[..., -1]),
        "furthest position": (change.max(-1), ratio.max(-1)),
        "all positions": (change.sum(-1), change.sum(-1) / own.sum(-1)),
    }
    for where, (absolute, relative) in expected.items():
        np.testing.assert_allclose(SCORES[f"output change, {where}"].of(evidence), absolute)
        np.testing.assert_allclose(SCORES[f"output change, {where}, relative"].of(evidence), relative)


def test_a_head_that_writes_nothing_changes_by_nothing(evidence: Evidence) -> None:
    """Norm 0 on both sides: relative change 0, not NaN."""
    changes = evidence.changes
    assert changes is not None
    silent = [x.copy() for x in (changes.clean, changes.corrupt, changes.change)]
    for x in silent:
        x[:, 1, 2] = 0
    quiet = replace(evidence, changes=HeadChanges(*silent, changes.outputs_clean, changes.outputs_corrupt))
    for name, score in SCORES.items():
        if name.startswith("output change, "):
            value = score.of(quiet)
            assert value[1, 2] == 0
            assert np.isfinite(value).all()


def test_furthest_positions(evidence: Evidence) -> None:
    """The position where the mean over pairs is largest: of total variation, and of the shifts of KL and chi."""
    active, control = diagnose(evidence.active), diagnose(evidence.control)
    for name, sides in {"KL": (active.kl, control.kl), "chi": (active.chi, control.chi)}.items():
        shift = [np.mean(sides[0][..., t] - sides[1][..., t], axis=0) for t in range(1, LENGTH)]
        np.testing.assert_allclose(SCORES[f"|d {name}|, furthest position"].of(evidence), np.abs(shift).max(0))
        scan = scan_positions(evidence, name, by="shift", n_flips=9)
        np.testing.assert_allclose(scan["shift"].abs(), np.abs(shift).max(0).ravel())
    moved = (evidence.active.rows - evidence.control.rows).abs().double().sum(-1).numpy() / 2
    furthest = SCORES["total variation, furthest position"].of(evidence)
    np.testing.assert_allclose(furthest, moved.mean(0).max(-1), atol=1e-6)
    np.testing.assert_allclose(
        scan_positions(evidence, "total variation", n_flips=9).distance, furthest.ravel(), atol=1e-6
    )


def test_values(evidence: Evidence) -> None:
    """|shift of mean Var_v| and |shift of mean log(Var_v + 1e-8)|; two sets of other sizes have them too."""
    one, two = (side.value_variance for side in evidence.outputs())
    assert one is not None
    assert two is not None
    side = evidence.outputs()[1]
    assert side.attribution is not None
    five = replace(
        side, prompts=side.prompts[:5], z=side.z[:5], attribution=side.attribution[:5], value_variance=two[:5]
    )
    fewer = replace(evidence, outputs_control=five)
    for found, other in ((evidence, two), (fewer, two[:5])):
        np.testing.assert_allclose(SCORES["|d Var_v|"].of(found), np.abs(one.mean(0) - other.mean(0)))
        logs = [np.log(x + 1e-8).mean(0) for x in (one, other)]
        np.testing.assert_allclose(SCORES["|d log Var_v|"].of(found), np.abs(logs[0] - logs[1]))


# What can't be had


def test_bad_input(evidence: Evidence) -> None:
    """A circuit of another model, prompts of several lengths, no such number: one sentence each."""
    with pytest.raises(ValueError, match="circuit: expected heads of a model of shape"):
        compare(evidence, GREATER_THAN)
    with pytest.raises(ValueError, match="expected attribution, which was not gathered"):
        SCORES["attribution patching"].of(replace(evidence, attribution=None))
    with pytest.raises(ValueError, match="expected prompts of one length"):
        scan_positions(uneven(evidence))
    with pytest.raises(ValueError, match="of: expected 'KL', 'chi' or 'total variation', got 'entropy'"):
        scan_positions(evidence, "entropy")


def uneven(evidence: Evidence) -> Evidence:
    """The same with a shorter last pair."""
    lengths = [LENGTH] * (PAIRS - 1) + [LENGTH - 1]
    sides = (toy_record(causal_rows(lengths, LAYERS, HEADS, seed=s), query="all", lengths=lengths) for s in (1, 2))
    return replace(evidence, **dict(zip(("active", "control"), sides, strict=True)))


def test_a_score_that_cannot_be_had_is_nan_with_its_reason(evidence: Evidence) -> None:
    """No attribution, no head outputs, a statistic of another shape or of NaN: NaN and a sentence; other rows stay."""
    sentence = "model: expected something else"
    lacking = replace(
        evidence, attribution=None, outputs_active=None, changes=None, reasons={"outputs_active": sentence}
    )
    shown = {
        **SCORES,
        "flat": Score(lambda e: np.zeros(3), 2, unit="nats"),
        "none": Score(lambda e: np.full((LAYERS, HEADS), np.nan), 2),
    }
    table = compare(lacking, CIRCUIT, shown, n_permutations=9)
    assert list(table.index) == list(shown)
    missing = table[table.reason != ""]
    assert set(missing.index) == {
        "attribution patching", "|d output magnitude|", "|d Var_v|", "|d log Var_v|", "|d direct logit attribution|",
        "output change", "flat", "none", *(name for name in SCORES if name.startswith("output change, ")),
    }  # fmt: skip
    assert missing[["auroc", "low", "high", "within", "within_p", "average_precision"]].isna().all(axis=None)
    assert missing.reason["output change"] == sentence
    assert "expected one number a head, shape (4, 6), got shape (3,)" in missing.reason["flat"]
    assert missing.unit["flat"] == "nats"
    whole = compare(evidence, CIRCUIT, n_permutations=9)
    kept = [name for name in SCORES if name not in missing.index]
    assert table.loc[kept].equals(whole.loc[kept])


def test_prompts_of_several_lengths(evidence: Evidence) -> None:
    """What reads positions is NaN, with the lengths in its reason; what reads END alone is there."""
    table = compare(uneven(evidence), CIRCUIT, n_permutations=9)
    by_position = [name for name in SCORES if "position" in name]
    assert len(by_position) == 8
    assert list(table.index[table.reason != ""]) == by_position
    assert set(table.reason[by_position]) == {"active, control: expected prompts of one length, got lengths [8, 9]"}


def test_gather_goes_on_without_pairs(tiny: Any) -> None:
    """Two sets of other sizes and lengths: shifts are there, and everything that needs pairs says why it is not."""
    active = [Prompt(p.text) for p in minimal_pairs(4)[0]]
    control = [Prompt("red cup lamp red cup Mary saw"), *(Prompt(p.text) for p in abc_prompts(4))]
    found = gather(tiny, active, control)
    assert set(found.reasons) == {"changes", "attribution", "patching"}
    assert all("expected" in reason for reason in found.reasons.values())
    table = compare(found, Circuit("any", 3, 4, {"x": ((0, 1), (1, 2), (2, 3))}, "made up"), n_permutations=9)
    fine = table[table.reason == ""]
    assert set(fine.needs) == {"nothing", "two sets"}
    assert set(table[table.reason != ""].needs) == {"two sets", "pairs"}
    assert list(table.index[(table.reason != "") & (table.needs == "two sets")]) == ["|d direct logit attribution|"]
    assert "answer and a foil" in table.reason["|d direct logit attribution|"]


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
@pytest.mark.parametrize("fails", ["record_changes", "attribute_heads"])
def test_gather_goes_on_if_a_part_fails(
    fails: str, kind: type[Exception], tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in one part is that part's reason, with its kind; the rest is measured."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise kind("no such hook\nand more")

    monkeypatch.setattr(f"helpers.scores.evidence.{fails}", fail)
    found = gather(tiny, *minimal_pairs(3), expensive=True)
    name = {"record_changes": "changes", "attribute_heads": "attribution"}[fails]
    assert found.reasons == {name: f"model: {kind.__name__} in a forward pass: no such hook"}
    assert getattr(found, name) is None
    assert found.patching is not None
    assert found.outputs_active is not None


def test_norms_after_the_sum(folder_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-1, whose stream is no sum: everything but contributions and direct attribution is measured."""
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 64, "initializer_range": 0.2}
    gpt1 = test_architectures.Architecture(transformers.OpenAIGPTConfig, shape)
    monkeypatch.setitem(test_architectures.ARCHITECTURES, "gpt1", gpt1)
    found = gather(load_model(str(folder_of("gpt1")), device="cpu"), *minimal_pairs(4))
    table = compare(found, Circuit("any", 2, 4, {"x": ((0, 1), (1, 2))}, "made up"), n_permutations=9)
    missing = table.index[table.reason != ""]
    assert set(missing) == {"|d direct logit attribution|", *(n for n in SCORES if n.startswith("output change, "))}
    assert table.reason[missing].str.startswith("model: expected blocks that add what attention and MLP write").all()


# Gathering


def test_patching_measured_already(tiny: Any) -> None:
    """The table is taken, whatever its order, as the larger of both effects; nothing is patched again."""
    pairs = minimal_pairs(3)
    effects = head_effects(patch_heads(tiny, *pairs, progress=False), n_resamples=9)
    given = gather(tiny, *pairs, expensive=False, patching=effects.sample(frac=1, random_state=0))
    expected = np.maximum(effects.denoising.abs(), effects.noising.abs()).to_numpy().reshape(3, 4)
    np.testing.assert_array_equal(given.patching, expected)
    assert given.attribution is None
    np.testing.assert_allclose(gather(tiny, *pairs).patching, expected)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda t: t.drop(columns="noising"),
            "expected a table with columns layer, head, denoising, noising, got layer",
        ),
        (lambda t: t.iloc[1:], "expected one row for each head of 3 layers x 4, got 11 rows"),
        (lambda t: t.assign(layer=0), "expected one row for each head of 3 layers x 4, got 12 rows"),
        (lambda t: {"layer": 1}, "expected a table with columns layer, head, denoising, noising, got dict"),
    ],
)
def test_refuses_other_tables(spoil: Any, words: str, tiny: Any) -> None:
    """Lacking columns, lacking or repeated heads, no table."""
    table = pd.DataFrame(list(np.ndindex(3, 4)), columns=["layer", "head"]).assign(denoising=0.1, noising=0.2)
    with pytest.raises(ValueError, match=f"^patching: {words}"):
        gather(tiny, *minimal_pairs(2), patching=spoil(table))


def test_gather_passes_bos_on(tiny: Any) -> None:
    """Every part sees the token asked for in front, or none."""
    found = gather(tiny, *minimal_pairs(2), expensive=False, bos="red")
    red = tiny.tokenizer.convert_tokens_to_ids("red")
    assert found.changes is not None
    prompts = [found.active.prompts, found.control.prompts, found.changes.outputs_clean.prompts]
    assert {p.ids[0] for side in prompts for p in side} == {red}
    bare = gather(tiny, *minimal_pairs(2), expensive=True, prepend_bos=False)
    assert not bare.reasons
    assert bare.changes is not None
    assert bare.changes.change.shape[-1] == bare.active.rows.shape[-1] == found.active.rows.shape[-1] - 1


def test_on_the_demo_model() -> None:
    """On pairs that the truth never saw, patching finds the causal heads again, and attribution patching nearly."""
    found = gather(load_model("demo"), *TASKS["IOI"](24, seed=11))
    shown = {name: SCORES[name] for name in ("|d KL|", "attribution patching", "activation patching")}
    table = compare(found, circuit_of("demo"), shown, n_permutations=200)
    assert table.auroc["activation patching"] > 0.98
    assert table.auroc["attribution patching"] > 0.95
    assert table.auroc["|d KL|"] < 0.6


@pytest.mark.parametrize(("task", "circuit"), [("greater-than", GREATER_THAN), ("acronyms", ACRONYMS)])
def test_gpt2_tasks_run_on_its_heads(narrow_gpt2: Any, task: str, circuit: Any) -> None:
    """Everything but patching runs on a random model with GPT-2 small's heads and the real tokenizer."""
    cheap = {name: score for name, score in SCORES.items() if "patching" not in name}
    table = compare(gather(narrow_gpt2, *TASKS[task](4), expensive=False), circuit, cheap, n_permutations=99)
    assert list(table.index) == list(cheap)
    assert table.auroc.between(0, 1).all()
    assert 0.42 <= table.auroc["layer index"] <= 0.57
