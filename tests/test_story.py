"""The experiment of notebook 03, told from records made here: counts, sentences and tables that follow from the numbers."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import CIRCUIT, HEADS, KEYS, LAYERS, random_rows, toy_prompt
from torch import Tensor

from helpers.attention.record import AttentionRecord
from helpers.design import Q
from helpers.experiment import analyse
from helpers.measured.shipped import shipped_record
from helpers.story import (
    Story,
    aurocs,
    counts_in_words,
    coupling_in_words,
    depth_in_words,
    directions_in_words,
    named_circuit,
    one_length,
    parking_in_words,
    shift_counts,
    story_of,
)
from helpers.twins import (
    BY_REST,
    BY_SINK,
    CHANGES,
    MOVES,
    SAME_PLACE,
    SAME_SHAPE,
    STAYS,
    change_counts,
    example_heads,
    looks_table,
    row_changes,
    weight_at,
)

NAMED = {"IO": 2, "S1": 4, "S2": 10}


def side(rows: Tensor, *, first: int = 0, lengths: list[int] | None = None, model: str = "toy") -> AttentionRecord:
    """A record at END of prompts that name IO, S1 and S2."""
    lengths = lengths or [rows.shape[-1]] * len(rows)
    named = {name: min(place, min(lengths) - 2) for name, place in NAMED.items()}
    prompts = [toy_prompt(length, first + k, **named) for k, length in enumerate(lengths)]
    return AttentionRecord(prompts, rows, "END", model)


def toy_story(n_layers: int = LAYERS, n_heads: int = HEADS, *, circuit: object = CIRCUIT, n: int = 16) -> Story:
    """A story of random rows, whose later heads are sharper on IOI prompts."""
    rows = [random_rows(n, n_layers, n_heads, KEYS, seed=k) for k in range(4)]
    for k in (0, 2):
        rows[k][:, n_layers // 2 :] = rows[k][:, n_layers // 2 :] ** 2
        rows[k] = rows[k] / rows[k].sum(-1, keepdim=True)
    sides = [side(r, first=100 * k) for k, r in enumerate(rows)]
    return story_of(*sides, circuit=circuit)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def story() -> Story:
    return toy_story()


def test_one_length_keeps_the_length_both_sides_share_most_of() -> None:
    """Of lengths 12 (3 and 4 prompts) and 15 (5 and 2) the first is kept: 3 is more than 2; all rows then have one n."""
    rows = torch.zeros(8, 2, 2, 15)
    lengths = [12] * 3 + [15] * 5, [12] * 4 + [15] * 2
    for row, length in zip(rows, lengths[0], strict=True):
        row[..., :length] = 1 / length
    sides = side(rows, lengths=lengths[0]), side(rows[[0, 1, 2, 0, 3, 4]], lengths=lengths[1])
    kept = one_length(*sides)
    assert [[len(p) for p in record.prompts] for record in kept] == [[12] * 3, [12] * 4]
    assert {int(n) for record in kept for n in record.visible().sum(-1).unique()} == {12}
    assert [p.ids for p in kept[0].prompts] == [p.ids for p in sides[0].prompts[:3]]


def test_one_length_leaves_what_it_cannot_help() -> None:
    """Sides that are of one length each, or share fewer than two prompts of any, come back as the same objects."""
    rows = random_rows(3, 2, 2, 12, seed=1)
    plain = side(rows), side(random_rows(3, 2, 2, 15, seed=2))
    assert all(a is b for a, b in zip(one_length(*plain), plain, strict=True))
    mixed = side(torch.cat([rows, torch.zeros(3, 2, 2, 3)], -1), lengths=[12, 11, 10]), plain[1]
    assert all(a is b for a, b in zip(one_length(*mixed), mixed, strict=True))


def test_the_post_s_prompts_on_smollm2() -> None:
    """Of the hundred prompts 43 and 48 have 15 tokens; without them the story is the experiment of all, as shipped."""
    sides = [shipped_record("smollm2", name).at("END") for name in ("ioi", "abc")]
    assert [len(record.prompts) for record in one_length(*sides)] == [43, 48]


def test_counts_are_those_of_the_table(story: Story) -> None:
    """The four counts add up to all heads, and each is the number of rows with its two properties."""
    table, counts = story.sets.table, shift_counts(story.sets)
    assert counts.to_numpy().sum() == LAYERS * HEADS
    assert counts.circuit["shift"] == len(table.query("in_circuit and d_kl_q < @Q", local_dict={"Q": Q}))
    assert counts.others["do not"] == len(table.query("not in_circuit and d_kl_q >= @Q", local_dict={"Q": Q}))
    chi = shift_counts(story.sets, "d_chi")
    assert chi.loc["shift"].sum() == (table.d_chi_q < Q).sum()


def test_counts_in_words_say_the_counts(story: Story) -> None:
    """The numbers of the sentence are the counts and their margins, in its order."""
    counts = shift_counts(story.sets)
    said = [int(number) for number in re.findall(r"\b\d+\b", counts_in_words(story.sets))]
    moved = counts.loc["shift"]
    assert said == [moved.circuit, counts.circuit.sum(), moved.others, counts.others.sum(), moved.sum(), moved.circuit]


def test_depth_in_words_says_mean_layers(story: Story) -> None:
    """Mean layer of the circuit, of the others and of heads that shift, as the table has them."""
    table = story.sets.table
    means = [table[mask].layer.mean() for mask in (table.in_circuit, ~table.in_circuit, table.d_kl_q < Q)]
    assert all(f"{mean:.1f}" in depth_in_words(story.sets) for mean in means)
    still = analyse(story.sets.active, story.sets.active, CIRCUIT)
    assert "no head shifts" in depth_in_words(still)


def test_directions_in_words_count_the_quadrants(story: Story) -> None:
    """The first number is of circuit heads that shift, and the four others are its quadrants and add up to it."""
    table = story.sets.table
    some = table[table.in_circuit & (table.d_kl_q < Q)]
    said = [int(number) for number in re.findall(r"\b\d+\b", directions_in_words(story.sets))]
    assert len(some) > 1
    assert said[0] == len(some) == sum(said[1:])
    assert said[1] == ((some.d_kl > 0) & (some.d_chi > 0)).sum()
    assert said[3] == ((some.d_kl <= 0) & (some.d_chi > 0)).sum()
    assert "no circuit head shifts" in directions_in_words(analyse(story.sets.active, story.sets.active, CIRCUIT))


def test_parking_counts_heads_with_most_weight_on_bos() -> None:
    """Two of four heads put most on key 0 in more than half of the control prompts; one does so in half and doesn't count."""
    rows = torch.full((4, 2, 2, 15), 0.01)
    rows[..., 5] = 0.5
    rows[:, 0, 0, 0] = rows[:3, 1, 1, 0] = rows[:2, 0, 1, 0] = 0.9
    rows /= rows.sum(-1, keepdim=True)
    experiment = analyse(side(random_rows(4, 2, 2, 15, seed=3)), side(rows, first=50))
    assert "2 of the 4 heads" in parking_in_words(experiment)


