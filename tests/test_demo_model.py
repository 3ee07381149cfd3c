"""The shipped demo models are what their card says."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from helpers.attention.capture import record_attention
from helpers.demo.acceptance import examine, held_out_ioi, is_accepted
from helpers.demo.build import find_causal_heads
from helpers.demo.corpus import held_out
from helpers.experiment import analyse
from helpers.models.load import DEMO_FOLDER, load_model
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.reference.demo import DEMO_SEEDS, causal_heads, circuit_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo():
    return load_model("demo")


def test_is_small() -> None:
    """Everything that ships, all three seeds together, is below 8 MB; each has at least 48 heads."""
    assert sum(file.stat().st_size for file in DEMO_FOLDER.rglob("*") if file.is_file()) < 8 * 2**20
    for name in DEMO_SEEDS:
        assert len(causal_heads(name)) >= 48


def test_post_prompts_are_15_tokens(demo) -> None:
    """The post's 100 prompts run unchanged: 15 tokens, one BOS in front."""
    for prompts in (ioi_prompts(), abc_prompts()):
        record = record_attention(demo, prompts, progress=False)
        assert {len(p) for p in record.prompts} == {15}
        assert all(p.ids.count(demo.tokenizer.bos_token_id) == 1 for p in record.prompts)


def test_accuracy_is_as_reported(demo) -> None:
    """Held-out IOI accuracy, the ABC balance and the other kinds come out as in the card, and pass the rule."""
    measured, reported = examine(demo), json.loads((DEMO_FOLDER / "seed-0" / "examination.json").read_text())
    assert measured["accepted"]
    for template in ("ABBA", "BABA"):
        assert measured["ioi"][template]["accuracy"] == pytest.approx(reported["ioi"][template]["accuracy"], abs=0.005)
    assert measured["abc"]["share_of_a"] == pytest.approx(reported["abc"]["share_of_a"], abs=0.001)
    for kind, accuracy in reported["kinds"].items():
        assert measured["kinds"][kind] == pytest.approx(accuracy, abs=0.01)


def test_the_rule_can_refuse() -> None:
    """98 % on one template, or a preference beyond a fair coin, is not accepted."""
    good = {
        "ioi": {t: {"accuracy": 1.0} for t in ("ABBA", "BABA")},
        "abc": {"share_of_a": 0.5, "fair_coin": [0.46, 0.54]},
    }
    assert is_accepted(good)
    assert not is_accepted(good | {"ioi": {"ABBA": {"accuracy": 0.98}, "BABA": {"accuracy": 1.0}}})
    assert not is_accepted(good | {"abc": {"share_of_a": 0.56, "fair_coin": [0.46, 0.54]}})


def test_examined_prompts_are_held_out() -> None:
    """Every examined (frame, name pair) is in the held-out set, with both orders."""
    prompts = held_out_ioi("ABBA")
    assert len(prompts) == len({p.text for p in prompts}) == 2 * len(held_out())


def test_causal_heads_are_recomputed(demo) -> None:
    """Patching again gives the shipped table: the same causal heads acting at the same places, effects to 1e-3."""
    again, shipped = find_causal_heads(demo, progress=False), causal_heads("demo")
    assert list(again.causal) == list(shipped.causal)
    assert list(again.acts_at.dropna()) == list(shipped.acts_at.dropna())
    for column in ("denoising", "noising"):
        np.testing.assert_allclose(again[column], shipped[column], atol=1e-3)


def test_circuits_are_the_causal_heads() -> None:
    """`circuit_of` has exactly the heads that the tables call causal; other models have none or the post's."""
    for name in DEMO_SEEDS:
        table = causal_heads(name)
        causal = {(row.layer, row.head) for row in table[table.causal].itertuples()}
        circuit = circuit_of(name)
        assert circuit is not None
        assert set(circuit.heads) == causal
    assert len(circuit_of("gpt2-small").heads) == 23
    assert circuit_of("some/other-model") is None


def test_card_reports_all_three_seeds() -> None:
    """The model card names all seeds with their verdicts, and the number of causal heads of each is its table's."""
    card = (DEMO_FOLDER / "README.md").read_text()
    for seed in range(3):
        assert f"**seed-{seed}**" in card
        table = pd.read_csv(DEMO_FOLDER / f"seed-{seed}" / "causal_heads.csv")
        for row in table[table.causal].itertuples():
            assert f"| {row.layer}.{row.head} |" in card


def test_readme_states_what_the_experiment_finds(demo) -> None:
    """The measured line of the README's table is what `make run` measures."""
    sides = [record_attention(demo, side, progress=False) for side in (ioi_prompts(), abc_prompts())]
    rankings = analyse(*sides, circuit_of("demo")).rankings
    kl, chi = rankings["|dKL|"], rankings["|dchi|"]
    line = f"{kl.n_circuit} causal heads of {kl.n_circuit + kl.n_other} (**measured** here, `make run`) |"
    numbers = f" {kl.auroc:.3f} | {chi.auroc:.3f} | {kl.layer_auroc:.3f} |"
    assert line + numbers in (DEMO_FOLDER.parents[2] / "README.md").read_text()
