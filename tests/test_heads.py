"""KL and chi of every head of a record, against the row functions one row at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from models import causal_rows, random_rows, toy_prompt, toy_record
from torch import Tensor

from helpers.attention.record import AttentionRecord
from helpers.diagnostics.heads import diagnose, diagnose_sink
from helpers.diagnostics.rows import kl_selectivity, susceptibility


def by_hand(weights: Tensor) -> tuple[float, float]:
    """(KL, chi), normalised, of one row over its visible keys, in plain numpy; NaN for a single key."""
    row = weights.double().numpy()
    row, log_n = row / row.sum(), np.log(len(row))
    if len(row) == 1:
        return math.nan, math.nan
    log_pi = np.log(np.where(row > 0, row, 1))
    mean = row @ log_pi
    return (log_n + mean) / log_n, row @ (log_pi - mean) ** 2 / log_n**2


def test_one_position_row_by_row() -> None:
    """kl[i, l, h] and chi[i, l, h] are kl_selectivity and susceptibility of that row alone, and the textbook sums."""
    record = toy_record(random_rows(4, 2, 3, 15, spread=2))
    found = diagnose(record)
    assert found.kl.shape == found.chi.shape == (4, 2, 3)
    for index in np.ndindex(4, 2, 3):
        row = record.rows[index]
        assert found.kl[index] == pytest.approx(kl_selectivity(row).item(), rel=1e-12)
        assert found.chi[index] == pytest.approx(susceptibility(row).item(), rel=1e-12)
        assert (found.kl[index], found.chi[index]) == pytest.approx(by_hand(row), rel=1e-9)


def test_shorter_prompts_are_normalised_by_their_own_n() -> None:
    """Lengths 6, 3 and 2 in one record: each row is diagnosed over its own keys, by the log of its own n."""
    lengths = [6, 3, 2]
    record = toy_record(causal_rows(lengths), query="all", lengths=lengths).at("END")
    found = diagnose(record)
    for i, n in enumerate(lengths):
        for index in np.ndindex(2, 3):
            kl, chi = by_hand(record.rows[i][index][:n])
            assert (found.kl[i][index], found.chi[i][index]) == pytest.approx((kl, chi), rel=1e-6)


@pytest.mark.parametrize("windows", [(), (0, 3)])
def test_all_queries(windows: tuple[int, ...]) -> None:
    """query="all": query t over its t + 1 keys (3 at most in the layer with a window); NaN at query 0 and past the end."""
    lengths = [6, 4]
    rows = causal_rows(lengths)
    if windows:
        rows[:, 1:] = causal_rows(lengths, 1, window=3, seed=1)
    record = toy_record(rows, query="all", lengths=lengths, windows=windows)
    found = diagnose(record)
    assert found.kl.shape == found.chi.shape == (2, 2, 3, 6)
    for i, layer, head, t in np.ndindex(2, 2, 3, 6):
        got = found.kl[i, layer, head, t], found.chi[i, layer, head, t]
        if t == 0 or t >= lengths[i]:
            assert np.isnan(got).all()
            continue
        first = max(0, t - 2) if windows and layer == 1 else 0
        assert got == pytest.approx(by_hand(rows[i, layer, head, t, first : t + 1]), rel=1e-5, abs=1e-9)


def test_one_position_of_all_is_the_same_number() -> None:
    """Diagnosing all queries and taking S2 = taking S2 and diagnosing it."""
    prompts = [toy_prompt(6, 0, S2=4), toy_prompt(5, 1, S2=2)]
    rows = causal_rows([6, 5])
    rows[:, 1:] = causal_rows([6, 5], 1, window=2, seed=1)
    record = AttentionRecord(prompts, rows, "all", "toy", windows=(0, 2))
    everything, one = diagnose(record), diagnose(record.at("S2"))
    for name in ("kl", "chi"):
        chosen = np.stack([getattr(everything, name)[i, :, :, t] for i, t in enumerate([4, 2])])
        np.testing.assert_allclose(getattr(one, name), chosen, rtol=1e-12)


def test_known_rows() -> None:
    """Uniform: (0, 0). One key: (1, 0). Two equal keys of four: (1/2, 0). Two rivals (1/2, 1/4, 1/8, 1/8): KL 1/8."""
    rows = torch.tensor([[0.25] * 4, [0, 1, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0.25, 0.125, 0.125]])
    found = diagnose(toy_record(rows.view(4, 1, 1, 4)))
    np.testing.assert_allclose(found.kl[:, 0, 0], [0, 1, 0.5, 0.125], atol=1e-12)
    # log2 pi: -1, -2, -3 with weights 1/2, 1/4, 1/4: variance 11/16; divided by (log2 4)^2 = 4
    np.testing.assert_allclose(found.chi[:, 0, 0], [0, 0, 0, 11 / 64], atol=1e-12)


def test_a_prompt_of_bos_alone_is_nan() -> None:
    """n = 1 has no normalised KL: NaN, and the other prompts keep their numbers."""
    lengths = [1, 4]
    found = diagnose(toy_record(causal_rows(lengths), query="all", lengths=lengths).at("END"))
    assert np.isnan(found.kl[0]).all()
    assert np.isnan(found.chi[0]).all()
    assert np.isfinite(found.kl[1]).all()


def test_rows_that_are_no_distributions_are_refused() -> None:
    """A record whose rows do not sum to 1, or put weight on keys of another prompt, is refused by the row check."""
    rows = random_rows(2, 1, 1, 5)
    with pytest.raises(ValueError, match="pi: expected rows that sum to 1"):
        diagnose(toy_record(rows * 0.9))
    with pytest.raises(ValueError, match="pi: expected weight 0 on keys that are not visible"):
        diagnose(toy_record(rows, lengths=[5, 3]))


def test_records_are_not_changed() -> None:
    """Rows are the same before and after."""
    record = toy_record(causal_rows([4, 2]), query="all", lengths=[4, 2])
    before = record.rows.clone()
    diagnose(record)
    assert torch.equal(record.rows, before)


@pytest.mark.parametrize(("window", "seen"), [(3, False), (4, True)])
def test_a_sink_that_is_just_out_of_view(window: int, seen: bool) -> None:
    """END of 4 tokens sees keys 1 to 3 through a window of 3, and BOS through one of 4: only then has it a sink's share."""
    record = toy_record(causal_rows([4], 1, 2, window=window), query="all", lengths=[4], windows=(window,)).at("END")
    for part in vars(diagnose_sink(record)).values():
        assert np.isfinite(part).all() == np.isfinite(part).any() == seen
