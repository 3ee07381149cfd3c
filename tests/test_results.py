"""An experiment in words and files: what is said follows from the numbers, and results are written whole or not at all."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from models import CIRCUIT, causal_rows, toy_record

from helpers import AttentionRecord, analyse
from helpers.attention.record import Readout
from helpers.plots.figures import FIGURES
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.prompts.tokens import tokenize
from helpers.results import check_out, load_records, save_results
from helpers.wording import answer, performance, published_tests, ranking_table, report, shift_table

pytestmark = pytest.mark.slow

RESULTS = importlib.import_module("helpers.results")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative path."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results with one empty figure: drawing all nine has its own tests."""
    monkeypatch.setattr(RESULTS, "all_figures", lambda experiment: {"empty": Figure(figsize=(1, 1))})


# Words


def test_report_states_every_statistic(planted: Any) -> None:
    """Beside each AUROC: U, p, interval, layer baseline, within-layer value and p, as the experiment has them."""
    text = report(planted)
    for score, r in planted.rankings.items():
        shown = ranking_table(planted.rankings)[score]
        assert shown["Mann-Whitney U"] == f"{r.u:g}"
        assert shown["AUROC (= U / pairs)"] == f"{r.auroc:.3f}"
        assert shown["  95 % interval"] == f"{r.low:.3f} to {r.high:.3f}"
        assert shown["  layer index alone"] == f"{r.layer_auroc:.3f}"
        assert shown["  within layers"] == f"{r.within_auroc:.3f}"
        assert all(value in text for value in shown)
    assert "model    toy (4 layers x 6 heads" in text
    assert "active   20 prompts of 15 tokens" in text
    assert CIRCUIT.source in text


def test_published_figures_are_marked_as_published(planted: Any) -> None:
    """U = 2049 and 2219 stand under a heading that names GPT-2 small and Fields 2026, apart from what was measured."""
    text = report(planted)
    measured, published_part = text.split("GPT-2 small, as published (Fields 2026")
    assert "2049" not in measured
    assert "2219" not in measured
    assert "2049" in published_part
    assert published_tests().loc["AUROC (= U / pairs)"].tolist() == ["0.736", "0.797"]


def test_strongest_shifts_come_first(planted: Any) -> None:
    """The table's heads are those with the largest |dKL|, in that order, signs kept; nothing is rounded away from it."""
    table = shift_table(planted, top=7)
    expected = planted.table.assign(size=planted.table.d_kl.abs()).sort_values("size", ascending=False).head(7)
    assert list(table["head"]) == [
        f"{layer}.{head}" for layer, head in zip(expected.layer, expected["head"], strict=True)
    ]
    assert [float(d) for d in table["dKL"]] == pytest.approx(list(expected.d_kl), abs=5e-4)
    assert set(table["head"][:5]) == {f"{layer}.{head}" for layer, head in CIRCUIT.heads}


def test_report_without_a_circuit(uncharted: Any) -> None:
    """No ranking is printed, and the reason is; no measured AUROC appears."""
    text = report(uncharted)
    assert "Heads can be looked at, but not scored. No circuit is known for this model: make circuit MODEL=toy" in text
    assert "make run MODEL=toy CIRCUIT=results-circuit scores with it." in text
    measured, _ = text.split("GPT-2 small, as published")
    assert "AUROC" not in measured


def test_notes_come_before_any_number(planted: Any) -> None:
    """A note stands above the first table."""
    text = report(replace(planted, notes=["n differs."]))
    assert text.index("NOTE  n differs.") < text.index("Heads that shift most")


VERDICTS: dict[str, tuple[dict[str, float], str]] = {
    "both": ({"low": 0.6, "high": 0.9, "within_p": 0.01}, "and not only by depth"),
    "depth": ({"low": 0.6, "high": 0.9, "within_p": 0.2}, "comparing heads of the same layer does not confirm it"),
    "no": ({"low": 0.4, "high": 0.7, "within_p": 0.01}, "does not tell circuit heads from the others"),
    "below": ({"low": 0.1, "high": 0.4, "within_p": 0.99}, "ranks circuit heads below the others"),
    "no layer": ({"low": 0.6, "high": 0.9, "within_p": float("nan")}, "does not confirm it"),
}


@pytest.mark.parametrize(("numbers", "words"), VERDICTS.values(), ids=VERDICTS)
def test_answer_follows_from_the_numbers(numbers: dict[str, float], words: str, planted: Any) -> None:
    """Yes needs an interval above 0.5 and within-layer p < 0.05; each case has its own sentence."""
    ranking = replace(planted.rankings["|dKL|"], **numbers)
    said = answer(replace(planted, rankings={"|dKL|": ranking}))
    assert words in said
    assert f"{numbers['low']:.2f} to {numbers['high']:.2f}" in said


