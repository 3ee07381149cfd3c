"""What ships about measured models: tables that agree with each other, records that read, and parts measured again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.attention.capture import record_attention
from helpers.measured.protocol import NAMED, NAMED_ON, verdicts
from helpers.measured.shipped import (
    head_scores,
    measured_tasks,
    ranked_scores,
    shipped_attribution,
    shipped_record,
    shipped_roles,
)
from helpers.patching.heads import head_effects, patch_heads
from helpers.prompts.fit import VARIANTS, FittedTask, fit_task
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.prompts.prompt import Prompt
from helpers.reference.measured import MeasuredCircuit, measured_circuit
from helpers.scores.comparison import SCORES
from helpers.statistics.effects import is_causal
from helpers.statistics.ranking import within_layer_auroc

pytestmark = pytest.mark.slow

EVERY = pytest.mark.parametrize(("model", "task"), measured_tasks(), ids=["/".join(key) for key in measured_tasks()])
SMOLLM2_TASKS = [task for model, task in measured_tasks() if model == "smollm2"]


def circuit(model: str, task: str) -> MeasuredCircuit:
    found = measured_circuit(model, task)
    assert found is not None
    return found


def test_the_real_model_has_three_tasks() -> None:
    """IOI, repeated lists and agreement: each done by at least 90 % (answer on top), patched on at least 32 pairs."""
    assert set(SMOLLM2_TASKS) == {"ioi", "repeated", "agreement"}
    for task in SMOLLM2_TASKS:
        about = circuit("smollm2", task).about
        assert min(about["top_1"], about["accuracy"]) >= 0.9
        assert about["pairs"] >= 32
        assert about["screened_above"] is None
        assert about["heads_patched"] == 270


@EVERY
def test_causal_is_the_rule_applied_to_the_table(model: str, task: str) -> None:
    """The column causal = is_causal of the printed effects; intervals hold their effects; every head is there once."""
    table = circuit(model, task).table
    np.testing.assert_array_equal(table.causal, is_causal(table))
    for way in ("denoising", "noising"):
        assert (table[f"{way}_low"] <= table[way]).all()
        assert (table[way] <= table[f"{way}_high"]).all()
    shape = table.layer.max() + 1, table["head"].max() + 1
    assert list(zip(table.layer, table["head"], strict=True)) == list(np.ndindex(*shape))
    assert (table.acts_at.fillna("") != "").equals(table.causal)


@EVERY
def test_scores_are_of_all_heads_and_all_named(model: str, task: str) -> None:
    """One column for every score of the catalogue, finite unless there is a reason; the layer index is the layer."""
    values, reasons = head_scores(model, task)
    assert list(values) == ["layer", "head", *SCORES]
    assert len(values) == len(circuit(model, task).table)
    assert set(reasons) <= set(SCORES)
    assert np.isfinite(values.drop(columns=[*reasons])).all(axis=None)
    np.testing.assert_array_equal(values["layer index"], values.layer)


def test_the_named_score_is_what_the_protocol_makes_it() -> None:
    """Of the forward-only scores (two passes, no gradient) the one with the highest mean within-layer AUROC there."""
    forward_only = [name for name, score in SCORES.items() if 0 < score.cost(1) <= 2]
    named_on = [key for key in measured_tasks() if key in NAMED_ON]
    within = pd.DataFrame({key: within_layers(*key, forward_only) for key in named_on})
    assert within.mean(axis=1).idxmax() == NAMED
    assert len(named_on) == 9
    one = ranked_scores(*named_on[0], [NAMED], n_permutations=1)
    assert within.loc[NAMED, [named_on[0]]].item() == one.within[NAMED]


def within_layers(model: str, task: str, names: list[str]) -> pd.Series:
    """Within-layer AUROC of some scores, NaN where a score has a reason not to be there: `ranked_scores` without intervals."""
    values, reasons = head_scores(model, task)
    labels = circuit(model, task).table.causal
    found = {
        name: within_layer_auroc(np.nan_to_num(values[name]), labels, values.layer, n_permutations=1)[0]
        for name in names
        if name not in reasons
    }
    return pd.Series(found, index=names)


@pytest.mark.parametrize(("name", "prompts"), [("ioi", ioi_prompts()), ("abc", abc_prompts())])
def test_records_are_of_the_posts_prompts(name: str, prompts: list[Prompt]) -> None:
    """The texts in order; 270 heads; rows sum to 1 and see no later token; most answers are IO."""
    record = shipped_record("smollm2", name)
    assert [p.prompt.text for p in record.prompts] == [p.text for p in prompts]
    assert (record.n_layers, record.n_heads, record.query) == (30, 9, "all")
    end = record.at("END").rows
    assert float((end.sum(-1) - 1).abs().max()) < 1e-5
    assert float(record.rows[~record.visible().expand(record.rows.shape)].abs().max()) == 0
    assert record.readout is not None
    if name == "ioi":
        assert float(record.readout.correct.mean()) > 0.9


def test_records_of_pairs_agree_where_the_prompts_do() -> None:
    """Rows of both sides before S2 are equal (float16), and some at S2 or later are not."""
    clean, corrupt = (shipped_record("smollm2", side) for side in ("clean", "corrupt"))
    assert len(clean.prompts) == len(corrupt.prompts) == 32
    for one, (left, right) in enumerate(zip(clean.prompts, corrupt.prompts, strict=True)):
        s2 = left.position("S2")
        assert left.ids[:s2] == right.ids[:s2]
        assert float((clean.rows[one, :, :, :s2] - corrupt.rows[one, :, :, :s2]).abs().max()) < 2e-3
    assert float((clean.at("END").rows - corrupt.at("END").rows).abs().max()) > 0.5


def test_roles_are_of_all_heads() -> None:
    """270 rows in reading order; causal movers of IOI are among the heads with the role Name Mover."""
    roles = shipped_roles("smollm2")
    assert list(zip(roles.layer, roles["head"], strict=True)) == list(np.ndindex(30, 9))


def test_verdicts_follow_from_the_tables() -> None:
    """IOI: KL and chi no (within-layer p above 5 %), the named score not reached; the tables say so by hand too."""
    table = ranked_scores("smollm2", "ioi", ("|d KL|", "|d chi|", NAMED, "attribution patching"), n_permutations=2000)
    assert (table.within_p[["|d KL|", "|d chi|"]] > 0.05).all()
    assert table.auroc[NAMED] < table.auroc["attribution patching"]
    first, _, third = verdicts("smollm2", n_permutations=2000)
    assert "ioi: |dKL| no (AUROC" in first
    assert "|dchi| no (AUROC" in first
    assert "ioi: not reached (AUROC" in third
    assert "repeated" not in third


def test_nothing_that_was_not_measured() -> None:
    """Another model or task: one sentence that names what there is."""
    with pytest.raises(ValueError, match=r"expected one of demo/ioi, .*, got gpt2-small/ioi"):
        head_scores("gpt2-small", "ioi")


@EVERY
def test_attribution_is_in_both_directions(model: str, task: str) -> None:
    """Denoising is the score of the same pairs; noising is another estimate, of every head."""
    both, (values, _) = shipped_attribution(model, task), head_scores(model, task)
    assert both[["layer", "head"]].equals(values[["layer", "head"]])
    np.testing.assert_allclose(both.denoising.abs(), values["attribution patching"], rtol=1e-5)
    assert both.noising.notna().all()
    assert (both.noising - both.denoising).abs().max() > 0.1


def test_attribution_of_the_demo_model_is_measured_again() -> None:
    """Noising, on the pairs of its scores: estimates to 1e-3 of the largest."""
    from helpers import attribute_heads, load_model
    from helpers.measured.build import PAIRS, SCORE_SEED
    from helpers.patching import fit_to_model

    model, shipped = load_model("demo", device="cpu"), shipped_attribution("demo", "ioi").noising
    fitted = fit_to_model(model, "ioi", PAIRS, seed=SCORE_SEED)
    found = attribute_heads(model, fitted.clean, fitted.corrupt, at="clean", progress=False).mean(-1).ravel()
    np.testing.assert_allclose(found, shipped, atol=1e-3 * shipped.abs().max())


# With the model itself, where it can be had


def test_the_weights_are_those_that_were_measured(smollm2: Any) -> None:
    """The fingerprint in every table is that of the model as it is loaded now."""
    from helpers.models.fingerprint import fingerprint

    assert {circuit("smollm2", task).about["weights"] for task in SMOLLM2_TASKS} == {fingerprint(smollm2)}


def texts(fitted: FittedTask) -> list[dict[str, str]]:
    """Its pairs as `circuit.json` keeps them."""
    return [{"clean": c.text, "corrupt": x.text} for c, x in zip(fitted.clean, fitted.corrupt, strict=True)]


@pytest.mark.parametrize("task", SMOLLM2_TASKS)
def test_a_part_of_each_table_is_measured_again(task: str, smollm2: Any) -> None:
    """The strongest head, and the weakest of the last layers (whose runs are short), on the same prompts: effects to 1e-4."""
    shipped = circuit("smollm2", task)
    forms = [fit_task(task, smollm2.tokenizer, shipped.about["pairs"], **options) for options in VARIANTS[task]]
    [fitted] = [form for form in forms if texts(form) == shipped.about["prompts"]]
    sizes = shipped.table[["denoising", "noising"]].abs().max(axis=1)
    rows = [int(sizes.idxmax()), int(sizes[shipped.table.layer >= 25].idxmin())]
    heads = [(int(shipped.table.layer[row]), int(shipped.table["head"][row])) for row in rows]
    run = patch_heads(smollm2, fitted.clean, fitted.corrupt, heads=heads, progress=False)
    assert float((run.clean > 0).mean()) == shipped.about["accuracy"]
    found = head_effects(run).loc[rows]
    columns = [f"{way}{end}" for way in ("denoising", "noising") for end in ("", "_low", "_high")]
    np.testing.assert_allclose(found[columns], shipped.table.loc[rows, columns], atol=1e-4)


def test_records_are_made_again(smollm2: Any) -> None:
    """Five of the post's prompts: END rows to 1e-5, earlier rows to float16, the same answers."""
    shipped = shipped_record("smollm2", "ioi").subset(range(5))
    again = record_attention(smollm2, ioi_prompts()[:5], query="all", readout=True, progress=False)
    width = again.rows.shape[-1]
    assert float((again.rows - shipped.rows[..., :width, :width]).abs().max()) < 2e-3
    assert float((again.at("END").rows - shipped.at("END").rows[..., :width]).abs().max()) < 1e-5
    assert shipped.readout is not None
    assert again.readout is not None
    np.testing.assert_allclose(again.readout.logit_difference, shipped.readout.logit_difference, atol=1e-3)
