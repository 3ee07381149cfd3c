"""Known circuits and published figures as data; the scorecard that compares a run with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from models import random_rows, toy_prompt

from helpers import analyse
from helpers.attention.record import AttentionRecord
from helpers.heads import PAIR, Head, head_index, pairs_of, parse_heads
from helpers.reference import published
from helpers.reference.circuits import (
    ACRONYMS,
    GREATER_THAN,
    IOI_CORE,
    IOI_PAPER,
    IOI_POST,
    Circuit,
    from_effects,
    from_roles,
)
from helpers.reference.demo import causal_heads, circuit_of
from helpers.scorecard import as_text, scorecard, summary
from helpers.statistics.ranking import auroc

DATA = Path(published.__file__).parent / "data"

# Circuits


@pytest.mark.parametrize(
    ("circuit", "count"), [(IOI_POST, 23), (IOI_PAPER, 26), (IOI_CORE, 13), (GREATER_THAN, 10), (ACRONYMS, 8)]
)
def test_circuits_have_their_heads(circuit: Circuit, count: int) -> None:
    """23, 26, 13, 10 and 8 heads of a 12 x 12 model, all distinct."""
    assert len(circuit.heads) == len(set(circuit.heads)) == count
    assert (circuit.n_layers, circuit.n_heads) == (12, 12)
    assert all(0 <= layer < 12 and 0 <= head < 12 for layer, head in circuit.heads)


def test_how_the_circuits_differ() -> None:
    """The paper's list is the post's and 0.10, 5.8 and 5.9; the core is part of the paper's."""
    assert set(IOI_PAPER.heads) - set(IOI_POST.heads) == {(0, 10), (5, 8), (5, 9)}
    assert set(IOI_POST.heads) < set(IOI_PAPER.heads)
    assert set(IOI_CORE.heads) < set(IOI_PAPER.heads)


def test_sizes_of_the_roles() -> None:
    """3 name movers, 8 backups, 2 negatives, 4 S-inhibition, and 2 each of the three early classes."""
    counts = Counter(IOI_POST.role(*head) for head in IOI_POST.heads)
    assert counts == {
        "Name Mover": 3, "Backup Name Mover": 8, "Negative Name Mover": 2, "S-Inhibition": 4, "Induction": 2,
        "Duplicate Token": 2, "Previous Token": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("head", "role"),
    [((9, 6), "Name Mover"), ((10, 10), "Backup Name Mover"), ((8, 10), "S-Inhibition"), ((0, 1), "Duplicate Token"),
     ((4, 11), "Previous Token"), ((0, 10), "other"), ((8, 1), "other")],
)  # fmt: skip
def test_roles(head: tuple[int, int], role: str) -> None:
    """Roles of the post's table; "other" outside."""
    assert IOI_POST.role(*head) == role


def layer_auroc(heads: tuple[tuple[int, int], ...]) -> float:
    """AUROC of the layer index for these heads among the 144 of GPT-2 small."""
    layer, head = np.divmod(np.arange(144), 12)
    return auroc(layer, [pair in heads for pair in zip(layer, head, strict=True)])


def test_depth_does_not_find_the_other_circuits() -> None:
    """Layer AUROC 0.437 (greater-than; 0.416 with 6.1 in the place of 8.8 and 5.1) and 0.566 (acronyms); IOI 0.726."""
    assert layer_auroc(GREATER_THAN.heads) == pytest.approx(0.437, abs=1e-3)
    others = (*(set(GREATER_THAN.heads) - {(8, 8), (5, 1)}), (6, 1))
    assert layer_auroc(others) == pytest.approx(0.416, abs=1e-3)
    assert layer_auroc(ACRONYMS.heads) == pytest.approx(0.566, abs=1e-3)
    assert all(0.42 < layer_auroc(circuit.heads) < 0.57 for circuit in (GREATER_THAN, ACRONYMS))
    assert layer_auroc(IOI_POST.heads) > 0.7


def test_other_circuits_are_the_published_lists() -> None:
    """Ten and eight heads as they were published, in one role each."""
    for circuit, text in (
        (GREATER_THAN, "9.1 8.11 7.10 6.9 5.5 8.8 5.1 0.1 0.3 0.5"),
        (ACRONYMS, "1.0 2.2 4.11 5.8 8.11 9.9 10.10 11.4"),
    ):
        assert circuit.roles == {"circuit": parse_heads(text)}


def test_heads_as_the_papers_write_them() -> None:
    """ "11.10" is layer 11, head 10; the order of the text is kept; nothing gives nothing."""
    assert parse_heads("11.10 0.1") == ((11, 10), (0, 1))
    assert parse_heads("") == ()


def test_circuit_from_pairs() -> None:
    """Heads grouped by role, roles in the order of their first head."""
    circuit = from_roles("x", 2, 3, [("b", (1, 1)), ("a", (0, 0)), ("b", (0, 2))], "made up")
    assert list(circuit.roles.items()) == [("b", ((1, 1), (0, 2))), ("a", ((0, 0),))]
    assert circuit.heads == ((1, 1), (0, 2), (0, 0))


