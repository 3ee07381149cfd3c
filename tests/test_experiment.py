"""From two records to an analysis: a null check, a planted effect, no circuit, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from models import CIRCUIT, HEADS, KEYS, LAYERS, causal_rows, random_rows, toy_prompt, toy_record, toy_side

from helpers import AttentionRecord, Circuit, analyse
from helpers.diagnostics.rows import kl_selectivity, susceptibility
from helpers.wording import answer

IN_CIRCUIT = [divmod(i, HEADS) in CIRCUIT.heads for i in range(LAYERS * HEADS)]


def test_same_record_on_both_sides() -> None:
    """Null check: every shift is exactly 0, no interval excludes 0, every head ties (AUROC 0.5), the answer is no."""
    record = toy_side(seed=1)
    experiment = analyse(record, record, CIRCUIT)
    for name in ("kl", "chi"):
        assert (experiment.table[f"d_{name}"] == 0).all()
        assert ((experiment.table[f"d_{name}_low"] <= 0) & (experiment.table[f"d_{name}_high"] >= 0)).all()
        assert (experiment.table[f"d_{name}_q"] > 0.9).all()
    for ranking in experiment.rankings.values():
        assert (ranking.auroc, ranking.low, ranking.high, ranking.within_auroc) == pytest.approx((0.5,) * 4)
        assert ranking.within_p == 1
    np.testing.assert_array_equal(experiment.coupling.difference, 0)
    assert "0 of 24 heads shift their KL and 0 their chi" in answer(experiment)
    assert answer(experiment).count("does not tell circuit heads from the others") == 2


def test_two_samples_without_an_effect() -> None:
    """Two draws from one distribution, 20 times: a head shifts at q < 0.05 in at most a few runs; AUROC is 0.5 on average."""
    runs = [analyse(toy_side(seed=10 + i), toy_side(seed=100 + i), CIRCUIT) for i in range(20)]
    assert sum((run.table.d_kl_q < 0.05).any() for run in runs) <= 4
    assert np.mean([run.rankings["|dKL|"].auroc for run in runs]) == pytest.approx(0.5, abs=0.1)


def test_a_planted_effect_is_found(planted: Any) -> None:
    """Circuit heads with twice the scores: larger |dKL| than every other head, q < 0.05, and not by depth."""
    table = planted.table
    assert (table.d_kl[table.in_circuit] > 0).all()
    assert (table.d_kl_q[table.in_circuit] < 0.05).all()
    assert (table.d_kl_q[~table.in_circuit] < 0.05).sum() <= 1
    for ranking in planted.rankings.values():
        assert (ranking.n_circuit, ranking.n_other) == (5, 19)
        assert ranking.auroc > 0.95
        assert ranking.within_auroc > 0.95
        assert ranking.within_p < 0.01
    assert answer(planted).count("tells circuit heads from the others, and not only by depth") == 2


def test_a_depth_effect_alone_is_not_confirmed() -> None:
    """All heads of layers 2 and 3 sharpen, and the circuit is half of them: AUROC is high, within layers it is not."""
    late = [(layer, head) for layer in (2, 3) for head in range(HEADS)]
    circuit = Circuit("late", LAYERS, HEADS, {"Name Mover": tuple(late[::2])}, "made up")
    experiment = analyse(toy_side(seed=1, sharpen=late, n=60), toy_side(seed=2, n=60), circuit)
    ranking = experiment.rankings["|dKL|"]
    assert ranking.low > 0.5
    assert ranking.layer_auroc > 0.8
    assert ranking.within_p > 0.05
    assert "comparing heads of the same layer does not confirm it" in answer(experiment)


def test_table_row_by_row(planted: Any) -> None:
    """One row a head in reading order; means over prompts of the row functions; shift = active - control; roles."""
    table = planted.table
    assert list(zip(table.layer, table["head"], strict=True)) == [divmod(i, HEADS) for i in range(LAYERS * HEADS)]
    assert list(table.role) == [CIRCUIT.role(*divmod(i, HEADS)) for i in range(LAYERS * HEADS)]
    assert list(table.in_circuit) == IN_CIRCUIT
    for name, measure in (("kl", kl_selectivity), ("chi", susceptibility)):
        for side in ("active", "control"):
            means = measure(getattr(planted, side).rows).mean(0).flatten().numpy()
            np.testing.assert_allclose(table[f"{name}_{side}"], means, rtol=1e-10)
        np.testing.assert_allclose(table[f"d_{name}"], table[f"{name}_active"] - table[f"{name}_control"], atol=1e-15)
    assert not table.isna().any(axis=None)


def test_without_a_circuit(planted: Any, uncharted: Any) -> None:
    """No circuit: the same shifts, nobody's role is known, and there is no ranking to be read as one."""
    assert uncharted.rankings == {}
    assert set(uncharted.table.role) == {"unknown"}
    assert not uncharted.table.in_circuit.any()
    assert uncharted.table.d_kl.equals(planted.table.d_kl)
    assert "No circuit is known for this model" in answer(uncharted)