# How well the model does


def answered(prompts: list[Any], words: Any, **values: list[float]) -> AttentionRecord:
    """A record of word-level prompts with the given answers."""
    tokenized = tokenize(prompts, words)
    said = Readout(**{k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()})
    return AttentionRecord(tokenized, torch.full((len(prompts), 4, 6, 15), 1 / 15), "END", "toy", readout=said)


def test_performance_on_ioi(words: Any) -> None:
    """3 of 4 right, mean difference 1.5, mean P(IO) 0.4."""
    record = answered(
        ioi_prompts(4), words, logit_difference=[1, 2, 4, -1], p_answer=[0.4, 0.5, 0.6, 0.1], p_foil=[0.1] * 4,
        correct=[1, 1, 1, 0],
    )  # fmt: skip
    assert performance(record).tolist() == ["75.0%", "1.50", "0.400"]


def test_performance_on_abc(words: Any) -> None:
    """P(A)/(P(A)+P(B)) = 0.75 and 0.25: share 0.5; |differences| 1 and 3: 2; P(A)+P(B) = 0.4 and 0.8: 0.6."""
    record = answered(
        abc_prompts(2), words, logit_difference=[1, -3], p_answer=[0.3, 0.2], p_foil=[0.1, 0.6], correct=[1, 0]
    )
    assert performance(record).tolist() == ["0.500", "2.00", "0.600"]


def test_no_performance_without_answers(words: Any, planted: Any) -> None:
    """Records without readout, or with a prompt that names no foil, say nothing."""
    nan = float("nan")
    record = answered(
        [*ioi_prompts(1), "Mary saw John"], words, logit_difference=[1, nan], p_answer=[0.3, nan], p_foil=[0.1, nan],
        correct=[1, nan],
    )  # fmt: skip
    assert performance(record).empty
    assert performance(planted.active).empty


# Files


def test_files_hold_the_experiment(planted: Any, tmp_path: Path) -> None:
    """heads.csv is the table, report.txt the report, statistics.json the rankings; nine figures in two formats; records."""
    out = save_results(planted, tmp_path / "new" / "results")
    assert out == tmp_path / "new" / "results"
    table = pd.read_csv(out / "heads.csv")
    pd.testing.assert_frame_equal(table, planted.table, check_dtype=False, rtol=1e-5)
    assert (out / "report.txt").read_text() == report(planted)
    said = json.loads((out / "statistics.json").read_text())
    assert said["model"] == "toy"
    assert said["prompts"] == {"active": 20, "control": 20}
    assert said["rankings"]["|dchi|"]["u"] == planted.rankings["|dchi|"].u
    assert said["circuit"]["name"] == CIRCUIT.name
    drawn = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    assert {f.name for f in (out / "figures").iterdir()} == drawn
    assert all(f.stat().st_size > 2000 for f in (out / "figures").iterdir())
    assert {f.name for f in out.iterdir()} == {"heads.csv", "report.txt", "statistics.json", "figures", "records"}
    assert [f.name for f in out.parent.iterdir()] == ["results"]


def test_statistics_are_strict_json(uncharted: Any, one_figure: None, tmp_path: Path) -> None:
    """A correlation that doesn't exist is null, not NaN, so that any JSON reader can read it."""
    text = (save_results(uncharted, tmp_path / "out") / "statistics.json").read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    said = json.loads(text, parse_constant=refuse)
    assert said["correlations"]["dKL, dchi (circuit)"] is None
    assert (said["rankings"], said["other_rankings"], said["circuit"]) == ({}, {}, None)


def test_strict_json_without_a_shared_layer(planted: Any, one_figure: None, tmp_path: Path) -> None:
    """Within-layer AUROC is NaN where no layer has both kinds of heads; that is null in the file as well."""
    ranking = replace(planted.rankings["|dKL|"], within_auroc=float("nan"), within_p=float("nan"))
    out = save_results(replace(planted, rankings={"|dKL|": ranking}), tmp_path / "out")
    assert "NaN" not in (out / "statistics.json").read_text()


