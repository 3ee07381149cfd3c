"""Many prompts, a chunk at a time: records are written as they are made, and a run that was stopped goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers.attention.capture import record_attention, run_settings
from helpers.attention.record import AttentionRecord, Readout, check_same_run
from helpers.folders import resolve_folder
from helpers.models.model import LanguageModel
from helpers.prompts.prompt import Prompt
from helpers.prompts.reading import as_prompts, in_order


def record_to_folder(
    model: LanguageModel, prompts: Iterable[Prompt | str], folder: str | Path, *, chunk: int = 500, **options: Any
) -> Iterator[AttentionRecord]:
    """Record attention chunk by chunk into a folder, yielding the record of each chunk.

    Chunks have fixed borders, and each file is written whole or not at all; a run that was killed goes on after the
    last whole chunk and ends with the same files, bit for bit. Memory holds one chunk.

    Args:
        model, options: as `record_attention`.
        prompts: any iterable, e.g. a generator over the lines of a file.
        folder: where the chunks go (``00000.safetensors``, …).
        chunk: prompts a file.

    Raises:
        ValueError: as `record_attention`, with the chunk's number; if prompts are no list of them; or if the folder holds
            chunks of another run (other prompts, model or options).
    """
    options = {"progress": False} | options
    place, number = resolve_folder(folder, "folder"), -1
    for number, some in enumerate(_chunks(prompts, chunk)):
        path = _path(place, number)
        try:
            given = as_prompts(some)
            record = None if path.exists() else record_attention(model, given, **options)
        except ValueError as error:
            raise ValueError(f"chunk {number} (prompts from {number * chunk + 1}): {error}") from None
        if record is None:
            record = AttentionRecord.load(path)
            _check_same(record, given, model, options, path)
        else:
            record.save(path)
        yield record
    if _path(place, number + 1).exists():
        raise ValueError(f"folder: {str(folder)!r} holds more chunks than these prompts make; choose a new folder")


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.safetensors"


def load_folder(folder: str | Path) -> AttentionRecord:
    """One record of all chunks in a folder, in order.

    Raises:
        FileNotFoundError: if there are none.
    """
    paths = sorted(resolve_folder(folder, "folder").glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"folder: no records in {str(folder)!r}")
    return concatenate([AttentionRecord.load(path) for path in paths])


def concatenate(records: Sequence[AttentionRecord]) -> AttentionRecord:
    """One record of the prompts of several; shorter rows are filled up with zeros.

    Raises:
        ValueError: if they are of different models or query positions.
    """
    if not records:
        raise ValueError("records: expected at least one, got none")
    first = records[0]
    for record in records[1:]:
        if (record.model, record.query) != (first.model, first.query):
            raise ValueError(
                f"records: expected rows of {first.query} on {first.model}, got {record.query} on {record.model}"
            )
        check_same_run("records", first, record)
    longest = max(record.rows.shape[-1] for record in records)
    rows, mask = (_join(parts, longest, first) for parts in ([r.rows for r in records], _masks(records)))
    prompts = [prompt for record in records for prompt in record.prompts]
    readout = _join_readouts([record.readout for record in records])
    return replace(first, prompts=prompts, rows=rows, readout=readout, mask=mask)


def _join(parts: Sequence[Tensor], longest: int, first: AttentionRecord) -> Any:
    return torch.cat([_widen(part, longest, first.query == "all") for part in parts]) if parts else None


def _masks(records: Sequence[AttentionRecord]) -> list[Tensor]:
    """The visible keys of every record, if any of them has a mask of its own."""
    if all(record.mask is None for record in records):
        return []
    if (
        any(record.settings.get("sink") == "a key" for record in records)
        and len({r.rows.shape[-1] for r in records}) > 1
    ):
        raise ValueError("records: expected rows of one length where a sink is a key (the last one), got several")
    return [record.visible()[:, :, 0] for record in records]


def _chunks(prompts: Iterable[Prompt | str], size: int) -> Iterator[list[Prompt | str]]:
    if size < 1:
        raise ValueError(f"chunk: expected at least 1 prompt a file, got {size}")
    source = in_order(prompts)
    while some := list(itertools.islice(source, size)):
        yield some


def _join_readouts(readouts: Sequence[Readout | None]) -> Readout | None:
    """One readout, if all records have one."""
    present = [readout for readout in readouts if readout is not None]
    if len(present) < len(readouts):
        return None
    return Readout(*(torch.cat(field) for field in zip(*(vars(r).values() for r in present), strict=True)))


def _widen(rows: Tensor, longest: int, all_queries: bool) -> Tensor:
    missing = longest - rows.shape[-1]
    return torch.nn.functional.pad(rows, (0, missing, 0, missing) if all_queries else (0, missing))


def _check_same(
    record: AttentionRecord,
    prompts: Sequence[Prompt],
    model: LanguageModel,
    options: dict[str, Any],
    path: Path,
) -> None:
    """Refuse to go on after a chunk that another run left."""
    settings = run_settings(
        model, options.get("prepend_bos", True), options.get("bos"), options.get("sink", "left out")
    )
    same = (
        record.model == model.name
        and record.query == options.get("query", "END")
        and record.settings == settings
        and record.identity in ("", model.identity)
        and (record.readout is not None) == options.get("readout", False)
        and [p.prompt for p in record.prompts] == prompts
    )
    if not same:
        raise ValueError(
            f"folder: {str(path)!r} holds a record of another run (other prompts, model, weights or options); choose a new "
            "folder"
        )