def test_swapping_sides_flips_signs_and_keeps_rankings(planted: Any) -> None:
    """|shift| knows no direction."""
    swapped = analyse(planted.control, planted.active, CIRCUIT)
    np.testing.assert_allclose(swapped.table.d_kl, -planted.table.d_kl)
    assert swapped.rankings["|dKL|"].auroc == planted.rankings["|dKL|"].auroc


def test_analysis_is_reproducible(planted: Any) -> None:
    """The same records give the same numbers, intervals and permutation p's included."""
    again = analyse(planted.active, planted.control, CIRCUIT)
    assert again.table.equals(planted.table)
    assert again.rankings == planted.rankings


def test_sides_of_different_sizes_and_lengths_are_compared_with_a_note() -> None:
    """12 prompts of 15 tokens against 9 of 13: allowed, each row by its own n, and said."""
    active = toy_side(seed=1, n=12)
    control = toy_record(random_rows(9, LAYERS, HEADS, 13))
    (note,) = analyse(active, control).notes
    assert "Active prompts have 15 tokens and control prompts 13" in note


def test_equal_sets_are_said() -> None:
    """The same prompts on both sides, in whatever order: nothing can shift, and the reader is told."""
    side = toy_side(seed=1)
    (note,) = analyse(side, side.subset(range(19, -1, -1))).notes
    assert note == "Both sets hold the same prompts: nothing can shift between them."


def test_prompts_that_are_all_alike_are_said() -> None:
    """One prompt said 12 times is no spread over prompts."""
    record = toy_side(seed=1, n=12)
    alike = AttentionRecord([record.prompts[0]] * 12, record.rows, "END", "toy")
    notes = analyse(alike, toy_side(seed=2, n=11)).notes
    assert "Active set: 11 of the 12 prompts repeat an earlier one and are counted again." in notes
    assert [note for note in notes if note.startswith("The active prompts are all alike")]
    assert not [note for note in notes if note.startswith("The control prompts are all alike")]


@pytest.mark.parametrize(
    ("n", "m", "says"), [(2, 2, "can't be reached"), (5, 4, "needs 10 heads that do"), (9, 10, "")]
)
def test_too_few_prompts_are_said(n: int, m: int, says: str) -> None:
    """p of complete separation x 24 heads / 0.05 = how many heads must shift so; (5, 4) gives 0.0200 x 24 / 0.05 = 9.6."""
    notes = analyse(toy_side(seed=1, n=n), toy_record(toy_side(seed=2, n=m).rows, lengths=[KEYS] * m)).notes
    few = [note for note in notes if note.startswith(f"With {n} and {m} prompts")]
    assert len(few) == bool(says)
    assert all(f"q < 0.05 over 24 heads {says}." in note for note in few)


def _with_all(side: Any) -> Any:
    return toy_record(causal_rows([KEYS] * 3, LAYERS, HEADS), query="all")


def _of_another_shape(side: Any) -> Any:
    return toy_record(random_rows(20, LAYERS, HEADS + 1, KEYS))


def _at_s2(side: Any) -> Any:
    prompts = [toy_prompt(KEYS, i, S2=KEYS - 1) for i in range(len(side.prompts))]
    return AttentionRecord(prompts, side.rows, "S2", side.model)


def _of_bos_alone(side: Any) -> Any:
    rows = random_rows(20, LAYERS, HEADS, 1)
    return toy_record(rows)


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "all queries": (_with_all, "expected the rows of one query position; choose one with record.at"),
    "other model": (lambda side: toy_record(side.rows, model="gpt2"), "control: expected the same model as the active record, 'toy', got 'gpt2'"),
    "other query": (_at_s2, "control: expected the same query as the active record, 'END', got 'S2'"),
    "other heads": (_of_another_shape, r"control: expected the heads of active, \(4, 6\), got \(4, 7\)"),
    "one key": (_of_bos_alone, "a row with one visible key has no normalised KL"),
    "one prompt": (lambda side: side.subset([0]), "expected at least 2 prompts"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), BAD.values(), ids=BAD)
def test_refuses(spoil: Any, words: str) -> None:
    """Records that can't be compared are refused by one sentence."""
    with pytest.raises(ValueError, match=words):
        analyse(toy_side(seed=1), spoil(toy_side(seed=2)), CIRCUIT)


def test_refuses_the_circuit_of_another_model() -> None:
    """A circuit belongs to a shape of model."""
    from helpers import IOI_POST

    with pytest.raises(
        ValueError, match=r"circuit: expected heads of a model of shape \(4, 6\).*got \"IOI, the post's 23\""
    ):
        analyse(toy_side(seed=1), toy_side(seed=2), IOI_POST)
