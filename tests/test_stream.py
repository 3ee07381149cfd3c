"""Recording into a folder: chunks are one record in pieces, and a run that was stopped ends with the same files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models import save_tiny_gpt2, toy_record

from helpers import ioi_prompts, load_model, record_attention
from helpers.attention import record as record_module
from helpers.attention.record import AttentionRecord
from helpers.attention.stream import concatenate, load_folder, record_to_folder

#: Seven prompts of several lengths; in chunks of 3 the longest of each chunk differs.
TEXTS = [
    "Mary saw John",
    "Kate saw",
    "John",
    "When Mary and John went to the store",
    "Kate saw Mary",
    "red cup lamp red cup",
    "Tom and Mary saw John",
]


@pytest.fixture
def passes(tiny: Any) -> Iterator[list[int]]:
    """Number of prompts of each forward pass that began."""
    sizes: list[int] = []
    handle = tiny.original_model.transformer.wte.register_forward_hook(lambda m, args, out: sizes.append(len(args[0])))
    yield sizes
    handle.remove()


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of the same shape with other weights and another name."""
    return load_model(str(save_tiny_gpt2(tmp_path_factory.mktemp("models") / "other", seed=1)), device="cpu")


def record_all(model: Any, prompts: Any, folder: Path, **options: Any) -> list[AttentionRecord]:
    """Every chunk's record."""
    return list(record_to_folder(model, prompts, folder, **{"chunk": 3} | options))


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its content, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def assert_same(left: AttentionRecord, right: AttentionRecord) -> None:
    """Same prompts, rows to 1e-6 (batches differ), query, model, settings, windows and readout."""
    assert [p.prompt for p in left.prompts] == [p.prompt for p in right.prompts]
    torch.testing.assert_close(left.rows, right.rows, rtol=0, atol=1e-6)
    for name in ("query", "model", "settings", "windows"):
        assert getattr(left, name) == getattr(right, name)
    assert (left.readout is None) == (right.readout is None)
    if left.readout and right.readout:
        for name, values in vars(left.readout).items():
            torch.testing.assert_close(values, getattr(right.readout, name), rtol=0, atol=1e-5, equal_nan=True)


# Chunks


@pytest.mark.parametrize("query", ["END", "all"])
@pytest.mark.parametrize("chunk", [1, 3, 7, 500])
def test_chunks_equal_one_call(query: str, chunk: int, tiny: Any, tmp_path: Path) -> None:
    """Read back, or joined as they were yielded, the chunks are the record of one call, padding included."""
    expected = record_attention(tiny, TEXTS, query=query, progress=False)
    yielded = record_all(tiny, TEXTS, tmp_path, chunk=chunk, query=query)
    sizes = [min(chunk, 7 - start) for start in range(0, 7, chunk)]
    assert [len(record.prompts) for record in yielded] == sizes
    assert sorted(files(tmp_path)) == [f"{number:05}.safetensors" for number in range(len(sizes))]
    assert_same(load_folder(tmp_path), expected)
    assert_same(concatenate(yielded), expected)


def test_readouts_are_joined(tiny: Any, tmp_path: Path) -> None:
    """readout=True: the answers of all chunks in the prompts' order."""
    record_all(tiny, ioi_prompts(7), tmp_path, readout=True)
    expected = record_attention(tiny, ioi_prompts(7), readout=True, progress=False)
    assert expected.readout.logit_difference.unique().numel() == 7
    assert_same(load_folder(tmp_path), expected)


