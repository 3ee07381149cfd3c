"""The (KL, chi) plane with a dot a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import traitlets as t

from helpers.widgets.web import checks
from helpers.widgets.web.part import Fields, WebPart, component


def _points(name: str, value: Any, data: checks.Data) -> list[checks.Data]:
    return [_point(f"{name}: point {i}", point, data) for i, point in enumerate(value)]


def _point(name: str, point: Any, data: checks.Data) -> checks.Data:
    if not isinstance(point, Mapping) or set(point) != {"x", "y", "side", "text"}:
        raise ValueError(f"{name}: expected x, y, side and text, got {point!r:.80}")
    side = checks.one_of("active", "control")(f"{name}: side", point["side"], data)
    x, y = (checks.number(f"{name}: {axis}", point[axis]) for axis in ("x", "y"))
    return {"x": x, "y": y, "side": side, "text": checks.text(f"{name}: text", point["text"], data)}


def _path(name: str, value: Any, _: checks.Data) -> list[list[float]]:
    if any(len(place) != 2 for place in value):
        raise ValueError(f"{name}: expected places (x, y), got {value!r:.80}")
    return [[checks.number(name, x), checks.number(name, y)] for x, y in value]


def _side_labels(name: str, value: Any, data: checks.Data) -> list[str]:
    if len(value) != 2:
        raise ValueError(f"{name}: expected two texts, got {value!r}")
    return checks.texts(name, value, data)


def _lines(name: str, value: Any, data: checks.Data) -> list[list[int]]:
    at = checks.index_or_none("points")
    if any(len(line) != 2 or None in line for line in value):
        raise ValueError(f"{name}: expected pairs of points, got {value!r:.80}")
    return [[at(name, a, data), at(name, b, data)] for a, b in value]


class PlaneDots(WebPart):
    """One dot a prompt in the plane of two numbers of a head; a dot's prompt and numbers under the pointer, a click selects.

    One Tab stop; the arrow keys go from dot to dot.

    Args:
        points: each ``{"x": number, "y": number, "side": "active" or "control", "text": the prompt}``.
        region: outline of what can be reached, places ``(x, y)``; empty for none.
        lines: pairs of indices of points that belong together.
        trajectory: places ``(x, y)``, e.g. of a head whose beta is changed; ``current``: index of the place now, or None.
        selected: index of a point, or None; observe it.
        x_label, y_label, x_name, y_name: on the axes, and short in the tooltip.
        side_labels: what the two sides are called in the legend, the active one first.
        title: stands above. ``max_height``: of the picture, in pixels.
    """

    _esm = component("PlaneDots")
    fields: ClassVar[Fields] = {
        "points": _points, "region": _path, "lines": _lines, "trajectory": _path,
        "current": checks.index_or_none("trajectory"), "selected": checks.index_or_none("points"),
        "x_label": checks.text, "y_label": checks.text, "x_name": checks.text, "y_name": checks.text,
        "side_labels": _side_labels, "title": checks.text, "max_height": checks.whole(60, 5000),
    }  # fmt: skip

    points: t.List[Any] = t.List().tag(sync=True)
    region: t.List[Any] = t.List().tag(sync=True)
    lines: t.List[Any] = t.List().tag(sync=True)
    trajectory: t.List[Any] = t.List().tag(sync=True)
    current = t.Int(allow_none=True, default_value=None).tag(sync=True)
    selected = t.Int(allow_none=True, default_value=None).tag(sync=True)
    x_label = t.Unicode("KL selectivity  KL(π‖u) / log n").tag(sync=True)
    y_label = t.Unicode("susceptibility  χ / (log n)²").tag(sync=True)
    x_name = t.Unicode("KL").tag(sync=True)
    y_name = t.Unicode("χ").tag(sync=True)
    side_labels: t.List[Any] = t.List(default_value=["active", "control"]).tag(sync=True)
    title = t.Unicode("").tag(sync=True)
    max_height = t.Int(340).tag(sync=True)
