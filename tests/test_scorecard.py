"""The scorecard passes a run that has the published figures, and names what does not agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from models import random_rows, toy_prompt, toy_record
from scipy.optimize import least_squares
from scipy.special import log_softmax, softmax

from helpers.attention.record import AttentionRecord
from helpers.diagnostics.heads import HeadDiagnostics
from helpers.experiment import Experiment, analyse
from helpers.reference import published
from helpers.reference.circuits import IOI_POST
from helpers.scorecard import as_text, scorecard, summary


@pytest.fixture(scope="module")
def random_run() -> Experiment:
    """Random attention rows in the shape of the post's protocol."""
    sides = []
    for seed in (0, 1):
        record = toy_record(random_rows(50, 12, 12, 15, seed=seed))
        prompts = [toy_prompt(15, number, C=9) for number in range(50)]
        sides.append(replace(record, prompts=prompts))
    return analyse(*sides, IOI_POST)


@pytest.fixture(scope="module")
def published_run(random_run: Experiment) -> Experiment:
    """The random run with the published means written over its table."""
    return with_published_means(random_run)


def with_published_means(run: Experiment, nudge: dict[tuple[int, int], float] | None = None) -> Experiment:
    table = run.table.set_index(["layer", "head"])
    columns = ["kl_active", "kl_control", "d_kl", "chi_active", "chi_control", "d_chi"]
    for frame in (published.circuit_heads(), published.OTHER_HEADS):
        for row in frame.itertuples():
            values = [getattr(row, column) for column in columns]
            table.loc[(row.layer, row.head), columns] = np.array(values) + (nudge or {}).get((row.layer, row.head), 0.0)
    return replace(run, table=table.reset_index())


def row_with(kl: float, chi: float, n: int = 15) -> np.ndarray:
    """A row of n weights with the given normalised KL and chi, by least squares over its scores from several starts."""

    def miss(z: np.ndarray) -> np.ndarray:
        row = softmax(z)
        log_row, log_n = log_softmax(z), np.log(n)
        mean = row @ log_row
        return np.array([(log_n + mean) / log_n - kl, row @ (log_row - mean) ** 2 / log_n**2 - chi])

    rng = np.random.default_rng(0)
    starts = [
        rng.normal(0, spread, n) + favourite * np.eye(n)[0] for favourite in (1, 3, 6, 9) for spread in (0.3, 1, 2, 4)
    ]
    fits = []
    for start in starts:
        fits.append(least_squares(miss, start, xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=200))
        if fits[-1].cost < 1e-10:
            break
    return softmax(min(fits, key=lambda fit: fit.cost).x)


@pytest.fixture(scope="module")
def published_records(random_run: Experiment) -> list[AttentionRecord]:
    """Attention records whose rows have the published means, head by head, in every prompt; other heads are random."""
    sides = []
    for record, kl, chi in (
        (random_run.active, "kl_active", "chi_active"),
        (random_run.control, "kl_control", "chi_control"),
    ):
        rows = record.rows.clone()
        for frame in (published.circuit_heads(), published.OTHER_HEADS):
            for head in frame.itertuples():
                rows[:, head.layer, head.head] = torch.tensor(row_with(getattr(head, kl), getattr(head, chi))).float()
        sides.append(replace(record, rows=rows))
    return sides


def test_a_record_with_the_published_means_passes(published_records: list[AttentionRecord]) -> None:
    """Rows built to have the published KL and chi pass all 150 lines about heads, from the record on."""
    heads = scorecard(analyse(*published_records, IOI_POST)).query("section == 'heads'")
    assert heads.agrees.all(), heads[~heads.agrees].to_string()


def test_a_record_with_one_head_nudged_fails_for_that_head(published_records: list[AttentionRecord]) -> None:
    """Head 9.6 with its active KL 0.002 higher fails exactly the lines of 9.6 that depend on it."""
    head = published.circuit_heads().query("layer == 9 and head == 6").iloc[0]
    active, control = published_records
    rows = active.rows.clone()
    rows[:, 9, 6] = torch.tensor(row_with(head.kl_active + 0.002, head.chi_active)).float()
    heads = scorecard(analyse(replace(active, rows=rows), control, IOI_POST)).query("section == 'heads'")
    assert set(heads[~heads.agrees].what) == {"9.6 kl_active", "9.6 d_kl"}