def test_shows_no_progress_bar_unless_asked(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Quiet by default; progress=True shows a bar a chunk."""
    record_all(tiny, TEXTS, tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    record_all(tiny, TEXTS, tmp_path / "bars", progress=True)
    assert "/3 [" in capsys.readouterr().err


def test_takes_at_most_one_chunk_ahead(tiny: Any, tmp_path: Path) -> None:
    """From an endless generator: nothing is taken before the first record is asked for, then 3 prompts a record."""
    taken: list[str] = []

    def lines() -> Iterator[str]:
        while True:
            taken.append(TEXTS[len(taken) % 7])
            yield taken[-1]

    records = record_to_folder(tiny, lines(), tmp_path, chunk=3)
    assert taken == []
    for number in range(1, 4):
        record = next(records)
        assert len(taken) == 3 * number
        assert [p.prompt.text for p in record.prompts] == taken[-3:]
        assert len(files(tmp_path)) == number


# Stopped and gone on


def killed(texts: list[str], after: int) -> Iterator[str]:
    """A source of prompts that fails."""
    yield from texts[:after]
    raise KeyboardInterrupt


@pytest.mark.parametrize(("after", "whole"), [(0, 0), (2, 0), (3, 1), (5, 1), (6, 2)])
def test_goes_on_after_the_source_failed(after: int, whole: int, tiny: Any, tmp_path: Path, passes: list[int]) -> None:
    """The prompts of whole chunks never run again, and the files end as those of a run that was not stopped."""
    record_all(tiny, TEXTS, tmp_path / "straight")
    assert sum(passes) == 7
    with pytest.raises(KeyboardInterrupt):
        record_all(tiny, killed(TEXTS, after), tmp_path / "stopped")
    assert len(files(tmp_path / "stopped")) == whole
    passes.clear()
    records = record_all(tiny, TEXTS, tmp_path / "stopped")
    assert sum(passes) == 7 - 3 * whole
    assert files(tmp_path / "stopped") == files(tmp_path / "straight")
    assert_same(concatenate(records), record_attention(tiny, TEXTS, progress=False))


def test_goes_on_after_the_reader_stopped(tiny: Any, tmp_path: Path, passes: list[int]) -> None:
    """A reader that leaves after two chunks has both on disk, with readouts; the rest is made by the next run."""
    options = {"chunk": 3, "readout": True}
    record_all(tiny, ioi_prompts(7), tmp_path / "straight", **options)
    for number, _ in enumerate(record_to_folder(tiny, ioi_prompts(7), tmp_path / "stopped", **options)):
        if number == 1:
            break
    assert len(files(tmp_path / "stopped")) == 2
    passes.clear()
    record_all(tiny, ioi_prompts(7), tmp_path / "stopped", **options)
    assert sum(passes) == 1
    assert files(tmp_path / "stopped") == files(tmp_path / "straight")


def test_finished_run_computes_nothing(tiny: Any, tmp_path: Path, passes: list[int]) -> None:
    """A second run over a finished folder reads the same records and does no forward pass."""
    first = record_all(tiny, TEXTS, tmp_path)
    before = files(tmp_path)
    passes.clear()
    second = record_all(tiny, TEXTS, tmp_path)
    assert passes == []
    assert files(tmp_path) == before
    for left, right in zip(first, second, strict=True):
        assert torch.equal(left.rows, right.rows)


def test_failing_forward_pass_leaves_whole_chunks(tiny: Any, tmp_path: Path) -> None:
    """Out of memory in the second chunk: the first stays, no part of the second does."""
    calls = []

    def fail(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 4:  # three prompts of three lengths in the first chunk
            raise RuntimeError("out of memory")

    handle = tiny.original_model.transformer.h[1].mlp.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="out of memory"):
            record_all(tiny, TEXTS, tmp_path)
    finally:
        handle.remove()
    assert list(files(tmp_path)) == ["00000.safetensors"]


def test_failing_save_leaves_no_half_chunk(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of the second file: only the first is there, and the next run goes on."""
    real = record_module.save_file

    def full(tensors: Any, path: Path, **options: Any) -> None:
        real(tensors, path, **options)
        if list(tmp_path.joinpath("stopped").glob("0*")):
            Path(path).write_bytes(Path(path).read_bytes()[:100])
            raise OSError(28, "No space left on device")

    record_all(tiny, TEXTS, tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr(record_module, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            record_all(tiny, TEXTS, tmp_path / "stopped")
    assert list(files(tmp_path / "stopped")) == ["00000.safetensors"]
    record_all(tiny, TEXTS, tmp_path / "stopped")
    assert files(tmp_path / "stopped") == files(tmp_path / "straight")


# Refusals


def test_refuses_what_is_no_list_of_prompts(tiny: Any, tmp_path: Path) -> None:
    """A bare text is named before anything is read or written, whether the folder has chunks or not; so is an odd item."""
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"^prompts: expected a list of texts or Prompts, got one text, 'Mary saw'$"
        ):
            record_all(tiny, "Mary saw", tmp_path)
        record_all(tiny, TEXTS, tmp_path)
        before = files(tmp_path)
        odd = [*TEXTS[:3], None]
        with pytest.raises(
            ValueError, match=r"^chunk 1 \(prompts from 4\): prompts: expected .*, got None as prompt 1$"
        ):
            record_all(tiny, odd, tmp_path)
        assert files(tmp_path) == before
    with pytest.raises(ValueError, match=r"^folder: expected a folder that can be written, got '~nobody_/x'"):
        record_all(tiny, TEXTS, "~nobody_/x")


@pytest.mark.parametrize("name", ["other prompts", "other borders", "other model"])
def test_refuses_the_folder_of_another_run(name: str, tiny: Any, other_model: Any, tmp_path: Path) -> None:
    """Other prompts, other borders or another model: one sentence that names the file; nothing is changed."""
    record_all(tiny, TEXTS, tmp_path)
    before = files(tmp_path)
    model = other_model if name == "other model" else tiny
    prompts = TEXTS[::-1] if name == "other prompts" else TEXTS
    sentence = f"folder: '{tmp_path}/00000.safetensors' holds a record of another run"
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        record_all(model, prompts, tmp_path, chunk=4 if name == "other borders" else 3)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "options", [{"query": "all"}, {"query": "BOS"}, {"prepend_bos": False}, {"bos": "lamp"}, {"readout": True}], ids=str
)
def test_refuses_the_folder_of_other_options(options: dict[str, Any], tiny: Any, tmp_path: Path) -> None:
    """Rows of another position, without BOS, or a readout that the folder lacks are not what the folder holds."""
    record_all(tiny, TEXTS, tmp_path)
    with pytest.raises(ValueError, match=r"^folder: "):
        record_all(tiny, TEXTS, tmp_path, **options)


def test_another_bos_goes_on(tiny: Any, tmp_path: Path, passes: list[int]) -> None:
    """A folder made with another BOS, by its name, is that of the same BOS by its id: nothing is computed again."""
    first = record_all(tiny, TEXTS[:2], tmp_path, bos="lamp")
    passes.clear()
    second = record_all(tiny, TEXTS[:2], tmp_path, bos=tiny.tokenizer.convert_tokens_to_ids("lamp"))
    assert passes == []
    assert first[0].settings == second[0].settings == {"dtype": "float32", "prepend_bos": True, "bos": "lamp"}


def test_refuses_the_folder_of_another_precision(tiny: Any, tiny_folder: Path, tmp_path: Path) -> None:
    """The same model in bfloat16 gives other rows; a folder that mixes both is no record of either."""
    record_all(tiny, TEXTS[:3], tmp_path)
    with pytest.raises(ValueError, match=r"^folder: "):
        record_all(load_model(str(tiny_folder), device="cpu", dtype="bfloat16"), TEXTS, tmp_path)


def test_shorter_run_does_not_own_the_folder(tiny: Any, tmp_path: Path) -> None:
    """Chunks beyond the prompts' end belong to another run: the folder read back must not hold more than was asked."""
    record_all(tiny, TEXTS, tmp_path)
    with pytest.raises(ValueError, match=r"^folder: "):
        record_all(tiny, TEXTS[:3], tmp_path)


def test_same_texts_with_other_names_are_other_prompts(tiny: Any, tmp_path: Path) -> None:
    """A bare text and a `Prompt` of the same text differ in their named positions."""
    prompts = ioi_prompts(3)
    record_all(tiny, [prompt.text for prompt in prompts], tmp_path)
    with pytest.raises(ValueError, match=r"^folder: "):
        record_all(tiny, prompts, tmp_path)


@pytest.mark.parametrize("bad", ["", "When Zebulon went", "Mary " * 64])
def test_bad_prompt_names_its_chunk(bad: str, tiny: Any, tmp_path: Path) -> None:
    """The fifth prompt is the second of chunk 1, whose prompts begin with the fourth; chunk 0 is kept."""
    with pytest.raises(ValueError, match=r"^chunk 1 \(prompts from 4\): prompt 2: "):
        record_all(tiny, [*TEXTS[:4], bad, *TEXTS[5:]], tmp_path)
    assert list(files(tmp_path)) == ["00000.safetensors"]


@pytest.mark.parametrize("chunk", [0, -1])
def test_chunk_size(chunk: int, tiny: Any, tmp_path: Path) -> None:
    """At least one prompt a file."""
    with pytest.raises(ValueError, match=f"^chunk: expected at least 1 prompt a file, got {chunk}$"):
        record_all(tiny, TEXTS, tmp_path, chunk=chunk)
    assert files(tmp_path) == {}


def test_empty_folder(tiny: Any, tmp_path: Path) -> None:
    """No prompts make no records; a folder without any, or that is not there, is refused by its name."""
    assert record_all(tiny, [], tmp_path) == []
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=f"^folder: no records in '{folder}'$"):
            load_folder(folder)


