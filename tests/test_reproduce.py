"""``python -m helpers reproduce`` from a model to its exit status: a random model with GPT-2 small's heads, run once."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from test_load import COUNTED

import helpers.__main__ as command
from helpers.__main__ import main
from helpers.attention.record import AttentionRecord
from helpers.heads import pairs_of
from helpers.models import load
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.reference import published

pytestmark = pytest.mark.slow

QUANTITIES = ["kl_active", "kl_control", "d_kl", "chi_active", "chi_control", "d_chi"]


@dataclass
class Run:
    """What ``reproduce`` did on the random model."""

    folder: Path
    status: int
    out: str
    records: list[AttentionRecord]

    @property
    def card(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "scorecard.csv")


@pytest.fixture(scope="module")
def live(narrow_gpt2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """``reproduce`` with the random folder under the name "gpt2-small"; figures are left out, and no model is loaded again."""
    records: list[AttentionRecord] = []
    measure = command.record_attention

    def spy(*args: Any, **options: Any) -> AttentionRecord:
        records.append(measure(*args, **options))
        return records[-1]

    folder, said = tmp_path_factory.mktemp("reproduce") / "live", StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(StringIO()):
        patch.setattr(
            importlib.import_module("helpers.results"),
            "all_figures",
            lambda experiment: {"empty": Figure(figsize=(1, 1))},
        )
        patch.setitem(load.ALIASES, "gpt2-small", str(narrow_gpt2_folder))
        patch.setattr(command, "record_attention", spy)
        status = main(["reproduce", "--out", str(folder)])
        patch.setattr(command, "load_model", lambda name: pytest.fail("a replay loaded a model"))
        yield Run(folder, status, said.getvalue(), records)


def disagreeing(card: pd.DataFrame) -> list[str]:
    """The lines that do not agree."""
    return list(card.what[~card.agrees])


# A model that is not GPT-2


def test_random_weights_fail(live: Run) -> None:
    """Exit status 1; the last line counts the rows that say yes, which are few; every other row says NO."""
    card = live.card
    assert live.status == 1
    assert live.out.splitlines()[-1] == f"{card.agrees.sum()} of {len(card)} published figures agree"
    assert card.agrees.mean() < 0.1
    assert len(re.findall(r" NO$", live.out, re.MULTILINE)) == (~card.agrees).sum()
    assert len(re.findall(r"yes$", live.out, re.MULTILINE)) == card.agrees.sum()


def test_every_published_table_is_compared(live: Run) -> None:
    """25 heads x 6 quantities; 2 tests x 6 figures; 7 + 1 correlations; 6 ends, 1 sd and 50 pairs; 5 shares, 6 weights."""
    counts = live.card.section.value_counts().to_dict()
    assert counts == {"heads": 150, "tests": 12, "correlations": 8, "coupling": 57, "idle heads": 11}


def test_measured_figures_are_those_of_the_rows(live: Run) -> None:
    """KL = 1 - H / log n and chi = Var(log p) / (log n)^2 of the END rows, averaged over 50 prompts, to 1e-7."""
    measured = live.card.set_index("what").measured
    for side, record in zip(("active", "control"), live.records, strict=True):
        p = record.at("END").rows.double().numpy()
        p /= p.sum(-1, keepdims=True)
        log_n, mean = np.log(15), (p * np.log(p)).sum(-1, keepdims=True)
        kl = (1 + mean[..., 0] / log_n).mean(0)
        chi = ((p * (np.log(p) - mean) ** 2).sum(-1) / log_n**2).mean(0)
        for layer, head in ((9, 6), (0, 1), (11, 10)):
            assert measured[f"{layer}.{head} kl_{side}"] == pytest.approx(kl[layer, head], abs=1e-7)
            assert measured[f"{layer}.{head} chi_{side}"] == pytest.approx(chi[layer, head], abs=1e-7)


def test_the_posts_prompts_are_measured(live: Run) -> None:
    """50 IOI and 50 ABC prompts of 15 tokens, all positions, with a readout, on the model asked for."""
    assert [[p.prompt for p in record.prompts] for record in live.records] == [ioi_prompts(), abc_prompts()]
    for record in live.records:
        assert record.rows.shape == (50, 12, 12, 15, 15)
        assert (record.query, record.model) == ("all", "gpt2-small")
        assert record.readout is not None
    assert "50 prompts of 15 tokens; IO is the top token in " in live.out


# The records it leaves


@pytest.fixture(scope="module")
def saved(live: Run) -> list[AttentionRecord]:
    """The two records of the results folder."""
    return [AttentionRecord.load(live.folder / "records" / f"{side}.safetensors") for side in ("active", "control")]


def test_records_are_small(live: Run) -> None:
    """Both sets, all positions: under 5 MB together (12.96 MB as float32 squares)."""
    sizes = [path.stat().st_size for path in (live.folder / "records").iterdir()]
    assert len(sizes) == 2
    assert sum(sizes) < 5e6
    assert sum(record.rows.nbytes for record in live.records) == 12_960_000


def test_records_come_back(live: Run, saved: list[AttentionRecord]) -> None:
    """END rows and readouts bit by bit; the others to float16's 2^-11 of each weight (2^-10 with the sum), of sum 1."""
    for back, record in zip(saved, live.records, strict=True):
        assert torch.equal(back.at("END").rows, record.at("END").rows)
        for name, values in vars(record.readout).items():
            assert torch.equal(getattr(back.readout, name), values)
        torch.testing.assert_close(back.rows, record.rows, rtol=2**-10, atol=1e-7)
        torch.testing.assert_close(back.rows.sum(-1), torch.ones(50, 12, 12, 15), rtol=0, atol=1e-6)
        assert not back.rows.triu(1).any()
        assert [p.prompt for p in back.prompts] == [p.prompt for p in record.prompts]