def test_circuits_by_model_name() -> None:
    """GPT-2 small by any of its names has the post's circuit; an unknown model has none."""
    assert all(circuit_of(name) is IOI_POST for name in ("gpt2-small", "gpt2", "openai-community/gpt2"))
    assert circuit_of("/some/folder") is None


# Published figures


@pytest.mark.parametrize("name", sorted(file.name for file in DATA.glob("*.csv")))
def test_tables_are_the_published_ones(name: str, shared: Path) -> None:
    """The CSV files that ship are those of the digest, value by value."""
    pd.testing.assert_frame_equal(pd.read_csv(DATA / name), pd.read_csv(shared / "reference" / name))


def test_no_published_table_is_missing(shared: Path) -> None:
    """Every CSV file of the digest ships."""
    assert {f.name for f in DATA.glob("*.csv")} == {f.name for f in (shared / "reference").glob("*.csv")}


def test_published_heads_are_the_posts_circuit() -> None:
    """The table's 23 heads are IOI_POST's with the same roles, and each shift is the difference of its means."""
    table = published.circuit_heads()
    assert set(zip(table.layer, table["head"], strict=True)) == set(IOI_POST.heads)
    assert all(IOI_POST.role(row.layer, row.head) == row.role for row in table.itertuples())
    for name in ("kl", "chi"):
        np.testing.assert_allclose(table[f"d_{name}"], table[f"{name}_active"] - table[f"{name}_control"], atol=1.01e-4)


def test_published_pairs_are_differences() -> None:
    """C_diff = C_IOI - C_nonIOI, to three printed decimals, and the strongest pair is 8.1 with 9.6."""
    outliers = published.outlier_pairs()
    np.testing.assert_allclose(outliers.c_diff, outliers.c_ioi - outliers.c_non_ioi, atol=1.01e-3)
    pairs = published.top_pairs()
    assert len(pairs) == 50
    assert pairs.c_diff.abs().is_monotonic_decreasing
    assert (pairs.c_diff.min(), pairs.c_diff.max()) == published.COUPLING["c_diff"]