def test_foreign_file_in_the_folder(tiny: Any, tmp_path: Path) -> None:
    """A chunk's file that is no record is refused by its name and not overwritten."""
    (tmp_path / "00000.safetensors").write_bytes(b"notes")
    with pytest.raises(ValueError, match=r"^path: expected an attention record .*00000\.safetensors'$"):
        record_all(tiny, TEXTS, tmp_path)
    assert files(tmp_path) == {"00000.safetensors": b"notes"}


# Joining records


def test_shorter_rows_are_filled_with_zeros() -> None:
    """Rows of 3 and 5 keys: 5 keys, the two new ones 0; with all queries the new queries are 0 as well."""
    for query, shape in (("END", (2, 1, 1)), ("all", (2, 1, 1, 0))):
        short, long = (toy_record(torch.full([*(s or k for s in shape), k], 1 / k), query=query) for k in (3, 5))
        joined = concatenate([short, long])
        assert joined.rows.shape == (4, *long.rows.shape[1:])
        assert torch.equal(joined.rows[2:], long.rows)
        assert torch.equal(joined.rows[:2][(..., *[slice(3)] * (1 + (query == "all")))], short.rows)
        assert joined.rows[:2].count_nonzero() == short.rows.numel()
        assert [len(prompt) for prompt in joined.prompts] == [3, 3, 5, 5]