# Replays


@pytest.mark.parametrize("name", ["run", "reproduce"])
def test_replay_gives_the_same_table(name: str, live: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a model: the same heads.csv, report and statistics byte by byte; status 0 of run and 1 of reproduce."""
    assert main([name, "--record", str(live.folder), "--out", str(tmp_path / "again")]) == (name == "reproduce")
    for file in ("heads.csv", "report.txt", "statistics.json"):
        assert (tmp_path / "again" / file).read_bytes() == (live.folder / file).read_bytes()
    if name == "reproduce":
        for file in ("scorecard.csv", "scorecard.txt"):
            assert (tmp_path / "again" / file).read_bytes() == (live.folder / file).read_bytes()
        assert capsys.readouterr().out.splitlines()[-1] == live.out.splitlines()[-1]


@pytest.mark.parametrize("name", ["run", "reproduce"])
def test_replay_into_the_same_folder_keeps_the_records(name: str, live: Run, tmp_path: Path) -> None:
    """`reproduce --record X --out X` replaces X, and the rows of the other positions must not be lost by it."""
    folder = tmp_path / "copy"
    shutil.copytree(live.folder, folder)
    main([name, "--record", str(folder), "--out", str(folder)])
    for side, record in zip(("active", "control"), live.records, strict=True):
        back = AttentionRecord.load(folder / "records" / f"{side}.safetensors")
        assert back.query == "all"
        torch.testing.assert_close(back.at("S2" if side == "active" else "C").rows.sum(-1), torch.ones(50, 12, 12))
        assert torch.equal(back.at("END").rows, record.at("END").rows)


# A run that agrees


@pytest.fixture(scope="module")
def ends(live: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The END rows alone, which is what is compared: packing the others takes longer than all else in a replay."""
    folder = tmp_path_factory.mktemp("ends")
    for side, record in zip(("active", "control"), live.records, strict=True):
        record.at("END").save(folder / "records" / f"{side}.safetensors")
    return folder


def publish(patch: pytest.MonkeyPatch, card: pd.DataFrame) -> None:
    """Write measured figures over the published ones, rounded as the post prints them."""
    value = card.set_index("what").measured

    def heads(table: pd.DataFrame) -> pd.DataFrame:
        names = [f"{row.layer}.{row.head}" for row in table.itertuples()]
        return table.assign(**{q: [round(value[f"{name} {q}"], 4) for name in names] for q in QUANTITIES})

    circuit, others = heads(published.circuit_heads()), heads(published.OTHER_HEADS)
    patch.setattr(published, "circuit_heads", lambda: circuit)
    patch.setattr(published, "OTHER_HEADS", others)
    digits = {"u": 1, "p": None, "mean_circuit": 4, "sd_circuit": 4, "mean_other": 4, "sd_other": 4}
    tests = published.TESTS.copy()
    for i, row in published.TESTS.iterrows():
        for name, decimals in digits.items():
            key = f"{row.statistic} {name.upper() if name == 'u' else name}"
            printed = round(-np.log10(2 * row.p_precision)) if decimals is None else decimals
            tests.loc[i, name] = round(value[key], printed)
    patch.setattr(published, "TESTS", tests)
    correlations = {name: round(value[name], 3) for name in published.CORRELATIONS.index}
    patch.setattr(published, "CORRELATIONS", pd.Series(correlations))
    patch.setattr(published, "PER_PROMPT_CORRELATION", round(value["KL, chi (per prompt)"], 3))
    ranges = {name: tuple(round(value[f"{name} {end}"], 3) for end in ("min", "max")) for name in published.COUPLING}
    patch.setattr(published, "COUPLING", ranges)
    patch.setattr(published, "COUPLING_SD", round(value["c_diff sd"], 3))
    pairs = published.top_pairs()
    names = [f"{one} {two} c_diff" for one, two in pairs_of(pairs)]
    pairs = pairs.assign(c_diff=[round(value[name], 3) for name in names])
    patch.setattr(published, "top_pairs", lambda: pairs)
    idle = published.IDLE_HEADS.copy()
    for i, row in idle.iterrows():
        if not np.isnan(row.share):
            idle.loc[i, "share"] = round(value[f"{row.layer}.{row['head']} looks at {row.target}: share of prompts"], 2)
        idle.loc[i, "weight"] = round(value[f"{row.layer}.{row['head']} mean largest weight"], 3)
    patch.setattr(published, "IDLE_HEADS", idle)


def test_full_agreement_passes(
    live: Run, ends: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the random run's own figures, rounded as the post prints, in place of the published: all agree, status 0."""
    publish(monkeypatch, live.card)
    status = main(["reproduce", "--record", str(ends), "--out", str(tmp_path / "out")])
    assert disagreeing(pd.read_csv(tmp_path / "out" / "scorecard.csv")) == []
    assert status == 0
    assert capsys.readouterr().out.splitlines()[-1] == "238 of 238 published figures agree"


@pytest.mark.parametrize("quantities", [QUANTITIES, ["d_chi"]], ids=["head", "figure"])
def test_one_published_head_off_by_two_thousandths_fails(
    quantities: list[str],
    live: Run,
    ends: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0.002 more in head 9.6: status 1, and exactly the changed figures say NO."""
    publish(monkeypatch, live.card)
    table = published.circuit_heads()
    table.loc[(table.layer == 9) & (table["head"] == 6), quantities] += 0.002
    assert main(["reproduce", "--record", str(ends), "--out", str(tmp_path / "out")]) == 1
    assert disagreeing(pd.read_csv(tmp_path / "out" / "scorecard.csv")) == [f"9.6 {q}" for q in quantities]
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"{238 - len(quantities)} of 238 published figures agree"
    assert re.findall(r"(9\.6 \w+) .* NO$", out, re.MULTILINE) == [f"9.6 {q}" for q in quantities]
    assert len(re.findall(r" NO$", out, re.MULTILINE)) == len(quantities)


# No model


def test_without_a_network(tmp_path: Path) -> None:
    """Offline and nothing cached: status 2, one sentence, nothing written, after one question of five seconds to the hub."""
    (tmp_path / "work").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    code = COUNTED + (
        "import sys; from helpers.__main__ import main\n"
        "HfApi.model_info, time.sleep = model_info, waited.append\n"
        "status = main(['reproduce']); sys.exit(status if (asked, waited) == ([5], []) else f'{asked}, {waited}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        cwd=tmp_path / "work", env=environment | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    where, said = done.stderr.splitlines()
    assert where.startswith("results go to ")
    assert said.startswith("error: model 'gpt2-small': 'gpt2' is not on this machine and the model hub cannot be")
    assert list((tmp_path / "work").iterdir()) == []