def test_published_patching_has_every_head() -> None:
    """144 rows in reading order."""
    table = published.head_patching()
    assert list(zip(table.layer, table["head"], strict=True)) == [(i // 12, i % 12) for i in range(144)]


# The scorecard, on made-up records of GPT-2 small's shape


def gpt2_shaped_side(seed: int) -> AttentionRecord:
    """50 prompts x 12 x 12 heads x 15 keys, random."""
    prompts = [toy_prompt(15, i, C=10) for i in range(50)]
    return AttentionRecord(prompts, random_rows(50, 12, 12, 15, seed=seed), "END", "gpt2-small")


@pytest.fixture(scope="module")
def run() -> Any:
    """An experiment whose table holds the published means of the circuit heads and of the two others."""
    experiment = analyse(gpt2_shaped_side(0), gpt2_shaped_side(1), IOI_POST)
    table = experiment.table.set_index(["layer", "head"])
    figures = pd.concat([published.circuit_heads(), published.OTHER_HEADS]).set_index(["layer", "head"])
    for column in ("kl_active", "kl_control", "d_kl", "chi_active", "chi_control", "d_chi"):
        table.loc[figures.index, column] = figures[column]
    return replace(experiment, table=table.reset_index())


def test_scorecard_agrees_with_an_exact_table(run: Any) -> None:
    """All 25 heads x 6 quantities agree when they are the published numbers, with difference 0."""
    card = scorecard(run)
    lines = card[card.section == "heads"]
    assert len(lines) == 25 * 6
    assert lines.agrees.all()
    assert (lines.measured == lines.published).all()


@pytest.mark.parametrize("nudge", [0.0006, -0.0006, 0.0004])
def test_scorecard_names_exactly_the_nudged_head(nudge: float, run: Any) -> None:
    """One number off by 0.0006 (more than 0.0005) is the one line that disagrees; off by 0.0004 none does."""
    table = run.table.copy()
    table.loc[(table.layer == 8) & (table["head"] == 10), "chi_control"] += nudge
    card = scorecard(replace(run, table=table))
    wrong = card[(card.section == "heads") & ~card.agrees]
    assert list(wrong.what) == (["8.10 chi_control"] if abs(nudge) > 0.0005 else [])


def test_random_rows_reproduce_nothing_else(run: Any) -> None:
    """Made-up rows do not reproduce the tests, and the summary counts what it says; every figure is in the text."""
    card = scorecard(run)
    tests = card[card.section == "tests"]
    assert len(tests) == 2 * 6
    assert not tests.agrees.all()
    assert summary(card) == f"{card.agrees.sum()} of {len(card)} published figures agree"
    text = as_text(card)
    assert text.count("yes") == card.agrees.sum()
    assert text.count("  NO") == (~card.agrees).sum()


def test_scorecard_missing_number_does_not_agree(run: Any) -> None:
    """NaN agrees with nothing."""
    card = scorecard(replace(run, correlations=run.correlations * np.nan))
    named = card.what.isin(published.CORRELATIONS.index)
    assert named.sum() == len(published.CORRELATIONS)
    assert not card[named].agrees.any()


def test_idle_heads_by_hand(run: Any) -> None:
    """Head 4.11 with weight 0.7 on the previous token of 15 of the first 20 prompts, 1.0 elsewhere: share 0.75, weight 0.775."""
    rows = run.control.rows.clone()
    rows[:, 4, 11] = 0
    rows[:15, 4, 11, 13] = 0.7
    rows[:15, 4, 11, 2] = 0.3
    rows[15:, 4, 11, 14] = 1.0
    control = AttentionRecord(run.control.prompts, rows, "END", "gpt2-small")
    card = scorecard(replace(run, control=control)).set_index("what").measured
    assert card["4.11 looks at the previous token: share of prompts"] == 0.75
    assert card["4.11 mean largest weight"] == pytest.approx(0.775)


def test_scorecard_refuses_another_protocol(planted: Any, run: Any) -> None:
    """Another shape, other numbers of prompts, or no circuit."""
    short = replace(run, active=run.active.subset(range(49)))
    for other in (planted, short, replace(run, rankings={})):
        with pytest.raises(ValueError, match=r"experiment: expected the post's 50 \+ 50 prompts"):
            scorecard(other)


def test_mask_marks_the_heads() -> None:
    """True at the heads and nowhere else, in the order of any table's rows; a circuit without heads has none."""
    inside = IOI_POST.mask(12, 12)
    assert inside.shape == (12, 12)
    assert sorted(map(tuple, np.argwhere(inside).tolist())) == sorted(IOI_POST.heads)
    table = head_index(12, 12).sample(frac=1, random_state=0)
    rows = [head in IOI_POST.heads for head in zip(table.layer, table["head"], strict=True)]
    assert inside[table.layer, table["head"]].tolist() == rows
    assert not Circuit("none", 2, 3, {}, "nobody").mask(2, 3).any()


@pytest.mark.parametrize("shape", [(12, 11), (11, 12), (13, 12)])
def test_mask_of_another_model(shape: tuple[int, int]) -> None:
    """A circuit of 12 x 12 heads is refused for another model, both shapes named."""
    with pytest.raises(
        ValueError, match=rf"^circuit: expected heads of a model of shape \({shape[0]}, {shape[1]}\) .* \(12, 12\)$"
    ):
        IOI_POST.mask(*shape)


def test_a_circuit_holds_heads() -> None:
    """Whatever pairs were given, roles and heads are `Head`; one that the model lacks is refused, and named."""
    circuit = Circuit("x", 2, 3, {"a": ((1, 2), (0, 1))}, "made up")
    assert [*map(str, circuit.heads)] == [*map(str, circuit.roles["a"])] == ["1.2", "0.1"]
    assert circuit == replace(circuit, roles={"a": (Head(1, 2), Head(0, 1))})
    with pytest.raises(ValueError, match=r"^roles: expected heads of 2 layers x 3 heads, got \(0, 3\)$"):
        Circuit("x", 2, 3, {"a": ((1, 2), (0, 3))}, "made up")


def test_published_tables_of_pairs() -> None:
    """Columns of a pair as every table of pairs has them: 8.1 with 9.6 leads both; in one, the second is in the circuit alone."""
    for table in (published.top_pairs(), published.outlier_pairs()):
        assert {*PAIR} <= {*table.columns}
        assert pairs_of(table)[0] == ((8, 1), (9, 6))
    assert {(one in IOI_POST.heads, other in IOI_POST.heads) for one, other in pairs_of(published.outlier_pairs())} == {
        (False, True)
    }


def test_circuit_by_position() -> None:
    """Roles are where heads act, in alphabetical order and reading order within; heads that are not causal are left out."""
    table = head_index(2, 3).assign(
        causal=[True, True, False, True, True, True], acts_at=["S2", "", "END", "in between", "END", "S2"]
    )
    circuit = from_effects("x", table, by_position=True, source="made up")
    assert list(circuit.roles.items()) == [
        ("acts at END", ((1, 1),)),
        ("acts at S2", ((0, 0), (1, 2))),
        ("acts in between", ((1, 0),)),
        ("acts somewhere", ((0, 1),)),
    ]
    assert (circuit.n_layers, circuit.n_heads, circuit.source) == (2, 3, "made up")
    assert from_effects("x", table).heads == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))


def test_circuit_from_effects() -> None:
    """The causal rows of a patching table are the circuit; its shape is the table's."""
    table = causal_heads("demo")
    circuit = from_effects("found again", table)
    assert set(circuit.heads) == set(circuit_of("demo").heads)
    assert (circuit.n_layers, circuit.n_heads, list(circuit.roles)) == (6, 8, ["causal"])