def test_readouts_are_dropped_if_one_is_missing(tiny: Any) -> None:
    """A record with a readout and one without: rows of both, no readout; nothing to join in a single record."""
    with_one = record_attention(tiny, ioi_prompts(2), readout=True, progress=False)
    without = record_attention(tiny, ioi_prompts(2), progress=False)
    for records in ([with_one, without], [without, with_one]):
        joined = concatenate(records)
        assert joined.readout is None
        assert len(joined.prompts) == len(joined.rows) == 4
    assert_same(concatenate([with_one]), with_one)


@pytest.mark.parametrize("change", [{"model": "other"}, {"query": "BOS"}])
def test_only_rows_of_one_kind_can_be_joined(change: dict[str, str]) -> None:
    """Another model or another query position: one sentence with both."""
    rows = torch.full((1, 1, 1, 2), 0.5)
    names = {"model": "toy", "query": "END"} | change
    sentence = f"records: expected rows of END on toy, got {names['query']} on {names['model']}"
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        concatenate([toy_record(rows), toy_record(rows, **change)])


def test_windows_and_settings_survive(tiny: Any) -> None:
    """Joining keeps the windows, on which the visible keys (and n) depend."""
    rows = torch.full((1, 2, 1, 4), 0.25)
    fields: dict[str, Any] = {"windows": (0, 2), "settings": {"dtype": "float32"}}
    joined = concatenate([toy_record(rows, **fields), toy_record(rows, **fields)])
    assert (joined.windows, joined.settings) == ((0, 2), {"dtype": "float32"})
    assert joined.visible().sum(-1).flatten(1).tolist() == [[4, 2], [4, 2]]


def test_no_records_cannot_be_joined() -> None:
    """Nothing to join is a refusal, not an index error."""
    with pytest.raises(ValueError, match=r"^records: "):
        concatenate([])
