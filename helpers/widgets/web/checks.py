"""What the components take: each check returns a value as plain JSON, or says in one sentence what was expected."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from helpers.heads import check_heads

Data = dict[str, Any]
Check = Callable[[str, Any, Data], Any]


def text(name: str, value: Any, _: Data) -> str:
    """A text, which may be empty."""
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a text, got {value!r}")
    return value


def flag(name: str, value: Any, _: Data) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def one_of(*choices: str) -> Check:
    """One of some texts."""

    def check(name: str, value: Any, _: Data) -> str:
        if value not in choices:
            raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
        return str(value)

    return check


def whole(low: int, high: int) -> Check:
    """A whole number within limits."""

    def check(name: str, value: Any, _: Data) -> int:
        if not _is_whole(value) or not low <= value <= high:
            raise ValueError(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
        return int(value)

    return check


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def number(name: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, str | bool) or not np.isscalar(value) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def positive(name: str, value: Any, _: Data) -> float:
    """A finite number above 0."""
    if number(name, value) <= 0:
        raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    return float(value)


def number_or_none(name: str, value: Any) -> float | None:
    """A finite number; None for what is not defined (None or NaN)."""
    missing = value is None or (isinstance(value, float | np.floating) and math.isnan(value))
    return None if missing else number(name, value)


def index_or_none(of: str) -> Check:
    """An index of another value of the data, or None."""

    def check(name: str, value: Any, data: Data) -> int | None:
        n = len(data[of])
        if value is None:
            return None
        if not _is_whole(value) or not 0 <= value < n:
            raise ValueError(f"{name}: expected None or an index of the {n} {of}, got {value!r}")
        return int(value)

    return check


def table(name: str, value: Any, _: Data) -> list[list[float | None]]:
    """Numbers of shape (layer, head), None where one is not defined; an empty list for nothing yet."""
    if len(value) == 0:
        return []
    return [_with_none(row) for row in _array(name, value, "(layer, head)", 2)]


def numbers(name: str, value: Any) -> list[float | None]:
    """Numbers in a row, None where one is not defined."""
    return _with_none(_array(name, value, "(token,)", 1))


def _array(name: str, value: Any, shape: str, ndim: int) -> np.ndarray:
    try:
        found = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected numbers of shape {shape}, got {value!r:.80}") from None
    if found.ndim != ndim:
        raise ValueError(f"{name}: expected numbers of shape {shape}, got shape {found.shape}")
    return found


def _with_none(row: np.ndarray) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in row]


def limits(name: str, value: Any, data: Data) -> list[float]:
    """(lowest, highest) of the colours; empty or None takes them from the values."""
    if value is None or len(value) == 0:
        return []
    if len(value) != 2 or not number(name, value[0]) < number(name, value[1]):
        raise ValueError(f"{name}: expected (lowest, highest), got {value!r}")
    if data["scale"] == "q" and value[0] <= 0:
        raise ValueError(f"{name}: expected a lowest q above 0, got {value!r}")
    return [float(value[0]), float(value[1])]


def tips(name: str, value: Any, data: Data) -> list[list[str]]:
    """Texts of the shape of ``values``, or none."""
    shape = [len(row) for row in data["values"]]
    if len(value) and [len(row) for row in value] != shape:
        raise ValueError(f"{name}: expected a text for each of {_grid(data)}, got {len(value)} rows")
    return [[text(name, tip, data) for tip in row] for row in value]


def heads(name: str, value: Any, data: Data) -> list[list[int]]:
    """Heads of the grid, each (layer, head)."""
    return [list(head) for head in check_heads(name, value, *_shape(data))]


def head_or_none(name: str, value: Any, data: Data) -> list[int] | None:
    """A head of the grid, or None."""
    return None if value is None else heads(name, [value], data)[0]


def _shape(data: Data) -> tuple[int, int]:
    return len(data["values"]), len(data["values"][0]) if data["values"] else 0


def _grid(data: Data) -> str:
    return "{} layers x {} heads".format(*_shape(data))


def marks(name: str, value: Any, data: Data) -> list[Data]:
    """Kinds of heads, each with a label, a shape (ring or dot), a colour and its heads."""
    found = []
    for mark in value:
        if not isinstance(mark, Mapping) or set(mark) != {"label", "shape", "colour", "heads"}:
            raise ValueError(f"{name}: expected entries with label, shape, colour and heads, got {mark!r:.80}")
        shape = one_of("ring", "dot")(f"{name}: shape", mark["shape"], data)
        texts = {key: text(f"{name}: {key}", mark[key], data) for key in ("label", "colour")}
        found.append({**texts, "shape": shape, "heads": heads(f"{name}: heads", mark["heads"], data)})
    return found


def texts(name: str, value: Any, data: Data) -> list[str]:
    """A list of texts."""
    if isinstance(value, str):
        raise ValueError(f"{name}: expected a list of texts, got {value!r}")
    return [text(name, item, data) for item in value]


def square(name: str, value: Any, data: Data) -> str:
    """Weights of shape (token, token) as base64 of little-endian float32, row by row; such a text is taken as it is."""
    n = len(data["tokens"])
    if isinstance(value, str):
        return _base64_of(name, value, 4 * n * n)
    weights = np.asarray(value, dtype="<f4")
    if n == 0 and weights.size == 0:
        return ""
    if weights.shape != (n, n):
        raise ValueError(f"{name}: expected shape (token, token) with {n} tokens, got shape {weights.shape}")
    return base64.b64encode(weights.tobytes()).decode()


def _base64_of(name: str, value: str, size: int) -> str:
    got = _decoded(value)
    if got is None or len(got) != size:
        raise ValueError(
            f"{name}: expected base64 of {size} bytes, got {'no base64' if got is None else f'{len(got)} bytes'}"
        )
    return value


def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return None


def encoded(name: str, value: Any, _: Data) -> str:
    """Bytes as base64; a text is taken as base64 already."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if not isinstance(value, str) or _decoded(value) is None:
        raise ValueError(f"{name}: expected bytes, or base64 of them, got {value!r:.80}")
    return value
