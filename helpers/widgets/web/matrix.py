"""The whole attention pattern of a head."""

from __future__ import annotations

from typing import Any, ClassVar

import traitlets as t

from helpers.widgets.web import checks
from helpers.widgets.web.part import Fields, WebPart, component


class AttentionMatrix(WebPart):
    """The attention of one head in one prompt, query by key, lower triangle; weight and both tokens under the pointer.

    One Tab stop; the arrow keys move the crosshair, Enter, blank and a click choose the query row.

    Args:
        tokens: the prompt's tokens.
        weights: shape ``(token, token)``, any array, a row a query; kept as base64 of little-endian float32.
        limit: weight of the darkest colour.
        query: the chosen row, outlined, or None; observe it.
        title: stands above. ``max_height``: of the picture with its labels, in pixels.
    """

    _esm = component("AttentionMatrix")
    fields: ClassVar[Fields] = {
        "tokens": checks.texts, "weights": checks.square, "limit": checks.positive,
        "query": checks.index_or_none("tokens"), "title": checks.text, "max_height": checks.whole(60, 5000),
    }  # fmt: skip

    tokens: t.List[Any] = t.List().tag(sync=True)
    weights = t.Unicode("").tag(sync=True)
    limit = t.Float(1.0).tag(sync=True)
    query = t.Int(allow_none=True, default_value=None).tag(sync=True)
    title = t.Unicode("").tag(sync=True)
    max_height = t.Int(460).tag(sync=True)
