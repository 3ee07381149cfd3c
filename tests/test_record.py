"""The attention record: round trip through one safetensors file, refusals, positions, subsets, what a row can see."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import causal_rows, random_rows, toy_prompt, toy_record
from safetensors import safe_open
from safetensors.torch import save_file

import helpers.attention.record as record_module
from helpers.attention.record import AttentionRecord, Readout
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import tokenize


def readout(n: int) -> Readout:
    """Made-up answers, the last prompt without any (NaN)."""
    values = torch.arange(4.0 * n, dtype=torch.float64).reshape(4, n) / 7
    values[:, -1] = torch.nan
    return Readout(*values)


@pytest.fixture
def full(words: Any) -> AttentionRecord:
    """A record that uses every field: prompts of two kinds, one with sets of answers, settings, windows, a readout."""
    many = Prompt("Mary went to the park because", answers=("she", "it"), foils=("he",))
    prompts = tokenize([*ioi_prompts(2), *abc_prompts(1), many], words)
    rows = random_rows(4, 2, 3, 15)
    return AttentionRecord(prompts, rows, "END", "toy", {"dtype": "float32", "prepend_bos": True}, (0, 5), readout(4))


def assert_same(left: AttentionRecord, right: AttentionRecord) -> None:
    """Equal in every field, rows and readout bit by bit (NaN = NaN)."""
    for what in ("query", "model", "settings", "windows"):
        assert getattr(left, what) == getattr(right, what), what
    assert list(left.prompts) == list(right.prompts)
    assert left.rows.dtype == right.rows.dtype
    assert torch.equal(left.rows, right.rows)
    assert (left.readout is None) == (right.readout is None)
    if left.readout and right.readout:
        for name, values in vars(left.readout).items():
            torch.testing.assert_close(vars(right.readout)[name], values, rtol=0, atol=0, equal_nan=True)


# Files


def test_round_trip(full: AttentionRecord, tmp_path: Path) -> None:
    """Load after save gives back every field, spans and positions of the prompts included."""
    full.save(tmp_path / "a.safetensors")
    assert_same(AttentionRecord.load(tmp_path / "a.safetensors"), full)


def test_prompts_saved_before_there_were_sets_of_answers(full: AttentionRecord, tmp_path: Path) -> None:
    """A file whose prompts lack answers and foils loads as if both were empty."""
    file = tmp_path / "a.safetensors"
    full.save(file)
    with safe_open(str(file), framework="pt") as saved:
        about, tensors = (
            json.loads(saved.metadata()["about"]),
            {name: saved.get_tensor(name) for name in saved.offset_keys()},
        )
    for prompt in about["prompts"]:
        del prompt["prompt"]["answers"], prompt["prompt"]["foils"]
    save_file(tensors, file, metadata={"about": json.dumps(about)})
    prompts = [replace(p, prompt=replace(p.prompt, answers=(), foils=())) for p in full.prompts]
    assert_same(AttentionRecord.load(file), replace(full, prompts=prompts))


@pytest.mark.parametrize("query", ["END", "all"])
def test_round_trip_of_the_smallest_record(query: str, tmp_path: Path) -> None:
    """No readout, windows or settings; a new folder is made; a path may be a string."""
    record = toy_record(causal_rows([3, 4]) if query == "all" else random_rows(2, 2, 3, 4), query=query)
    path = str(tmp_path / "new" / "folder" / "a.safetensors")
    record.save(path)
    assert_same(AttentionRecord.load(path), record)


def test_rows_that_are_views_are_saved_as_they_look(tmp_path: Path) -> None:
    """A record of every second prompt and of one query position: rows are strided views."""
    record = toy_record(causal_rows([5, 5, 5]), query="all").at("END").subset([2, 0])
    strided = AttentionRecord(record.prompts, record.rows.flip(-1).transpose(1, 2).transpose(1, 2), "END", "toy")
    strided.save(tmp_path / "a.safetensors")
    assert torch.equal(AttentionRecord.load(tmp_path / "a.safetensors").rows, strided.rows)


def test_never_pickle(full: AttentionRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is no zip or pickle, and neither direction pickles anything."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("pickled")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    path = tmp_path / "a.safetensors"
    full.save(path)
    AttentionRecord.load(path)
    header = int.from_bytes(path.read_bytes()[:8], "little")  # safetensors: 8 bytes of length, then JSON
    assert path.read_bytes()[8:9] == b"{"
    assert header < path.stat().st_size
    assert not zipfile.is_zipfile(path)


@pytest.mark.parametrize("when", ["before", "half way"])
def test_failed_save_leaves_the_old_file(
    when: str, full: AttentionRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails, even half way through the file, leaves the old record and no other file."""
    path = tmp_path / "a.safetensors"
    full.save(path)

    def fail(tensors: Any, target: Path, **options: Any) -> None:
        if when == "half way":
            target.write_bytes(b"half a rec")
        raise OSError("No space left on device")

    monkeypatch.setattr(record_module, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        full.subset([0, 1]).save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert_same(AttentionRecord.load(path), full)


def test_save_replaces_an_old_file(full: AttentionRecord, tmp_path: Path) -> None:
    """Saving twice keeps the second record, and no part file."""
    full.save(tmp_path / "a.safetensors")
    full.subset([1]).save(tmp_path / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert_same(AttentionRecord.load(tmp_path / "a.safetensors"), full.subset([1]))


def test_missing_file(tmp_path: Path) -> None:
    """A path without a file, or of a folder, is refused by name."""
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=rf"^path: no attention record at '{path}'$"):
            AttentionRecord.load(path)


WRONG_FILES = {
    "text": lambda path: path.write_text("not a record"),
    "empty": lambda path: path.write_bytes(b""),
    "pickle": lambda path: torch.save({"rows": torch.ones(2)}, path),
    "other safetensors": lambda path: save_file({"weight": torch.ones(2)}, path),
    "other metadata": lambda path: save_file({"weight": torch.ones(2)}, path, metadata={"format": "pt"}),
    "metadata is no JSON": lambda path: save_file({"rows": torch.ones(2)}, path, metadata={"about": "{"}),
    "metadata is a list": lambda path: save_file({"rows": torch.ones(2)}, path, metadata={"about": "[]"}),
    "other version": lambda path: save_file(
        {"rows": torch.ones(2)}, path, metadata={"about": '{"format": "attention-record/99"}'}
    ),
    "fields missing": lambda path: save_file(
        {"rows": torch.ones(2)}, path, metadata={"about": '{"format": "attention-record/1"}'}
    ),
}


@pytest.mark.parametrize("write", WRONG_FILES.values(), ids=WRONG_FILES)
def test_wrong_file(write: Any, tmp_path: Path) -> None:
    """A file that is no attention record is refused by one sentence that names it."""
    path = tmp_path / "a.safetensors"
    write(path)
    with pytest.raises(ValueError, match=r"^path: expected an attention record.*a\.safetensors") as refusal:
        AttentionRecord.load(path)
    assert "\n" not in str(refusal.value)


def test_cut_file(full: AttentionRecord, tmp_path: Path) -> None:
    """A record whose end is missing is refused, not read as zeros."""
    path = tmp_path / "a.safetensors"
    full.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"^path: expected an attention record"):
        AttentionRecord.load(path)


