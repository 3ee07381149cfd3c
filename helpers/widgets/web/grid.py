"""The grid of all heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import traitlets as t

from helpers.heads import HeadLike
from helpers.plots.style import role_colour
from helpers.widgets.web import checks
from helpers.widgets.web.part import Fields, WebPart, component


class HeadGrid(WebPart):
    """Layers x heads, coloured by one number a head; one Tab stop, arrow keys move the selection, a click selects.

    Shift-click or ``c`` sets the compared head; ``c`` on the compared head takes it back.

    Args:
        values: shape ``(layer, head)``, any array; None or NaN where it is not defined; empty before the first result.
        scale: ``"shift"`` (two colours around 0), ``"size"`` (one colour from 0) or ``"q"`` (logarithmic, darkest where smallest).
        limits: (lowest, highest) of the colours; default: from the values, symmetric for a shift; 0.001 to 1 for q.
        measure: what the values are, e.g. ``"shift of KL"``; stands at the legend and in tooltips.
        digits: digits after the point in cells and tooltips.
        tips: a text for each head, shape ``(layer, head)``, which may have several lines; default: the value.
        marks: kinds of heads ``{"label", "shape": "ring" or "dot", "colour", "heads": [(layer, head), …]}``; see `role_marks`.
        significant: heads with a notch in a corner; ``significant_label`` says in the legend what it means.
        selected, compared: ``[layer, head]`` or None; observe these.
        title: stands above. ``max_height``: of the cells and their labels, in pixels.
    """

    _esm = component("HeadGrid")
    fields: ClassVar[Fields] = {
        "values": checks.table, "scale": checks.one_of("shift", "size", "q"), "limits": checks.limits,
        "measure": checks.text, "digits": checks.whole(0, 9), "tips": checks.tips, "marks": checks.marks,
        "significant": checks.heads, "significant_label": checks.text, "selected": checks.head_or_none,
        "compared": checks.head_or_none, "title": checks.text, "max_height": checks.whole(60, 5000),
    }  # fmt: skip

    values: t.List[Any] = t.List().tag(sync=True)
    scale = t.Unicode("shift").tag(sync=True)
    limits: t.List[Any] = t.List().tag(sync=True)
    measure = t.Unicode("").tag(sync=True)
    digits = t.Int(3).tag(sync=True)
    tips: t.List[Any] = t.List().tag(sync=True)
    marks: t.List[Any] = t.List().tag(sync=True)
    significant: t.List[Any] = t.List().tag(sync=True)
    significant_label = t.Unicode("q < 0.05").tag(sync=True)
    selected: t.List[Any] = t.List(allow_none=True, default_value=None).tag(sync=True)
    compared: t.List[Any] = t.List(allow_none=True, default_value=None).tag(sync=True)
    title = t.Unicode("").tag(sync=True)
    max_height = t.Int(420).tag(sync=True)


def role_marks(roles: Mapping[HeadLike, str]) -> list[dict[str, Any]]:
    """A dot for each head with a role, in the role's colour of the figures; what `HeadGrid.marks` takes.

    >>> role_marks({(9, 6): "Name Mover"})
    [{'label': 'Name Mover', 'shape': 'dot', 'colour': '#D55E00', 'heads': [[9, 6]]}]
    """
    kinds: dict[str, list[list[int]]] = {}
    for head, role in roles.items():
        kinds.setdefault(role, []).append(list(head))
    return [
        {"label": role, "shape": "dot", "colour": role_colour(role), "heads": heads} for role, heads in kinds.items()
    ]
