"""``python -m helpers``: the experiment and the circuit on small models, replays, and every unusable input as one sentence."""

from __future__ import annotations

import importlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from models import random_rows, save_gpt2, toy_prompt
from safetensors import SafetensorError

import helpers.__main__ as command
from helpers.__main__ import main
from helpers.attention.capture import record_attention
from helpers.attention.record import AttentionRecord
from helpers.folders import claimed
from helpers.measured.shipped import measured_tasks
from helpers.models.load import load_model
from helpers.patching.circuits import SCREEN, find_circuit, fit_to_model
from helpers.patching.heads import StoredPairs
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.reference.measured import MeasuredCircuit
from helpers.results import load_records

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in an empty folder, draw one empty figure, and show no progress bars' leftovers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        importlib.import_module("helpers.results"), "all_figures", lambda experiment: {"empty": Figure(figsize=(1, 1))}
    )


@pytest.fixture
def loaded(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tiny model under any name; the names that were asked for."""
    asked: list[str] = []

    def load(name: str) -> Any:
        asked.append(name)
        return tiny

    monkeypatch.setattr(command, "load_model", load)
    return asked


def write_prompts(path: Path, prompts: list[str]) -> str:
    """A prompt file."""
    path.write_text("\n".join(prompts) + "\n", encoding="utf-8")
    return str(path)


def refusal(err: str) -> str:
    """What is on stderr beside the folder that is announced before a model is loaded: one line, which is returned."""
    first, *others = err.splitlines(keepends=True)
    lines = others if first.startswith("results go to /") else [first]
    assert len(lines) == 1
    assert lines[0].endswith("\n")
    return lines[0]


# The job


def test_run_from_model_to_results(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report on stdout is the one in the folder; the folder's records hold n prompts a side, with a readout."""
    assert main(["run", "--model", str(tiny_folder), "--n", "6", "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert said == Path("out/report.txt").read_text() + "\nwritten to out/\n"
    active, control = load_records("out")
    assert [p.prompt for p in active.prompts] == ioi_prompts(6)
    assert [p.prompt for p in control.prompts] == abc_prompts(6)
    assert active.readout is not None
    assert "IO is the top token in" in said
    assert os.listdir() == ["out"]


def test_defaults(loaded: list[str]) -> None:
    """The demo model, the post's 50 + 50 prompts, the folder "results"."""
    assert main(["run"]) == 0
    assert loaded == ["demo"]
    assert [[p.prompt for p in record.prompts] for record in load_records("results")] == [ioi_prompts(), abc_prompts()]


def test_own_prompts(loaded: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two files, one prompt a line; what the heads of a model without a circuit do, and how few prompts these are."""
    active = write_prompts(tmp_path / "a.txt", ["Mary saw John in the park", "Kate saw Tom in the room"])
    control = write_prompts(tmp_path / "c.txt", ["Mary saw a dog in the park", "Kate saw a cat in the room"] * 2)
    assert main(["run", "--model", "m", "--active", active, "--control", control, "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "No circuit is known for this model" in said
    assert (
        "NOTE  With 2 and 4 prompts a head that shifts as clearly as can be has p = 0.11: q < 0.05 over 12 heads can't be"
        in said
    )
    assert "NOTE  Control set: 2 of the 4 prompts repeat an earlier one" in said
    assert [p.prompt.text for p in load_records("out")[0].prompts] == [
        "Mary saw John in the park",
        "Kate saw Tom in the room",
    ]


def test_own_prompts_on_a_model_with_a_circuit(capsys: pytest.CaptureFixture[str]) -> None:
    """Its circuit is known, but of another task; that is said, also of a replay, and CIRCUIT= scores all the same."""
    assert main(["run", *_files(), "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "of the task IOI, and these are other prompts: CIRCUIT=demo scores with it all the same." in said
    assert "No circuit is known" not in said
    assert main(["run", "--record", "out", "--out", "again"]) == 0
    assert capsys.readouterr().out == said.replace("to out/", "to again/")
    assert main(["run", "--record", "out", "--circuit", "demo", "--out", "scored"]) == 0
    said = capsys.readouterr().out
    assert (
        "NOTE  The circuit was measured on the task 'ioi': whether these prompts ask the same can't be seen here."
        in said
    )
    assert "AUROC" in said.split("Do circuit heads shift more? (measured)")[1].split("GPT-2 small, as published")[0]


def test_replay_needs_no_model(loaded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """--record: the same table and report from the saved records, and no model is loaded."""
    assert main(["run", "--model", "m", "--n", "5", "--out", "first"]) == 0
    first = capsys.readouterr().out
    assert loaded == ["m"]
    assert main(["run", "--record", "first", "--out", "second"]) == 0
    assert capsys.readouterr().out == first.replace("written to first/", "written to second/")
    assert loaded == ["m"]
    for name in ("heads.csv", "report.txt", "statistics.json"):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes()


def test_replay_into_its_own_folder(loaded: list[str]) -> None:
    """A results folder can be replayed into itself: the records are read before it is replaced."""
    assert main(["run", "--model", "m", "--n", "5", "--out", "out"]) == 0
    before = pd.read_csv("out/heads.csv")
    assert main(["run", "--record", "out", "--out", "out"]) == 0
    pd.testing.assert_frame_equal(pd.read_csv("out/heads.csv"), before)


def test_earlier_results_are_replaced(loaded: list[str]) -> None:
    """A second run into the same folder leaves its own results only."""
    for n in ("4", "5"):
        assert main(["run", "--model", "m", "--n", n, "--out", "out"]) == 0
    assert json.loads(Path("out/statistics.json").read_text())["prompts"] == {"active": 5, "control": 5}


def test_windows_text_files(loaded: list[str], tmp_path: Path) -> None:
    """Line ends of Windows and a byte-order mark, as Notepad writes them, are no part of a prompt."""
    prompts = ["Mary saw John in the park", "Kate saw Tom in the room"]
    Path("a.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(prompts).encode())
    assert main(["run", "--model", "m", "--active", "a.txt", "--control", "a.txt", "--out", "out"]) == 0
    assert [p.prompt.text for p in load_records("out")[0].prompts] == prompts


# Refusals: status 2, one sentence, nothing written


def _files(active: bytes = b"Mary saw John\nKate saw Tom\n", control: bytes = b"Mary saw a\nKate saw a\n") -> list[str]:
    Path("a.txt").write_bytes(active)
    Path("c.txt").write_bytes(control)
    return ["--active", "a.txt", "--control", "c.txt"]


def _foreign() -> list[str]:
    Path("thesis").mkdir()
    Path("thesis", "thesis.tex").write_text("x")
    return ["--out", "thesis"]


def _record(active: bytes | None) -> list[str]:
    folder = Path("old", "records")
    folder.mkdir(parents=True)
    if active is not None:
        (folder / "active.safetensors").write_bytes(active)
    return ["--record", "old"]


REFUSED: dict[str, tuple[Callable[[], list[str]], str]] = {
    "n = 0": (lambda: ["--n", "0"], "n: expected at least 2 prompts in each set, for a spread over prompts, got 0"),
    "n too large": (lambda: ["--n", "2000"], "n: 12 names and 7 frames make 1848 distinct prompts, got n = 2000"),
    "n = 1": (lambda: ["--n", "1"], "n: expected at least 2 prompts in each set, for a spread over prompts, got 1"),
    "active alone": (lambda: _files()[:2], "active, control: expected both prompt files or neither, got one"),
    "control alone": (lambda: _files()[2:], "active, control: expected both prompt files or neither, got one"),
    "no such file": (lambda: ["--active", "a.txt", "--control", "a.txt"], "--active a.txt: expected a text file in UTF-8, one prompt a line, got a file that can't be read (No such file"),
    "folder as file": (lambda: ["--active", ".", "--control", "."], "--active .: expected a text file in UTF-8, one prompt a line, got a folder"),
    "empty file": (lambda: _files(active=b""), "active: expected at least 2 prompts, for a spread over prompts, a.txt has 0"),
    "blank inside": (lambda: _files(control=b"Mary saw\n\nKate  saw\n"), "--control c.txt, line 3: expected single blanks between words, got 2 blanks at character 5 of 'Kate  saw'"),
    "blank lines alone": (lambda: _files(active=b"\n \n# Mary\n"), "--active: expected at least 2 prompts, for a spread over prompts, a.txt has 0"),
    "unknown word": (lambda: _files(active=b"Mary saw\nMary saw Zebulon\n"), "active set, prompt 2: the word 'Zebulon' is not in"),
    "too long": (lambda: _files(control=b"Mary " * 70 + b"\nMary saw\n"), "control set, prompt 1: expected at most 64 tokens"),
    "one line": (lambda: _files(control=b"Mary saw\n"), "control: expected at least 2 prompts, for a spread over prompts, c.txt has 1"),
    "not UTF-8": (lambda: _files(active="Zoë saw".encode("utf-16")), "a.txt: expected a text file in UTF-8, one prompt a line"),
    "Latin-1": (lambda: _files(active="Zoë saw".encode("latin-1")), "a.txt: expected a text file in UTF-8, one prompt a line"),
    "no record": (lambda: ["--record", "nowhere"], "--record: expected an earlier results folder, got 'nowhere' (no attention record at 'nowhere')"),
    "record without files": (lambda: _record(None), "--record: expected an earlier results folder, got 'old' (no attention record at 'old/records/active.safetensors')"),
    "prompts beside records": (lambda: [*_files(), *_record(b"x")], "--record: expected no prompt files beside records, which hold their own, got --active, --control"),
    "file as out": (lambda: [*_files(), "--out", "a.txt"], "out: expected a new folder or an earlier results folder, got 'a.txt', which is a file"),
    "out below a file": (lambda: [*_files(), "--out", "a.txt/b/c"], "out: expected a folder that can be written, got 'a.txt/b/c' (Not a directory)"),
    "out below no folder of this system": (lambda: ["--out", "/proc/self/none/out"], "out: expected a folder that can be written, got '/proc/self/none/out' ("),
    "broken record": (lambda: _record(b"x"), "--record: expected an earlier results folder, got 'old' (expected an attention record of format attention-record/1, got 'old/records/active.safetensors')"),
    "no circuit": (lambda: ["--circuit", "nowhere"], "circuit: expected a folder that make circuit wrote (heads.csv, circuit.json), got 'nowhere'"),
    "results as circuit": (lambda: ["--circuit", _foreign()[1]], "circuit: expected a folder that make circuit wrote"),
    "circuit of another shape": (lambda: ["--circuit", "gpt2-small"], "circuit: expected heads of a model of shape (3, 4) (layers, heads), got \"IOI, the post's 23\" of shape (12, 12)"),
    "foreign out": (_foreign, "out: expected a new folder or an earlier results folder, got 'thesis'"),
    "long prompt file": (lambda: ["--active", "x" * 300, "--control", "x" * 300], f"--active {'x' * 300}: expected a text file in UTF-8, one prompt a line, got a file that can't be read (File name too long)"),
    "long out": (lambda: ["--out", "x" * 300], f"out: expected a folder that can be written, got '{'x' * 300}' (File name too long)"),
    "long out inside": (lambda: ["--out", f"a/{'x' * 300}/b"], "/b' (File name too long)"),
    "long record": (lambda: ["--record", "x" * 300], "(no attention record at 'xxx"),
    "long circuit": (lambda: ["--circuit", "x" * 300], "circuit: expected a folder that make circuit wrote"),
    "nobody's home": (lambda: ["--out", "~nobody_/x"], "out: expected a folder that can be written, got '~nobody_/x' (there is no such home folder)"),
    "no such BOS": (lambda: ["--bos", "nosuch"], "--bos: expected a token or id of this model's vocabulary, got 'nosuch'"),
    "BOS beside records": (lambda: [*_record(b"x"), "--no-bos"], "--record: expected no --bos or --no-bos beside records, which hold their own tokens"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refuses(
    arguments: Callable[[], list[str]], sentence: str, loaded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, "error: " and one sentence on stderr, nothing on stdout, no file written or changed."""
    given = arguments()
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    assert main(["run", "--model", "m", *given]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert refusal(said.err).startswith("error: ")
    assert sentence in refusal(said.err)
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before


@pytest.mark.parametrize(
    "given",
    [
        ["--n", "0"],
        ["--n", "1"],
        ["--n", "2000"],
        ["--active", "a.txt"],
        ["--active", "no.txt", "--control", "no.txt"],
        ["--circuit", "nowhere"],
    ],
)
def test_input_is_checked_before_a_model_is_loaded(given: list[str], loaded: list[str]) -> None:
    """What can be seen without a model is refused without one (loading may take minutes)."""
    assert main(["run", "--model", "m", *given]) == 2
    assert loaded == []


def test_unavailable_model(capsys: pytest.CaptureFixture[str]) -> None:
    """A model that can't be had: the sentence of load_model, and nothing written."""
    assert main(["run", "--model", "./no-such-folder"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert refusal(said.err).startswith("error: model './no-such-folder': there is no such folder")
    assert os.listdir() == []


@pytest.mark.parametrize("given", [["--n", "many"], ["--modle", "x"], ["--bos", "a", "--no-bos"], []])
def test_unusable_options(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own refusals have status 2 as well."""
    with pytest.raises(SystemExit, match="2"):
        main([*(["run"] if given else []), *given])
    assert "usage:" in capsys.readouterr().err


def test_as_a_process(tmp_path: Path) -> None:
    """``python -m helpers run`` of a missing model: status 2, one sentence on stderr, no traceback, nothing written."""
    done = subprocess.run(
        [sys.executable, "-m", "helpers", "run", "--model", "/no/such/folder"], capture_output=True, text=True,
        check=False, cwd=tmp_path, env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"results go to {tmp_path.resolve() / 'results'}/",
        "error: model '/no/such/folder': there is no such folder; give a folder with config.json, or a hub name",
    ]
    assert list(tmp_path.iterdir()) == []


# Files and consoles as people have them: each gives the right answer, or one sentence


MARY, KATE = "Mary saw John in the park", "Kate saw Tom in the room"


def _typed(*lines: str, line_end: str = "\n", mark: str = "") -> bytes:
    return (mark + line_end.join(lines)).encode()


#: What stands in a file; the prompts that are read, and what is said of it in the report.
READ: dict[str, tuple[bytes, list[str], str]] = {
    "mark and Windows line ends": (_typed(MARY, KATE, "", line_end="\r\n", mark="\ufeff"), [MARY, KATE], ""),
    "blank lines": (_typed("", MARY, "  ", "", KATE, ""), [MARY, KATE], ""),
    "comments": (_typed("# two prompts", MARY, KATE), [MARY, KATE], "1 line that begins with # (a comment) left out."),
    "trailing blanks": (_typed(f"{MARY} ", f"\t{KATE}\u00a0"), [MARY, KATE], "White space at the ends of 2 lines was taken off."),
    "one prompt twice": (_typed(MARY, KATE, MARY), [MARY, KATE, MARY], "1 of the 3 prompts repeat an earlier one and are counted again."),
    "all alike": (_typed(MARY, MARY), [MARY, MARY], "The active prompts are all alike: intervals and tests over prompts say nothing about others."),
    "two prompts": (_typed(MARY, KATE), [MARY, KATE], "With 2 and 2 prompts a head that shifts as clearly as can be has p = 0.25: q < 0.05 over 12 heads can't be reached."),
    "no-break space": (_typed(MARY, "Kate\u00a0saw Tom"), [], "--active Häuser am See.txt, line 2: expected single blanks between words, got U+00A0 NO-BREAK SPACE at character 5 of"),
    "tab": (_typed("", MARY, "Kate saw\tTom"), [], "--active Häuser am See.txt, line 3: expected single blanks between words, got U+0009 TAB at character 9 of"),
    "unknown word": (_typed(MARY, "“Kate” saw Tom"), [], "active set, prompt 2: the word '“' is not in this model's vocabulary"),
    "empty file": (b"", [], "--active: expected at least 2 prompts, for a spread over prompts, Häuser am See.txt has 0"),
    "UTF-16": (MARY.encode("utf-16"), [], "--active Häuser am See.txt: expected a text file in UTF-8, one prompt a line, got one whose byte 1 is not"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "prompts", "said"), READ.values(), ids=READ)
def test_files_as_people_have_them(
    content: bytes, prompts: list[str], said: str, loaded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A path with blanks and umlauts; what is read is what one sees, what was left out is a note, or one sentence is said."""
    name, control = "Häuser am See.txt", write_prompts(Path("c.txt"), ["Mary saw a dog in the park", "Kate saw a cat"])
    Path(name).write_bytes(content)
    status = main(["run", "--model", "m", "--active", name, "--control", control, "--out", "mes résultats"])
    heard = capsys.readouterr()
    if not prompts:
        assert (status, heard.out) == (2, "")
        assert f"error: {said}" in refusal(heard.err)
        assert not Path("mes résultats").exists()
        return
    assert status == 0
    assert [p.prompt.text for p in load_records("mes résultats")[0].prompts] == prompts
    assert all(p.tokens[-1].strip() for p in load_records("mes résultats")[0].prompts)
    assert said in heard.out
    assert Path("mes résultats/report.txt").read_text(encoding="utf-8") in heard.out


def test_curly_quotes_and_names_of_several_tokens(
    gpt2_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a tokenizer of parts of words they are text like any other: END is the last word, and lengths are noted."""
    model = load_model(str(save_gpt2(tmp_path / "tiny", gpt2_tokenizer, n_layer=1, n_head=2, n_embd=8)))
    monkeypatch.setattr(command, "load_model", lambda name: model)
    active = [
        "“Oluwaseun and Tom’s” friend met Tom, Tom sent a note to",
        "Eva and Tom’s friend met Tom, Tom sent a note to",
    ]
    files = [write_prompts(tmp_path / f"{side}.txt", active) for side in ("a", "c")]
    assert main(["run", "--active", files[0], "--control", files[1], "--out", "out"]) == 0
    prompts = load_records("out")[0].prompts
    assert [p.prompt.text for p in prompts] == active
    assert {p.tokens[-1] for p in prompts} == {" to"}
    assert "The prompts differ in length" in capsys.readouterr().out


def test_the_same_file_on_both_sides(loaded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing could have shifted, and that is said before any number."""
    path = write_prompts(Path("a.txt"), [MARY, KATE])
    assert main(["run", "--model", "m", "--active", path, "--control", path]) == 0
    said = capsys.readouterr().out
    assert "NOTE  Both sets hold the same prompts: nothing can shift between them." in said
    assert "0 of 12 heads shift their KL" in said


@pytest.mark.parametrize(
    ("out", "folder"), [("~/out", "out"), (".", ""), ("a/b/out", "a/b/out"), ("mine", "mine"), ("~", "")]
)
def test_where_results_go(
    out: str, folder: str, loaded: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Home, here, missing parents: announced in full before the model is loaded, and nothing but the results is there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for _ in range(2):  # the second time earlier results are replaced
        assert main(["run", "--model", "m", "--n", "4", "--out", out]) == 0
        assert capsys.readouterr().err == f"results go to {tmp_path.resolve() / folder}/\n"
        assert (tmp_path / folder / "statistics.json").is_file()
    kept = {"figures", "heads.csv", "records", "report.txt", "statistics.json"}
    assert {path.name for path in (tmp_path / folder).iterdir()} == kept
    assert {path.name for path in tmp_path.iterdir()} == ({folder.split("/")[0]} if folder else kept)


def test_the_folder_is_announced_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the time load_model is called, the folder was tried and named."""

    def load(name: str) -> None:
        assert capsys.readouterr().err.splitlines()[-1].startswith("results go to /")
        raise ValueError("loaded")

    monkeypatch.setattr(command, "load_model", load)
    assert main(["run"]) == main(["reproduce"]) == main(["circuit"]) == 2
    assert os.listdir() == []


class Closed(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_results_are_saved_when_nobody_reads(loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """stdout and stderr closed (``| head -1``): status 0 all the same, and the results are there."""
    monkeypatch.setattr(sys, "stdout", Closed())
    monkeypatch.setattr(sys, "stderr", Closed())
    assert main(["run", "--model", "m", "--n", "4"]) == 0
    assert main(["run", "--record", "results", "--out", "again"]) == 0
    assert sorted(os.listdir()) == ["again", "results"]
    assert main(["run", "--n", "0"]) == 2


def test_a_report_that_finds_no_room(
    loaded: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """stdout on a full disk: the results are there, and stderr says that the report was not printed."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["run", "--model", "m", "--n", "4"]) == 0
    said = "stdout can't be written (No space left on device); the results are in results/\n"
    assert refusal(capsys.readouterr().err) == said
    assert os.listdir() == ["results"]


def test_a_console_of_ascii_shows_the_rest(loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A character that can't be printed is printed as its number, and the file has it as it is."""
    path = write_prompts(Path("χ.txt"), [MARY, KATE])
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["run", "--model", "m", "--active", path, "--control", path, "--out", "ρ"]) == 0
    screen.flush()
    assert b"written to \\u03c1/" in screen.buffer.getvalue()
    assert Path("ρ/report.txt").is_file()


STAGES: dict[str, tuple[Any, str]] = {
    "loading": (command, "load_model"),
    "recording": (command, "record_attention"),
    "analysing": (command, "analyse"),
    "drawing": (importlib.import_module("helpers.results"), "all_figures"),
    "saving records": (AttentionRecord, "save"),
}


@pytest.mark.parametrize("earlier", [True, False], ids=["earlier results", "none"])
@pytest.mark.parametrize(("where", "name"), STAGES.values(), ids=STAGES)
def test_stopped_or_out_of_room_at_any_stage(
    where: Any, name: str, earlier: bool, loaded: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Ctrl-C is status 130, a full disk 2, each one sentence; earlier results are as they were, and nothing else is there."""
    if earlier:
        assert main(["run", "--model", "m", "--n", "4"]) == 0
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    for error, status in (
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device", "x"), 2),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 2),
    ):
        if isinstance(error, SafetensorError) and name != "save":
            continue  # only what saves records says so

        def stop(*args: Any, error: BaseException = error, **options: Any) -> None:
            raise error

        capsys.readouterr()
        with monkeypatch.context() as patched:
            patched.setattr(where, name, stop)
            assert main(["run", "--model", "m", "--n", "5"]) == status
        said = capsys.readouterr()
        assert said.out == ""
        line = refusal(said.err)
        assert line == "stopped; nothing is written\n" if status == 130 else "No space left on device" in line
        assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before


@pytest.fixture
def unreadable(loaded: list[str]) -> Iterator[Path]:
    """An earlier results folder, and a prompt file, that one may not read or change."""
    assert main(["run", "--model", "m", "--n", "4", "--out", "old"]) == 0
    write_prompts(Path("a.txt"), [MARY, KATE])
    for name in ("a.txt", "old"):
        Path(name).chmod(0)
    Path().chmod(0o555)
    if os.access("old", os.R_OK):
        Path().chmod(0o755)
        pytest.skip("who runs this may read and write all")
    yield Path("old")
    Path().chmod(0o755)
    Path("old").chmod(0o755)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--active", "a.txt", "--control", "a.txt"], "--active a.txt: expected a text file in UTF-8, one prompt a line, got a file that can't be read"),
        (["--out", "old"], "out: expected a folder that can be written, got 'old'"),
        (["--out", "new"], "out: expected a folder that can be written, got 'new'"),
        (["--record", "old"], "--record: expected an earlier results folder, got 'old'"),
    ],
)  # fmt: skip
def test_without_permission(
    given: list[str], sentence: str, unreadable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To read the prompts, to look into the results, to write beside them: one sentence with the reason."""
    capsys.readouterr()
    assert main(["run", "--model", "m", *given]) == 2
    said = refusal(capsys.readouterr().err)
    assert said.startswith(f"error: {sentence}")
    assert "Permission denied)" in said


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit to the size of a file")
def test_a_disk_that_fills_up_while_results_are_written(
    loaded: list[str], tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system itself refuses one byte of each file in turn: status 2, one sentence, and the earlier results are whole."""
    import resource

    assert main(["run", "--model", "m", "--n", "4"]) == 0
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    sizes = {len(content) for content in before.values() if content}
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in sorted(sizes):

        def load(name: str, size: int = size) -> Any:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, most))
            return tiny

        capsys.readouterr()
        monkeypatch.setattr(command, "load_model", load)
        try:
            assert main(["run", "--model", "m", "--n", "4"]) == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert refusal(capsys.readouterr().err).startswith("error: out: 'results' can't be written, and is as it was")
        assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before
    assert len(sizes) >= 5


def test_two_runs_into_one_folder(loaded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The second is told so before its model is loaded; the first is not disturbed."""
    said: list[int] = []
    with claimed("results"):
        second = threading.Thread(target=lambda: said.append(main(["run", "--model", "m"])))
        second.start()
        second.join()
        assert (said, loaded) == ([2], [])
        assert (
            capsys.readouterr().err == "error: out: expected a folder that no other run is writing to, got 'results'\n"
        )
        assert main(["run", "--model", "m", "--n", "4"]) == 0
    assert os.listdir() == ["results"]


#: ``python -m helpers`` in a process of its own, with one empty figure for all, as in this file's other tests.
QUICKLY = """
import runpy
from matplotlib.figure import Figure
import helpers.results
helpers.results.all_figures = lambda experiment: {"empty": Figure(figsize=(1, 1))}
runpy.run_module("helpers", run_name="__main__", alter_sys=True)
"""


ENDS = ["> /dev/full", "2> /dev/full", "> /dev/full 2>&1", ">&-", "2>&-", ">&- 2>&-"]


@pytest.fixture(scope="module")
def replays(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A folder with a replay for each of `ENDS`, in ``new-0``, …, and the status of each (see consoles.py)."""
    folder = tmp_path_factory.mktemp("consoles")
    for name, prompts in (("active", ioi_prompts(4)), ("control", abc_prompts(4))):
        record_attention(tiny, prompts, progress=False).save(folder / f"old/records/{name}.safetensors")
    given = [word for i, ends in enumerate(ENDS) for word in (ends, f"new-{i}")]
    script = [sys.executable, str(Path(__file__).with_name("consoles.py")), *given]
    done = subprocess.run(script, cwd=folder, capture_output=True, text=True, check=True)
    return folder, dict(zip(ENDS, map(int, done.stdout.split()), strict=True))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("ends", ENDS)
def test_consoles_that_are_full_or_closed(ends: str, replays: tuple[Path, dict[str, int]]) -> None:
    """Both streams of a real process, full or closed from the start: saved, status 0; a report stays off stderr and vice versa."""
    folder, statuses = replays
    out = f"new-{ENDS.index(ends)}"
    assert statuses[ends] == 0
    report = Path(folder, out, "report.txt").read_text(encoding="utf-8")
    stdout, stderr = (Path(folder, f"{out}.{name}").read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    assert stdout == ("" if ends.startswith(">") else f"{report}\nwritten to {out}/\n")
    announced = "" if "2>" in ends else f"results go to {folder.resolve() / out}/\n"
    full = f"stdout can't be written (No space left on device); the results are in {out}/\n" * (ends == "> /dev/full")
    assert stderr == announced + full


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("ends", ENDS)
def test_streams_are_those_that_python_makes(ends: str) -> None:
    """The forks that stand for a fresh Python have its streams: none where the shell has closed the descriptor."""
    code = "import os, sys; os._exit(10 * (sys.stdout is None) + (sys.stderr is None))"
    done = subprocess.run(f"{shlex.join([sys.executable, '-c', code])} {ends}", shell=True, check=False)
    closed = ends.split()
    assert done.returncode == 10 * (">&-" in closed) + ("2>&-" in closed)


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe that is closed and SIGTERM are not of Windows")
def test_processes_that_are_cut_short(tiny_folder: Path, loaded: list[str]) -> None:
    """A real pipe that is closed after a line, in ASCII: results saved, no traceback; SIGTERM while loading: nothing is left."""
    assert main(["run", "--model", "m", "--n", "4", "--out", "old"]) == 0
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "ascii"}
    replay = shlex.join([sys.executable, "-c", QUICKLY, "run", "--record", "old", "--out", "ρ"])
    done = subprocess.run(f"{replay} | head -1", shell=True, capture_output=True, check=False, env=environment)
    assert done.stdout.startswith(b"model ")
    assert done.stderr.decode().count("\n") == 1, done.stderr
    assert Path("ρ/report.txt").is_file()
    with subprocess.Popen(
        [sys.executable, "-m", "helpers", "run", "--model", str(tiny_folder)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("results go to ")
        process.terminate()
        assert process.wait() == 143
    assert sorted(os.listdir()) == ["old", "ρ"]


# What stands in front of every prompt


@pytest.mark.parametrize(
    ("given", "tokens", "first"),
    [([], {}, "BOS"), (["--bos", "lamp"], {"bos": "lamp"}, "lamp"), (["--no-bos"], {"prepend_bos": False}, "When")],
)
def test_bos_of_a_run(given: list[str], tokens: dict[str, Any], first: str, loaded: list[str], tiny: Any) -> None:
    """The rows and the readout are those that `record_attention` gives with the same token, or none, in front."""
    assert main(["run", "--model", "m", "--n", "6", *given]) == 0
    for found, prompts in zip(load_records("results"), (ioi_prompts(6), abc_prompts(6)), strict=True):
        wanted = record_attention(tiny, prompts, readout=True, progress=False, **tokens)
        assert found.settings == wanted.settings
        assert [p.ids for p in found.prompts] == [p.ids for p in wanted.prompts]
        assert found.readout is not None
        assert wanted.readout is not None
        assert torch.equal(found.readout.logit_difference, wanted.readout.logit_difference)
        torch.testing.assert_close(found.rows, wanted.rows, atol=1e-3, rtol=0)  # stored in half the bits
        assert {p.tokens[0] for p in found.prompts} <= {first, tiny.tokenizer.bos_token, "After"}


@pytest.mark.parametrize(
    ("given", "tokens", "hint"),
    [(["--bos", "lamp"], {"bos": "lamp"}, " BOS=lamp"), (["--no-bos"], {"prepend_bos": False}, " NO_BOS=1")],
)
def test_bos_of_a_circuit(
    given: list[str], tokens: dict[str, Any], hint: str, loaded: list[str], tiny: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Prompts, patching and attribution have it; the effects are those of Python's; the hint at the end says it again."""
    assert main(["circuit", "--model", "m", "--n", "4", "--min-accuracy", "0", "--screen", *given]) == 0
    assert f"make run MODEL=m{hint} CIRCUIT=results-circuit scores with it" in capsys.readouterr().out
    found = MeasuredCircuit.load("results-circuit")
    fitted = fit_to_model(tiny, "ioi", 4, **tokens)
    pairs = fitted.clean, fitted.corrupt
    wanted = find_circuit(tiny, pairs, screen=SCREEN, min_accuracy=0, progress=False, **tokens)
    assert found.about["settings"] == wanted.about["settings"] == {"dtype": "float32", "prepend_bos": True} | tokens
    for column in ("denoising", "noising", "attribution_denoising", "attribution_noising"):
        np.testing.assert_allclose(found.table[column], wanted.table[column], atol=1e-5)


@pytest.mark.parametrize("name", ["run", "circuit"])
def test_a_tokenizer_without_bos_names_the_option(
    name: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence with the options of the command line, not with the arguments of Python; --no-bos works."""
    model = load_model(str(tiny_folder))
    model.tokenizer.bos_token = None
    monkeypatch.setattr(command, "load_model", lambda name: model)
    given = [name, "--model", "m", "--n", "4", *(["--min-accuracy", "0"] if name == "circuit" else [])]
    assert main(given) == 2
    sentence = "error: --bos: expected --bos TOKEN or --no-bos, for a tokenizer without a BOS token, got neither\n"
    assert refusal(capsys.readouterr().err) == sentence
    assert os.listdir() == []
    assert main([*given, "--no-bos"]) == 0


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize(
    ("given", "options"), [(["BOS=<|a b|>"], '--bos="<|a b|>"'), (["NO_BOS=1"], "--no-bos"), ([], "")]
)
def test_make_hands_bos_on(given: list[str], options: str) -> None:
    """``make run BOS=... NO_BOS=1`` as the command line has them; told what it would do, make does nothing."""
    root = Path(command.__file__).parents[1]
    for target in ("run", "circuit"):
        done = subprocess.run(["make", "-n", target, *given], cwd=root, capture_output=True, text=True, check=True)
        (said,) = (line for line in done.stdout.splitlines() if f"helpers {target}" in line)
        assert said.split(f"helpers {target}")[1].strip() == options


# Scored with a circuit


def test_scored_with_the_circuit_of_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """From the folder that `circuit` wrote: its heads are the circuit's, and the report has all three label rules."""
    assert main(["circuit", "--n", "12"]) == 0
    found = MeasuredCircuit.load("results-circuit")
    said = capsys.readouterr().out
    assert said.startswith(Path("results-circuit/report.txt").read_text())
    assert said.endswith("written to results-circuit/; make run MODEL=demo CIRCUIT=results-circuit scores with it\n")
    for path in ("results-circuit", "results-circuit/heads.csv"):
        assert main(["run", "--n", "6", "--circuit", path, "--out", "out"]) == 0
        text = capsys.readouterr().out
        assert "How far that depends on the threshold (5% is the one that counts)" in text
        assert f"(circuit: {found.circuit().source})" in text
        table = pd.read_csv("out/heads.csv")
        assert table.in_circuit.tolist() == found.table.causal.tolist()
        assert set(json.loads(Path("out/statistics.json").read_text())["other_rankings"]) == {"2%", "10%"}


def test_shape_is_checked_before_anything_is_run(loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The circuit of a 30 x 9 model on one of 3 x 4: refused with the model loaded, and no forward pass made."""
    monkeypatch.setattr(command, "record_attention", lambda *args, **options: pytest.fail("run"))
    assert main(["run", "--model", "m", "--circuit", "demo"]) == 2
    assert loaded == ["m"]


def test_circuits_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A model's name, and a name and a task, give the circuit that ships; a NOTE says that IOI is another task."""
    assert main(["run", "--n", "12", "--out", "known"]) == 0
    assert main(["run", "--n", "12", "--circuit", "demo", "--out", "named"]) == 0
    assert Path("known/report.txt").read_text() == Path("named/report.txt").read_text()
    capsys.readouterr()
    for model, task in measured_tasks():
        if model == "demo" and task != "ioi":
            assert main(["run", "--record", "known", "--circuit", f"demo/{task}", "--out", "other"]) == 0
            said = capsys.readouterr().out
            assert f"NOTE  The circuit was measured on the task '{task}', and these are IOI prompts." in said


# The circuit of a model


CIRCUIT_REFUSED: dict[str, tuple[Callable[[], list[str]], str]] = {
    "n = 0": (lambda: ["--n", "0"], "n: expected at least 2 pairs, for intervals over pairs, got 0"),
    "n = 1": (lambda: ["--n", "1"], "n: expected at least 2 pairs, for intervals over pairs, got 1"),
    "unknown task": (lambda: ["--task", "chess"], "task: expected one of ioi, repeated, ownership, agreement, greater_than, acronyms, got 'chess'"),
    "too many pairs": (lambda: ["--n", "100000"], "task 'ioi': expected at least 100000 pairs of one length, this tokenizer makes"),
    "no pairs of one length": (lambda: ["--task", "greater_than"], "task 'greater_than': expected at least 32 pairs of one length, this tokenizer makes 0"),
    "accuracy": (lambda: [], "of the clean prompts, got"),
    "no share": (lambda: ["--min-accuracy", "90"], "min_accuracy: expected a share from 0 to 1, got 90.0"),
    "foreign out": (_foreign, "out: expected a new folder or an earlier results folder, got 'thesis'"),
    "work of others": (lambda: [*_work(), "--min-accuracy", "0"], "work: expected a new folder or what an earlier run of the same measurement left, got 'results-circuit.unfinished'"),
}  # fmt: skip


def _work() -> list[str]:
    Path("results-circuit.unfinished").mkdir()
    Path("results-circuit.unfinished", "key").write_text("another")
    return []


@pytest.mark.parametrize(("arguments", "sentence"), CIRCUIT_REFUSED.values(), ids=CIRCUIT_REFUSED)
def test_circuit_refuses(
    arguments: Callable[[], list[str]], sentence: str, loaded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As `run`: status 2, one sentence, nothing written or changed, and no head patched."""
    given = arguments()
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    assert main(["circuit", "--model", "m", *given]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert refusal(said.err).startswith("error: ")
    assert sentence in refusal(said.err)
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before
    assert loaded == [] or not {"--n", "chess", "thesis"} & {*given} or "100000" in given


def test_ctrl_c_keeps_the_finished_layers(
    loaded: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped by Ctrl-C: status 130 and where the layers are; the same command goes on, to the table of an unbroken run."""
    given = ["circuit", "--model", "m", "--n", "6", "--min-accuracy", "0"]
    assert main([*given, "--out", "unbroken"]) == 0
    noise, calls = StoredPairs.noise, []

    def stop(self: Any, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return noise(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(StoredPairs, "noise", stop)
        assert main([*given, "--out", "out"]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "stopped; finished layers are in out.unfinished/: the same command goes on from there"
    assert not Path("out").exists()
    assert len([*Path("out.unfinished").glob("layer-*.npy")]) == 2
    assert main([*given, "--out", "out"]) == 0
    for name in ("heads.csv", "circuit.json", "report.txt"):
        assert Path("out", name).read_bytes() == Path("unbroken", name).read_bytes()
    assert sorted(os.listdir()) == ["out", "unbroken"]


def test_ctrl_c_before_anything_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped while the model is loading: status 130, nothing to go on from."""

    def load(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "load_model", load)
    assert main(["circuit"]) == 130
    assert refusal(capsys.readouterr().err) == "stopped; nothing is kept\n"


def test_screened_circuit(capsys: pytest.CaptureFixture[str]) -> None:
    """--screen: heads below the bound are not patched, and report and run say so."""
    assert main(["circuit", "--n", "12", "--screen", "--out", "c"]) == 0
    found = MeasuredCircuit.load("c")
    assert found.table.denoising.notna().sum() == found.about["heads_patched"] < 48
    assert "A head that it misjudges is missing." in capsys.readouterr().out
    assert main(["run", "--n", "6", "--circuit", "c", "--out", "out"]) == 0
    assert "NOTE  The circuit was screened by attribution patching" in capsys.readouterr().out


# The check of the published result


def test_reproduce_says_how_many_figures_agree(capsys: pytest.CaptureFixture[str]) -> None:
    """Made-up records of GPT-2 small's shape: status 1, a scorecard on stdout and in the folder, the count last."""
    for seed, side in enumerate(("active", "control")):
        prompts = [toy_prompt(15, i, C=10) for i in range(50)]
        rows = random_rows(50, 12, 12, 15, seed=seed)
        AttentionRecord(prompts, rows, "END", "gpt2-small").save(Path("old", "records", f"{side}.safetensors"))
    assert main(["reproduce", "--record", "old", "--out", "out"]) == 1
    lines = capsys.readouterr().out.splitlines()
    card = pd.read_csv("out/scorecard.csv")
    assert lines[-1] == f"{card.agrees.sum()} of {len(card)} published figures agree"
    assert lines[-1] in Path("out/scorecard.txt").read_text()


def test_reproduce_refuses_another_model(loaded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A model of another shape is no GPT-2 small: status 2, nothing written."""
    assert main(["reproduce", "--model", "m", "--out", "out"]) == 2
    assert "circuit: expected heads of a model of shape (3, 4)" in capsys.readouterr().err
    assert os.listdir() == []
