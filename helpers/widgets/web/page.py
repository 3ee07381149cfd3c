"""One HTML page with components and their data, which opens from a disk without a network."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from helpers.widgets.web.part import WebPart, script, source

Part = WebPart | str

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
<script id="data" type="application/json">{data}</script>
<script type="module">
{script}
{{
{start}
}}
</script>
</body>
</html>
"""


def static_page(parts: Sequence[Part | Sequence[Part]], title: str) -> str:
    """A self-contained HTML page of components with their data of now, with tooltips, sorting and keys, for any browser.

    Args:
        parts: from top to bottom, components and texts (a paragraph each); those of a list stand beside each other where
            the window is wide enough.
        title: of the page.
    """
    kept: list[WebPart] = []
    body = "\n".join(_block(part, kept) for part in parts)
    data = json.dumps([{"kind": type(part).__name__, "data": part.content} for part in kept], allow_nan=False)
    return _PAGE.format(
        title=html.escape(title),
        style=source("web.css") + source("page.css"),
        body=body,
        data=data.replace("<", "\\u003c"),
        script=script(*sorted({type(part).__name__ for part in kept})),
        start=source("page.js"),
    )


def _block(part: Part | Sequence[Part], kept: list[WebPart]) -> str:
    """The place of a component, a paragraph, or a row of them; components are added to those kept."""
    if isinstance(part, str):
        return f"<p>{html.escape(part)}</p>"
    if isinstance(part, WebPart):
        kept.append(part)
        return f'<div class="ahd-part" data-part="{len(kept) - 1}"></div>'
    return f'<div class="ahd-row">{"".join(f"<div>{_block(one, kept)}</div>" for one in part)}</div>'