def test_figures_are_the_same_bytes_every_time(planted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same experiment saved twice gives the same files, byte by byte (no dates, no random ids)."""
    import helpers.plots.figures as figures

    monkeypatch.setattr(figures, "FIGURES", {k: FIGURES[k] for k in ("5_shift_distributions", "8_coupling_scatter")})
    first, second = (contents(save_results(planted, tmp_path / name)) for name in "ab")
    assert first == second


def test_replay_gives_the_same_table(planted: Any, one_figure: None, tmp_path: Path) -> None:
    """Saved records analysed again: the same table, rankings and report."""
    out = save_results(planted, tmp_path / "out")
    again = analyse(*load_records(out), CIRCUIT)
    pd.testing.assert_frame_equal(again.table, planted.table)
    assert again.rankings == planted.rankings
    assert report(again) == report(planted)


def test_records_of_all_positions_can_be_kept(planted: Any, one_figure: None, tmp_path: Path) -> None:
    """records= keeps those of all queries; load_records gives them back, END rows exactly; texts= are written."""
    sides = tuple(toy_record(causal_rows([15] * 3, 4, 6, seed=seed), query="all") for seed in (0, 1))
    out = save_results(planted, tmp_path / "out", records=sides, texts={"more.txt": "more"})
    assert AttentionRecord.load(out / "records" / "active.safetensors").query == "all"
    for found, side in zip(load_records(out), sides, strict=True):
        assert found.query == "all"
        assert torch.equal(found.at("END").rows, side.at("END").rows)
    assert (out / "more.txt").read_text() == "more"


def test_old_results_are_replaced_as_a_whole(planted: Any, uncharted: Any, one_figure: None, tmp_path: Path) -> None:
    """Files of an earlier run do not survive in a later one, and nothing else is left beside it."""
    out = save_results(planted, tmp_path / "out", texts={"scorecard.txt": "old"})
    save_results(uncharted, out)
    assert not (out / "scorecard.txt").exists()
    assert json.loads((out / "statistics.json").read_text())["circuit"] is None
    assert [f.name for f in tmp_path.iterdir()] == ["out"]


def _in_the_figures(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    def fail(experiment: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(RESULTS, "all_figures", fail)


def _at_ctrl_c(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    def fail(self: Any, *args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AttentionRecord, "save", fail)


def _at_the_last_rename(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if Path(target) == out and self.name == "new":
            raise OSError("Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)


@pytest.mark.parametrize("old", [True, False], ids=["old results", "no results"])
@pytest.mark.parametrize("failure", [_in_the_figures, _at_ctrl_c, _at_the_last_rename])
def test_whole_or_not_at_all(
    failure: Callable[..., None], old: bool, planted: Any, uncharted: Any, one_figure: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A failure at any moment leaves the old folder as it was (or none), and no scratch folder."""
    out = tmp_path / "out"
    if old:
        save_results(planted, out)
    before = contents(tmp_path)
    failure(monkeypatch, out)
    with pytest.raises((OSError, KeyboardInterrupt)):
        save_results(uncharted, out)
    assert contents(tmp_path) == before
    assert [f.name for f in tmp_path.iterdir()] == (["out"] if old else [])


FOREIGN: dict[str, Callable[[Path], object]] = {
    "files": lambda out: (out.mkdir(), (out / "thesis.tex").write_text("x")),
    "file": lambda out: out.write_text("x"),
    "other json": lambda out: (out.mkdir(), (out / "statistics.json").write_text('{"format": "theirs"}')),
    "list": lambda out: (out.mkdir(), (out / "statistics.json").write_text("[1]")),
    "broken json": lambda out: (out.mkdir(), (out / "statistics.json").write_text("{")),
    "binary": lambda out: (out.mkdir(), (out / "statistics.json").write_bytes(b"\xff\xfe\x00")),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_refuses_a_foreign_folder(make: Any, planted: Any, tmp_path: Path) -> None:
    """An output path that holds anything but earlier results is refused, and left as it was."""
    make(tmp_path / "out")
    before = contents(tmp_path)
    for refuse in (check_out, lambda out: save_results(planted, out)):
        with pytest.raises(ValueError, match=r"out: expected a new folder or an earlier results folder, got '.*out'"):
            refuse(tmp_path / "out")
    assert contents(tmp_path) == before


def test_accepts_new_empty_and_earlier_folders(planted: Any, one_figure: None, tmp_path: Path) -> None:
    """A path that doesn't exist, an empty folder, an earlier results folder."""
    check_out(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    out = save_results(planted, tmp_path / "empty")
    check_out(out)
    check_out(str(out))


def test_current_folder_can_hold_the_results(planted: Any, one_figure: None, tmp_path: Path, monkeypatch: Any) -> None:
    """A relative path is relative to where one stands."""
    monkeypatch.chdir(tmp_path)
    save_results(planted, "results")
    assert (tmp_path / "results" / "statistics.json").is_file()


def test_report_has_no_more_digits_than_are_stable(planted: Any) -> None:
    """Printed numbers have at most 6 significant digits after the point: more would differ between machines."""
    assert not re.search(r"\d\.\d{7,}", report(planted))
    assert np.isfinite(planted.table.select_dtypes("number").to_numpy()).all()