def test_a_random_model_fails(random_run: Experiment) -> None:
    """Random rows agree with next to nothing: the exit status would be 1."""
    card = scorecard(random_run)
    assert card.agrees.sum() < 0.1 * len(card)
    assert summary(card).endswith(f"of {len(card)} published figures agree")


def test_published_means_pass(published_run: Experiment) -> None:
    """With the published means in the table, all 150 lines about heads agree (25 heads, six quantities)."""
    heads = scorecard(published_run).query("section == 'heads'")
    assert len(heads) == 25 * 6
    assert heads.agrees.all()


def test_one_nudged_head_fails_alone(random_run: Experiment) -> None:
    """A head moved by 0.002 fails exactly its own lines."""
    heads = scorecard(with_published_means(random_run, {(9, 6): 0.002})).query("section == 'heads'")
    assert set(heads[~heads.agrees].what.str.split().str[0]) == {"9.6"}
    assert (~heads.agrees).sum() == 6


def test_a_nudge_within_the_printed_precision_passes(random_run: Experiment) -> None:
    """0.0004 is inside the stated tolerance of 0.0005."""
    heads = scorecard(with_published_means(random_run, {(9, 6): 0.0004})).query("section == 'heads'")
    assert heads.agrees.all()


def test_tests_come_from_the_rankings(random_run: Experiment) -> None:
    """Rankings with the published U, p, means and sds pass the tests section; U off by one fails its own line."""
    rankings = {}
    for row in published.TESTS.itertuples():
        fields = {k: getattr(row, k) for k in ("u", "p", "mean_circuit", "sd_circuit", "mean_other", "sd_other")}
        rankings[row.statistic] = replace(random_run.rankings[row.statistic], **fields)
    tests = scorecard(replace(random_run, rankings=rankings)).query("section == 'tests'")
    assert tests.agrees.all()
    rankings["|dKL|"] = replace(rankings["|dKL|"], u=rankings["|dKL|"].u + 1)
    tests = scorecard(replace(random_run, rankings=rankings)).query("section == 'tests'")
    assert list(tests[~tests.agrees].what) == ["|dKL| U"]


def test_idle_heads_look_where_the_rows_say(random_run: Experiment) -> None:
    """4.11 set to one-hot on the previous token in every ABC prompt agrees; on BOS it does not."""
    for target, agrees in ((13, True), (0, False)):
        rows = random_run.control.rows.clone()
        rows[:, 4, 11] = 0.0
        rows[:, 4, 11, target] = 1.0
        card = scorecard(replace(random_run, control=replace(random_run.control, rows=rows)))
        line = card[card.what.str.startswith("4.11 looks at the previous token")].iloc[0]
        assert line.agrees == agrees


def test_per_prompt_correlation_is_over_all_points(random_run: Experiment) -> None:
    """KL = chi in every prompt and head gives a correlation of 1."""
    same = HeadDiagnostics(random_run.kl_chi_active.kl, random_run.kl_chi_active.kl)
    card = scorecard(replace(random_run, kl_chi_active=same))
    assert card.set_index("what").measured["KL, chi (per prompt)"] == pytest.approx(1)


def test_text_shows_every_line_with_its_tolerance(random_run: Experiment) -> None:
    """The printed card has a line a figure, with published, measured, tolerance and verdict."""
    card = scorecard(random_run)
    text = as_text(card)
    assert text.count(" NO") + text.count(" yes") == len(card)
    assert "0.0005" in text


def test_refuses_another_protocol(random_run: Experiment) -> None:
    """Fewer prompts, or no circuit, is not the post's protocol."""
    few = analyse(random_run.active.subset(range(10)), random_run.control.subset(range(10)), IOI_POST)
    with pytest.raises(ValueError, match=r"expected the post's 50 \+ 50 prompts.*got 10 \+ 10"):
        scorecard(few)
    with pytest.raises(ValueError, match="with its circuit"):
        scorecard(analyse(random_run.active, random_run.control))