# Compact files


@pytest.mark.parametrize("window", [0, 2])
def test_compact_files(window: int, tmp_path: Path) -> None:
    """compact: END rows bit by bit, earlier rows to float16's 2^-11 and summing to 1, absent ones 0; a smaller file."""
    lengths = [30, 30, 21]
    rows = causal_rows(lengths, window=window)
    prompts = [toy_prompt(length, i, S2=length - 4) for i, length in enumerate(lengths)]
    record = AttentionRecord(prompts, rows, "all", "toy", {"dtype": "float32"}, (window, window), readout(3))
    record.save(tmp_path / "full")
    record.save(tmp_path / "compact", compact=True)
    back = AttentionRecord.load(tmp_path / "compact")
    assert (tmp_path / "compact").stat().st_size < 0.45 * (tmp_path / "full").stat().st_size
    assert_same(back.at("END"), record.at("END"))
    torch.testing.assert_close(back.rows, rows, rtol=2**-10, atol=1e-7)
    torch.testing.assert_close(back.rows.sum(-1), rows.sum(-1), rtol=0, atol=1e-6)
    assert not back.rows[rows == 0].any()
    assert not torch.equal(back.rows, rows)


def test_compact_files_without_compression_are_still_read(tmp_path: Path) -> None:
    """A file whose END rows and triangle are plain tensors (as earlier versions wrote) gives the same record."""
    full = toy_record(causal_rows([6, 9]), query="all", lengths=[6, 9])
    full.save(tmp_path / "new", compact=True)
    with safe_open(tmp_path / "new", framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        others = {name: file.get_tensor(name) for name in file.keys() if name not in about["packed"]}  # noqa: SIM118
    del about["packed"]
    query, key = torch.tril_indices(*full.rows.shape[-2:])
    plain = {"end": full.at("END").rows.contiguous(), "triangle": full.rows[..., query, key].half().contiguous()}
    save_file(plain | others, tmp_path / "old", metadata={"about": json.dumps(about)})
    back, expected = (AttentionRecord.load(tmp_path / name) for name in ("old", "new"))
    assert torch.equal(back.rows, expected.rows)
    assert back.prompts == expected.prompts


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    """One byte changed inside the compressed rows: one sentence, no rows."""
    full = toy_record(causal_rows([6, 9]), query="all", lengths=[6, 9])
    full.save(tmp_path / "record", compact=True)
    data = bytearray((tmp_path / "record").read_bytes())
    data[-40] ^= 0xFF
    (tmp_path / "record").write_bytes(data)
    with pytest.raises(ValueError, match="path: expected an attention record of format"):
        AttentionRecord.load(tmp_path / "record")


def test_compact_leaves_single_positions_alone(full: AttentionRecord, tmp_path: Path) -> None:
    """A record of one position has nothing to compact: it comes back bit by bit."""
    full.save(tmp_path / "a", compact=True)
    assert_same(AttentionRecord.load(tmp_path / "a"), full)


# Shape


@pytest.mark.parametrize(
    ("shape", "query", "words"),
    [
        ((2, 2, 3), "END", r"rows: expected 4 dimensions and 2 prompts, got shape \(2, 2, 3\)"),
        ((2, 2, 3, 5), "all", r"rows: expected 5 dimensions and 2 prompts, got shape \(2, 2, 3, 5\)"),
        ((2, 2, 3, 5, 5), "END", r"rows: expected 4 dimensions and 2 prompts, got shape \(2, 2, 3, 5, 5\)"),
        ((3, 2, 3, 5), "END", r"rows: expected 4 dimensions and 2 prompts, got shape \(3, 2, 3, 5\)"),
    ],
)
def test_refuses_a_wrong_shape(shape: Sequence[int], query: str, words: str) -> None:
    """Rows need 4 dimensions (5 for all queries) and one entry a prompt."""
    with pytest.raises(ValueError, match=words):
        AttentionRecord([toy_prompt(5), toy_prompt(5, 1)], torch.zeros(*shape), query, "toy")


def test_shape() -> None:
    """Layers and heads are axes 1 and 2, with or without a query axis."""
    for record in (toy_record(random_rows(1, 2, 3, 5)), toy_record(causal_rows([4]), query="all")):
        assert (record.n_layers, record.n_heads) == (2, 3)


# One position of all, some prompts of all


def test_at_takes_each_prompts_own_position() -> None:
    """at(p).rows[i] = rows[i, :, :, position of p in prompt i], for prompts where p differs."""
    rows = causal_rows([6, 4, 5])
    prompts = [toy_prompt(6, 0, S2=4), toy_prompt(4, 1, S2=1), toy_prompt(5, 2, S2=2)]
    record = AttentionRecord(prompts, rows, "all", "toy", {"dtype": "x"}, (3, 0), readout(3))
    for name, expected in {"S2": [4, 1, 2], "END": [5, 3, 4], "BOS": [0, 0, 0]}.items():
        one = record.at(name)
        assert one.query == name
        assert one.rows.shape == (3, 2, 3, 6)
        for i, t in enumerate(expected):
            assert torch.equal(one.rows[i], rows[i, :, :, t])
        assert (one.model, one.settings, one.windows, one.readout) == ("toy", {"dtype": "x"}, (3, 0), record.readout)
        assert one.at(name) is one


def test_at_refusals() -> None:
    """A record of one position has no other; a prompt without the position is refused."""
    with pytest.raises(ValueError, match="position: this record holds the rows of END only, got 'S2'"):
        toy_record(random_rows(2, 2, 3, 5)).at("S2")
    record = AttentionRecord([toy_prompt(5, 0, S2=3), toy_prompt(5, 1)], causal_rows([5, 5]), "all", "toy")
    with pytest.raises(ValueError, match="position: expected one of BOS, END, got 'S2'"):
        record.at("S2")


def test_subset_keeps_prompts_rows_and_answers_together(full: AttentionRecord) -> None:
    """subset([3, 1]) is prompt 3, then prompt 1, with their rows and answers; all indices give the record again."""
    some = full.subset([3, 1])
    assert some.prompts == [full.prompts[3], full.prompts[1]]
    assert torch.equal(some.rows, torch.stack([full.rows[3], full.rows[1]]))
    assert some.readout.p_answer[1] == full.readout.p_answer[1]
    assert some.readout.p_answer[0].isnan()
    assert_same(full.subset(range(4)), full)
    assert toy_record(random_rows(2, 2, 3, 5)).subset([1]).readout is None


# What a row can see


def test_end_rows_see_their_whole_prompt() -> None:
    """n = number of tokens, prompt by prompt; keys of a shorter prompt's missing end are hidden."""
    visible = toy_record(random_rows(3, 2, 3, 6), lengths=[6, 4, 1]).visible()
    expected = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(visible.expand(3, 2, 3, 6), expected[:, None, None].expand(3, 2, 3, 6))


def test_query_t_sees_t_plus_one_keys() -> None:
    """Without windows the mask of all queries is lower triangular; absent queries of a shorter prompt see nothing."""
    visible = toy_record(causal_rows([5, 3]), query="all", lengths=[5, 3]).visible().expand(2, 2, 3, 5, 5)
    triangle = torch.ones(5, 5, dtype=torch.bool).tril()
    assert torch.equal(visible[0], triangle.expand(2, 3, 5, 5))
    assert visible[1].sum(-1)[0, 0].tolist() == [1, 2, 3, 0, 0]
    assert torch.equal(visible[1, :, :, :3], triangle[:3].expand(2, 3, 3, 5))


def test_a_named_position_sees_keys_up_to_itself() -> None:
    """At position t of its own prompt a row sees t + 1 keys."""
    record = AttentionRecord([toy_prompt(6, 0, S2=4), toy_prompt(4, 1, S2=1)], random_rows(2, 2, 3, 6), "S2", "toy")
    assert record.visible().sum(-1).expand(2, 2, 3)[:, 0, 0].tolist() == [5, 2]


@pytest.mark.parametrize("query", ["all", "END"])
def test_windows(query: str) -> None:
    """With a window w a layer's query t sees the min(w, t + 1) keys that end at t; other layers see all t + 1."""
    record = (
        toy_record(causal_rows([5]), query="all", windows=(0, 2)).at("END")
        if query == "END"
        else toy_record(causal_rows([5]), query="all", windows=(0, 2))
    )
    visible = record.visible().expand(record.rows.shape)
    for layer, window in ((0, 5), (1, 2)):
        for t in range(5) if query == "all" else [4]:
            mask = visible[0, layer, 0, t] if query == "all" else visible[0, layer, 0]
            assert mask.tolist() == [t - window < key <= t for key in range(5)]


@pytest.mark.parametrize("lengths", [[5], [5, 3, 1]])
@pytest.mark.parametrize("window", [0, 2])
def test_visible_keys_hold_all_the_weight(window: int, lengths: list[int]) -> None:
    """Rows of a causal model sum to 1 over the keys they see, at every query that exists."""
    rows = causal_rows(lengths, window=window)
    record = toy_record(rows, query="all", lengths=lengths, windows=(window, window))
    seen = (rows * record.visible()).sum(-1)
    exists = torch.tensor([[t < length for t in range(5)] for length in lengths])
    torch.testing.assert_close(seen, exists[:, None, None, :].expand(seen.shape).float())