def test_aurocs_are_the_rankings(story: Story) -> None:
    """Rows are the rankings of the experiment and their layer baseline; without a circuit there are none."""
    table, rankings = aurocs(story.sets), story.sets.rankings
    assert table.auroc["|dKL| at END"] == rankings["|dKL|"].auroc
    assert table.within_p["|dchi| at END"] == rankings["|dchi|"].within_p
    assert table.auroc["layer index"] == rankings["|dKL|"].layer_auroc
    assert len(aurocs(replace(story.sets, rankings={}))) == 0


def test_coupling_in_words_counts_pairs_with_a_circuit_head(story: Story) -> None:
    """With every head in the circuit all ten pairs have one; the head named most is in as many pairs as said."""
    said = coupling_in_words(story.sets, n_permutations=20)
    assert "of 20." in said
    everything = replace(CIRCUIT, roles={"all": tuple((a, b) for a in range(LAYERS) for b in range(HEADS))})
    assert "10 strongest pairs 10 have" in coupling_in_words(replace(story.sets, circuit=everything), n_permutations=20)


def test_named_circuit_keeps_the_heads() -> None:
    """Roles by behaviour divide the same heads; a model whose roles were not measured keeps its own; unknown ones have none."""
    from helpers.reference import circuit_of

    for model in ("smollm2", "demo"):
        assert sorted(named_circuit(model).heads) == sorted(circuit_of(model).heads)  # type: ignore[union-attr]
    assert named_circuit("demo").roles == circuit_of("demo").roles  # type: ignore[union-attr]
    assert named_circuit("no such model") is None


# ---- twins


