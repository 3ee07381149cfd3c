"""Prompts as strips of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import traitlets as t

from helpers.widgets.web import checks
from helpers.widgets.web.part import Fields, WebPart, component

_NEEDED, _ALSO = {"label", "tokens", "weights"}, {"second", "positions", "query"}


def _strips(name: str, value: Any, data: checks.Data) -> list[checks.Data]:
    return [_strip(f"{name}: strip {i}", strip, data) for i, strip in enumerate(value)]


def _strip(name: str, strip: Any, data: checks.Data) -> checks.Data:
    if not isinstance(strip, Mapping) or not _NEEDED <= set(strip) <= _NEEDED | _ALSO:
        raise ValueError(
            f"{name}: expected label, tokens and weights, and second, positions or query if wanted, got {strip!r:.80}"
        )
    tokens = checks.texts(f"{name}: tokens", strip["tokens"], data)
    plain: checks.Data = {"label": checks.text(f"{name}: label", strip["label"], data), "tokens": tokens}
    plain["weights"] = _numbers(f"{name}: weights", strip["weights"], len(tokens))
    second = strip.get("second")
    plain["second"] = None if second is None else _numbers(f"{name}: second", second, len(tokens))
    at = checks.index_or_none("tokens")
    plain["positions"] = {str(p): at(f"{name}: position {p}", i, plain) for p, i in strip.get("positions", {}).items()}
    plain["query"] = at(f"{name}: query", strip.get("query"), plain)
    return plain


def _numbers(name: str, value: Any, n: int) -> list[float | None]:
    found = checks.numbers(name, value)
    if len(found) != n:
        raise ValueError(f"{name}: expected a number for each of {n} tokens, got {len(found)}")
    return found


def _chosen(name: str, value: Any, data: checks.Data) -> list[int] | None:
    if value is None:
        return None
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name}: expected (strip, token) or None, got {value!r}")
    strip, token = value
    last = len(data["strips"]) - 1
    strip = checks.whole(0, last)(f"{name}: strip", strip, data)
    return [strip, checks.whole(0, len(data["strips"][strip]["tokens"]) - 1)(f"{name}: token", token, data)]


class TokenStrips(WebPart):
    """One strip a prompt (or condition): its tokens as text, shaded by weight, the numbers of each under the pointer.

    One Tab stop; the arrow keys move between tokens, Enter, blank and a click choose one.

    Args:
        strips: each ``{"label": text, "tokens": texts, "weights": numbers or None}``, and, where wanted, ``"second"`` (another
            number a token), ``"positions"`` (name -> token index, e.g. ``{"S1": 3, "END": 14}``) and ``"query"`` (the token
            whose row this is, outlined).
        weight_label, second_label: what the numbers are called in the tooltip.
        limit: weight of the darkest colour.
        chosen: ``[strip, token]`` that was clicked, or None; observe it.
        title: stands above. ``max_height``: of the box, in pixels; longer ones scroll inside it.
    """

    _esm = component("TokenStrips")
    fields: ClassVar[Fields] = {
        "strips": _strips, "weight_label": checks.text, "second_label": checks.text,
        "limit": checks.positive, "chosen": _chosen,
        "title": checks.text, "max_height": checks.whole(60, 5000),
    }  # fmt: skip

    strips: t.List[Any] = t.List().tag(sync=True)
    weight_label = t.Unicode("attention").tag(sync=True)
    second_label = t.Unicode("").tag(sync=True)
    limit = t.Float(1.0).tag(sync=True)
    chosen: t.List[Any] = t.List(allow_none=True, default_value=None).tag(sync=True)
    title = t.Unicode("").tag(sync=True)
    max_height = t.Int(260).tag(sync=True)
