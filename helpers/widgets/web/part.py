"""What the components share: traits that are checked as a whole, and scripts that are read from the files beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import resources
from typing import Any, ClassVar

import anywidget
import traitlets as t

from helpers.widgets.web.colours import COLOURS

#: What a script says to other scripts; here all of them become one text.
_LINKS = re.compile(r"(?m)^(?:import .*\n|export (?=(?:function|const) ))")
#: Of a component: name of a trait -> function of (name, value, all data), which returns the value as JSON or raises.
Fields = dict[str, Callable[[str, Any, dict[str, Any]], Any]]


def source(name: str) -> str:
    """A file beside this one."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def script(*kinds: str) -> str:
    """The shared code and the code of some components, in one text without imports; ``DRAW`` holds each one's ``draw``."""
    blocks = (f"{{\n{_LINKS.sub('', source(f'{kind}.js'))}\nDRAW.{kind} = draw;\n}}\n" for kind in kinds)
    return f"const COLOURS = {json.dumps(COLOURS)};\n{_LINKS.sub('', source('common.js'))}\nconst DRAW = {{}};\n{''.join(blocks)}"


def component(kind: str) -> str:
    """The script of one component, as anywidget wants it."""
    return f"{script(kind)}\nexport default {{ render: connect(DRAW.{kind}) }};\n"


class WebPart(anywidget.AnyWidget):
    """A component in the browser; its traits are its data, and each of them is JSON.

    Args:
        data: the first values of its traits, checked as in `show`; other names, such as ``layout``, go to the widget.

    Raises:
        ValueError: as `show`.
    """

    _css = source("web.css")
    #: Its data, in the order in which they are checked.
    fields: ClassVar[Fields] = {}

    _names: t.List[Any] = t.List(t.Unicode()).tag(sync=True)

    def __init__(self, **data: Any) -> None:
        names = set(self.names())
        own = {name: value for name, value in data.items() if name in names}
        rest = {name: value for name, value in data.items() if name not in names}
        defaults = {name: self.class_traits()[name].default() for name in names}
        super().__init__(_names=sorted(names), **self._plain(defaults | own), **rest)

    @classmethod
    def names(cls) -> list[str]:
        """The traits that are this component's data."""
        return list(cls.fields)

    @property
    def content(self) -> dict[str, Any]:
        """Its data now, as JSON."""
        return {name: getattr(self, name) for name in self.names()}

    @classmethod
    def _plain(cls, data: dict[str, Any]) -> dict[str, Any]:
        """All data as JSON; a check sees what the checks before it returned."""
        plain = dict(data)
        for name, check in cls.fields.items():
            try:
                plain[name] = check(name, plain[name], plain)
            except (TypeError, AttributeError):
                raise ValueError(
                    f"{name}: expected data as {cls.__name__} describes them, got {plain[name]!r:.80}"
                ) from None
        return plain

    def show(self, **data: Any) -> None:
        """Set several traits at once, all of them or none; what is not named stays as it is.

        Raises:
            ValueError: naming the argument, if a value does not fit; nothing has changed then.
        """
        unknown = sorted(set(data) - set(self.names()))
        if unknown:
            raise ValueError(f"data: expected names out of {', '.join(self.names())}, got {', '.join(unknown)}")
        new = self._plain(self.content | data)
        with self.hold_sync(), self.hold_trait_notifications():
            for name, value in new.items():
                setattr(self, name, value)
