"""What notebook 03 reads out of the published figures of GPT-2 small, counted again from the tables."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.reference import (
    FLOW,
    IOI_POST,
    auroc_interval,
    directions,
    idle_table,
    pair_in_words,
    prediction_in_words,
    published,
    published_aurocs,
    unmoved_in_words,
    working_at_end,
)


def test_seventeen_heads_work_at_end() -> None:
    """The heads that work at END and those that don't are the 23, each once."""
    at_end, earlier = working_at_end(True), working_at_end(False)
    assert (len(at_end), len(earlier)) == (17, 6)
    assert len(at_end) + len(earlier) == len(published.circuit_heads())
    assert not set(at_end.role) & set(earlier.role)


def test_directions_count_the_quadrants() -> None:
    """13 heads rise in both, 9.0, 9.7 and 8.6 in KL alone, and 7.3 falls in both; all other quadrants are empty."""
    table, counted = working_at_end(True), directions()
    assert counted.sum() == len(table)
    assert counted["KL up, chi up"] == ((table.d_kl > 0) & (table.d_chi > 0)).sum() == 13
    alone = table[(table.d_kl > 0) & (table.d_chi < 0)]
    assert set(zip(alone.layer, alone["head"], strict=True)) == {(9, 0), (9, 7), (8, 6)}
    assert counted["KL up, chi down"] == 3
    assert counted["KL down, chi down"] == 1


def test_the_prediction_is_read_from_the_means() -> None:
    """The sentence has the four means of the table and both counts."""
    table, said = working_at_end(True), prediction_in_words()
    for name in ("kl_control", "kl_active", "chi_control", "chi_active"):
        assert f"{table[name].mean():.2f}" in said
    assert "16 of 17" in said
    assert "chi falls in 4" in said


def test_heads_that_hardly_move_are_named() -> None:
    """9.0, 9.7, 10.10 and 7.3 shift KL by at most a thousandth more than the mean of the other heads, and no others do."""
    table, other = working_at_end(True), published.TESTS.mean_other[0]
    assert (table.d_kl.abs() < other + 0.001).sum() == 4
    assert "9.0 9.7 10.10 7.3" in unmoved_in_words()


def test_idle_heads_have_their_roles() -> None:
    """One row for each published head, under the role that the post gives it."""
    table = idle_table().set_index("head")
    assert table.role["9.9"] == "Name Mover"
    assert table.role["4.11"] == "Previous Token"
    assert table["in"]["7.3"] == "not given"
    assert table["in"]["9.6"] == "80% of prompts"


def test_interval_is_right_for_exponential_scores() -> None:
    """For exponential scores the formula is exact: 1.96 standard deviations of simulated AUROCs, within simulation error."""
    rng, m, n, scale = np.random.default_rng(0), 23, 121, 3.0
    circuit, others = rng.exponential(scale, (4000, m)), rng.exponential(1.0, (4000, n))
    simulated = np.array([(c[:, None] > o).mean() for c, o in zip(circuit, others, strict=True)])
    low, high = auroc_interval(scale / (1 + scale), m, n)
    assert simulated.mean() == pytest.approx(scale / (1 + scale), abs=0.003)
    assert (high - low) / 2 == pytest.approx(1.96 * simulated.std(), rel=0.05)


def test_interval_of_perfect_and_impossible_values() -> None:
    """A = 1 leaves nothing to vary; with one head a side only A (1 - A) is left; nonsense is refused."""
    assert auroc_interval(1.0, 5, 7) == (1.0, 1.0)
    low, high = auroc_interval(0.5, 1, 1)
    assert (low, high) == (0.0, 1.0)  # 0.5 -+ 1.96 * 0.5, cut to [0, 1]
    with pytest.raises(ValueError, match=r"auroc: expected a number from 0 to 1, got 1\.2"):
        auroc_interval(1.2, 5, 7)
    with pytest.raises(ValueError, match=r"n_circuit, n_other: expected at least 1"):
        auroc_interval(0.7, 0, 7)


def test_published_aurocs_stand_inside_their_intervals() -> None:
    """Every value lies in its interval; the post's two are U / (23 * 121); the layer's is `layer_auroc`."""
    table = published_aurocs()
    assert ((table.low < table.auroc) & (table.auroc < table.high)).all()
    assert np.allclose(table.auroc[["|dKL| at END", "|dchi| at END"]], published.TESTS.u / (23 * 121))
    assert table.auroc["layer index"] == published.layer_auroc()
    assert table.within["layer index"] == 0.5


def test_the_strongest_pair() -> None:
    """8.1 and 9.6; the change is the difference of the two correlations, and 5.0 of the published sd."""
    top, said = published.outlier_pairs().iloc[0], pair_in_words()
    assert top.c_ioi - top.c_non_ioi == pytest.approx(top.c_diff, abs=0.0015)
    assert said.startswith("8.1 and name mover 9.6")
    assert "-1.274" in said
    assert "5.0 standard deviations" in said


def test_flow_is_between_roles_of_the_circuit() -> None:
    """Every arrow of the diagram joins two of the seven roles, and every role is on an arrow."""
    assert {role for pair in FLOW for role in pair} == set(IOI_POST.roles)