def twins(n: int = 24) -> tuple[AttentionRecord, AttentionRecord]:
    """One layer of five heads, each doing one of `CHANGES` in every pair, with a little noise."""
    rng = np.random.default_rng(0)
    rows = np.full((2, n, 1, 5, 15), 0.01)
    rows[:, :, 0, 0, NAMED["S2"]] = 1.0  # looks at the giver either way
    rows[:, :, 0, 1, 14] = 1.0  # stays: looks at itself
    rows[0, :, 0, 2, NAMED["IO"]] = rows[1, :, 0, 2, NAMED["S1"]] = 1.0  # moves, same shape
    rows[0, :, 0, 3, 0], rows[1, :, 0, 3, 0] = 3.0, 0.05  # parks more
    rows[:, :, 0, 4, 0] = 0.01
    rows[0, :, 0, 4, NAMED["IO"]], rows[1, :, 0, 4, NAMED["IO"]] = 1.0, 0.1  # settles on IO
    rows *= rng.uniform(0.99, 1.01, size=rows.shape)
    rows[0, :, 0, 2], rows[1, :, 0, 2] = rows[0, :, 0, 2], rows[0, :, 0, 2]
    rows[1, :, 0, 2][:, [NAMED["IO"], NAMED["S1"]]] = rows[0, :, 0, 2][:, [NAMED["S1"], NAMED["IO"]]]
    rows /= rows.sum(-1, keepdims=True)
    one, other = (side(torch.from_numpy(r)) for r in rows)
    return one, replace(other, prompts=[replace(p, ids=(*p.ids[:-1], 998)) for p in other.prompts])


def test_each_kind_of_change_is_told() -> None:
    """Five heads made to do the five things are sorted into the five kinds, in order."""
    changes = row_changes(analyse(*twins()))
    assert changes.change.tolist() == [SAME_PLACE, STAYS, SAME_SHAPE, BY_SINK, BY_REST]
    assert change_counts(changes)["all heads"].tolist() == [1, 1, 1, 1, 1]
    assert list(change_counts(changes).index) == list(CHANGES)


def test_swapping_two_weights_moves_attention_and_keeps_kl() -> None:
    """Where IO and S1 swap weights, total variation is the difference of the two weights and the shift of KL is 0."""
    pairs = analyse(*twins())
    row = row_changes(pairs).iloc[2]
    rows = pairs.active.rows[:, 0, 2].numpy()
    assert np.isclose(row.moved, (rows[:, NAMED["IO"]] - rows[:, NAMED["S1"]]).mean())
    assert row.d_kl == pytest.approx(0, abs=1e-12)


def test_the_parts_of_a_shift_add_up() -> None:
    """The part of dKL about BOS and the part beyond it sum to dKL."""
    changes = row_changes(analyse(*twins()))
    assert np.allclose(changes.d_kl_sink_part + changes.d_kl_rest_part, changes.d_kl)


def test_unmatched_sides_are_refused() -> None:
    """Sides with other numbers of prompts have no twins."""
    one, other = twins()
    with pytest.raises(ValueError, match=r"pairs: expected sides matched"):
        row_changes(analyse(one, other.subset(range(5))))


def test_weight_at_a_named_position() -> None:
    """The mean of the weights at S2; 0 where no prompt names the position."""
    one, _ = twins()
    assert np.allclose(weight_at(one, "S2"), one.rows[..., NAMED["S2"]].mean(0))
    assert not weight_at(one, "nobody").any()


def test_looks_table_prints_both_sides() -> None:
    """Each cell is the mean weight on one side, and in brackets on the other."""
    one, other = twins()
    pairs = analyse(one, other)
    cell = looks_table(pairs, row_changes(pairs)).IO["0.4"]
    assert cell == f"{one.rows[:, 0, 4, 2].mean():.2f} ({other.rows[:, 0, 4, 2].mean():.2f})"


def test_example_heads_are_chosen_by_rule() -> None:
    """First the largest |dKL| between twins; then, of heads that keep their shape, the one with most on the giver or moving."""
    pairs = analyse(*twins())
    changes = row_changes(pairs)
    first, second = example_heads(pairs)
    assert first == (0, int(changes.d_kl.abs().to_numpy().argmax()))
    kept = changes.loc[[0, 1, 2]]
    assert second == (0, int((kept.moved + kept.giver).idxmax()))


@pytest.mark.parametrize(("n_layers", "n_heads"), [(2, 4), (12, 12)])
def test_any_shape_without_a_circuit(n_layers: int, n_heads: int) -> None:
    """A two-layer model and the shape of GPT-2 small: counts are of all heads, sentences say that no circuit is known."""
    told = toy_story(n_layers, n_heads, circuit=None)
    assert shift_counts(told.sets)["all heads"].sum() == n_layers * n_heads
    assert change_counts(row_changes(told.pairs))["all heads"].sum() == n_layers * n_heads
    for words in (counts_in_words, depth_in_words, coupling_in_words):
        assert "no circuit is known" in words(told.sets)
    assert (row_changes(told.pairs).moved >= MOVES).any()
