"""Heads as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import traitlets as t

from helpers.widgets.web import checks
from helpers.widgets.web.part import Fields, WebPart, component


def _columns(name: str, value: Any, data: checks.Data) -> list[checks.Data]:
    for column in value:
        if not isinstance(column, Mapping) or not {"key", "label"} <= set(column) <= {
            "key",
            "label",
            "digits",
            "signed",
        }:
            raise ValueError(f"{name}: expected key and label, and digits or signed if wanted, got {column!r:.80}")
    return [
        {
            **{key: checks.text(f"{name}: {key}", column[key], data) for key in ("key", "label")},
            "digits": checks.whole(0, 9)(f"{name}: digits", column.get("digits", 3), data),
            "signed": checks.flag(f"{name}: signed", column.get("signed", False), data),
        }
        for column in value
    ]


def _rows(name: str, value: Any, data: checks.Data) -> list[checks.Data]:
    keys = {"head"} | {column["key"] for column in data["columns"]}
    for i, row in enumerate(value):
        if not isinstance(row, Mapping) or set(row) != keys:
            raise ValueError(f"{name}: expected {', '.join(sorted(keys))} in row {i}, got {row!r:.80}")
    return [{key: _cell(f"{name}: row {i}, {key}", key, row[key]) for key in keys} for i, row in enumerate(value)]


def _cell(name: str, key: str, value: Any) -> Any:
    """A head, a text, a number, an interval, or None."""
    if key == "head":
        return _head(name, value, {})
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return [checks.number_or_none(name, part) for part in value]
    return checks.number_or_none(name, value)


def _head(name: str, value: Any, data: checks.Data) -> list[int]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name}: expected (layer, head), got {value!r}")
    return [checks.whole(0, 10**6)(name, part, data) for part in value]


def _head_or_none(name: str, value: Any, data: checks.Data) -> list[int] | None:
    return None if value is None else _head(name, value, data)


def _sort(name: str, value: Any, data: checks.Data) -> str:
    return str(checks.one_of("rank", "head", *(column["key"] for column in data["columns"]))(name, value, data))


class RankedHeads(WebPart):
    """A table of heads: sorted by a column, filtered by a text, a row chosen by a click or the arrow keys.

    Args:
        columns: after rank and head, each ``{"key", "label"}``, and ``"digits"`` and ``"signed"`` (a plus sign) for numbers.
        rows: in order of rank, each ``{"head": (layer, head)}`` and a value for every column's key: a number, a text, an
            interval ``(low, high)``, or None.
        selected: ``[layer, head]`` or None; observe it. It may be a head that has no row here.
        sort: key of the column to sort by (``"rank"`` and ``"head"`` too); ``descending``: largest first.
        filter: only heads are shown that have this text in their name or in one of their texts.
        title: stands above. ``max_height``: of the table, in pixels; it scrolls inside.
    """

    _esm = component("RankedHeads")
    fields: ClassVar[Fields] = {
        "columns": _columns, "rows": _rows, "selected": _head_or_none, "sort": _sort, "descending": checks.flag,
        "filter": checks.text, "title": checks.text, "max_height": checks.whole(60, 5000),
    }  # fmt: skip

    columns: t.List[Any] = t.List().tag(sync=True)
    rows: t.List[Any] = t.List().tag(sync=True)
    selected: t.List[Any] = t.List(allow_none=True, default_value=None).tag(sync=True)
    sort = t.Unicode("rank").tag(sync=True)
    descending = t.Bool(False).tag(sync=True)
    filter = t.Unicode("").tag(sync=True)
    title = t.Unicode("").tag(sync=True)
    max_height = t.Int(320).tag(sync=True)
