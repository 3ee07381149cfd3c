"""Buttons that hand something over to the reader's machine."""

from __future__ import annotations

from typing import ClassVar

import traitlets as t

from helpers.widgets.web import checks
from helpers.widgets.web.part import Fields, WebPart, component


class CopyButton(WebPart):
    """A button that copies a text to the clipboard and says so; where the browser refuses, the text is shown to be copied.

    Args:
        text: what is copied. ``label``: on the button.
    """

    _esm = component("CopyButton")
    fields: ClassVar[Fields] = {"text": checks.text, "label": checks.text}

    text = t.Unicode("").tag(sync=True)
    label = t.Unicode("Copy").tag(sync=True)


class Download(WebPart):
    """A button with which the browser saves bytes under a name; it keeps an earlier file of that name.

    Args:
        data: bytes, kept as base64. ``filename``: what the browser calls the file.
        label: on the button. ``mime``: the kind of file.
    """

    _esm = component("Download")
    fields: ClassVar[Fields] = {
        "data": checks.encoded,
        "filename": checks.text,
        "label": checks.text,
        "mime": checks.text,
    }

    data = t.Unicode("").tag(sync=True)
    filename = t.Unicode("download.txt").tag(sync=True)
    label = t.Unicode("Download").tag(sync=True)
    mime = t.Unicode("text/plain").tag(sync=True)
