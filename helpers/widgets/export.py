"""What leaves the playground: table, attention rows, picture, page, the Python that makes the same table, and a link to a view."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qsl, urlencode
from zipfile import ZIP_DEFLATED, ZipFile

from matplotlib import rc_context

from helpers.attention.record import AttentionRecord
from helpers.experiment import Experiment
from helpers.heads import Head
from helpers.measured.shipped import shipped_record
from helpers.plots.style import RC
from helpers.prompts.prompt import Prompt
from helpers.widgets.examples import EXAMPLES, TYPED
from helpers.widgets.inputs import token_index
from helpers.widgets.playground import MEASURES, grid_figure
from helpers.widgets.screen import head_lines
from helpers.widgets.shipped import SHIPPED, places_in, shipped_sides
from helpers.widgets.state import DESIGNS, SIDES, Draft, Result, State, View
from helpers.widgets.web.page import static_page
from helpers.widgets.web.part import WebPart
from helpers.widgets.words import asked, found

_CODE = """\
{imports}

ACTIVE = [
{active}
]
CONTROL = [
{control}
]

model = load_model({model!r})
active, control = ({record} for side in (ACTIVE, CONTROL))
table = analyse(active, control, design={design!r}).table
"""
_SHIPPED = """\
{imports}

# Rows of these prompts ship with the repository: no model is needed.
active, control = shipped_record({model!r}, {names[0]!r}), shipped_record({model!r}, {names[1]!r})
active, control = active.subset({places[0]}), control.subset({places[1]})
active, control = ({record} for side in (active, control))
table = analyse(active, control, design={design!r}).table
"""


# ---- files


def write_new(folder: str | Path, name: str, data: bytes) -> Path:
    """Write a file under a name that is free in a folder: ``heads.csv``, else ``heads-2.csv``, and so on; return its path."""
    place = Path(folder).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    stem, suffix = Path(name).stem, Path(name).suffix
    number = 1
    while True:
        path = place / (name if number == 1 else f"{stem}-{number}{suffix}")
        try:
            with path.open("xb") as file:
                file.write(data)
            return path
        except FileExistsError:
            number += 1


def table_bytes(result: Result) -> bytes:
    """The table as CSV, every digit."""
    text: str = result.experiment.table.to_csv(index=False, lineterminator="\n")
    return text.encode()


def picture_bytes(result: Result, view: View) -> bytes:
    """The grid as PNG."""
    buffer = io.BytesIO()
    with rc_context(RC):  # type: ignore[arg-type]
        grid_figure(result.experiment, view.measure).savefig(buffer, format="png")
    return buffer.getvalue()


def record_bytes(result: Result) -> bytes:
    """Both attention records in a zip file, laid out as `helpers.results.load_records` reads them."""
    buffer = io.BytesIO()
    with TemporaryDirectory() as folder, ZipFile(buffer, "w", ZIP_DEFLATED) as packed:
        for side, record in zip(SIDES, result.records, strict=True):
            record.save(Path(folder, f"{side}.safetensors"))
            packed.write(Path(folder, f"{side}.safetensors"), f"records/{side}.safetensors")
    return buffer.getvalue()


def as_page(state: State, heads: Sequence[WebPart], head: Sequence[WebPart], *more: WebPart) -> str:
    """A page of all heads and the open one, with what was asked and found; it opens from a disk.

    Args:
        state: with a result. ``heads``, ``head``: components that stand side by side; ``more``: below them.
    """
    result, view = state.result, state.view
    assert result is not None
    before = [f"Asked: {asked(result)}", f"Found: {found(result)}", result.known.sentence, *result.experiment.notes]
    opened = [", ".join(head_lines(result, one)) for one in (view.head, view.compared) if one]
    link = f'This view in the playground: Playground(state="{as_link(state)}")'
    title = f"Attention heads of {result.asked.model}"
    return static_page([*filter(None, before), [*heads], *opened, [*head], *more, link], title=title)


# ---- code


def as_code(experiment: Experiment) -> str:
    """Python that makes the experiment's table again: from the shipped rows, or from the model."""
    query, record = experiment.active.query, experiment.active
    index = token_index(query)
    common = {"model": record.model, "design": experiment.design}
    beside = "\nfrom helpers.widgets import at_token" if index is not None else ""
    if chosen := _shipped(experiment):
        rows = f"side.at({query!r})" if index is None else f"at_token(side, {index})"
        imports = f"from helpers import analyse\nfrom helpers.measured import shipped_record{beside}"
        return _SHIPPED.format(imports=imports, record=rows, **chosen, **common)
    rows = f'record_attention(model, side, query="{query if index is None else "all"}"{_bos(record)}, progress=False)'
    rows = rows if index is None else f"at_token({rows}, {index})"
    named = index is None and query != "END"
    imports = (
        f"from helpers import {', '.join(['Prompt'] * named + ['analyse', 'load_model', 'record_attention'])}{beside}"
    )
    active, control = (_listed(side.prompts, named) for side in (experiment.active, experiment.control))
    return _CODE.format(imports=imports, active=active, control=control, record=rows, **common)


def _bos(record: AttentionRecord) -> str:
    if not record.settings.get("prepend_bos", True):
        return ", prepend_bos=False"
    return f", bos={record.settings['bos']!r}" if "bos" in record.settings else ""


def _listed(prompts: Sequence[Any], named: bool) -> str:
    """The prompts as list items: texts, or `Prompt` objects where a name is read."""
    return "\n".join(f"    {_literal(p.prompt, named)}," for p in prompts)


def _literal(prompt: Prompt, named: bool) -> str:
    return f"Prompt({prompt.text!r}, spans={dict(prompt.spans)!r})" if named else repr(prompt.text)


def _shipped(experiment: Experiment) -> dict[str, Any]:
    """The shipped records that an experiment's prompts are from, and where they stand in them; empty if they are from none."""
    sides = experiment.active, experiment.control
    if any(_bos(side) for side in sides):
        return {}
    for example, names in SHIPPED.items():
        if shipped_sides(experiment.active.model, example) is None:
            continue
        whole = [shipped_record(experiment.active.model, name) for name in names]
        places = [places_in(*pair) for pair in zip(whole, sides, strict=True)]
        if all(places):
            return {"names": names, "places": places}
    return {}


# ---- a view as text

_DRAFT = ("example", "position", "bos", "test")


def as_link(state: State) -> str:
    """The draft and the view as one line, e.g. ``"model=demo&example=minimal+pairs&head=2.0"``; `from_link` reads it."""
    draft, view = state.draft, state.view
    said = {"model": draft.model, "example": draft.example}
    if draft.example not in EXAMPLES:
        said |= {side: getattr(draft, side) for side in SIDES}
    said |= {key: value for key in ("position", "bos", "test") if (value := getattr(draft, key)) != getattr(Draft, key)}
    if state.result is not None:
        said |= {key: str(head) for key, head in (("head", view.head), ("compared", view.compared)) if head}
        said |= {"side": view.side, "prompts": ",".join(str(n + 1) for n in view.numbers)}
    return urlencode(said | {"measure": view.measure})


def from_link(text: str) -> tuple[Draft, View]:
    """What a line of `as_link` says.

    Raises:
        ValueError: one sentence, if it says something else.
    """
    try:
        said = dict(parse_qsl(text.strip().removeprefix("?"), keep_blank_values=True, strict_parsing=True))
        draft = Draft(said["model"], **{key: said[key] for key in _DRAFT if key in said})
        if draft.example not in EXAMPLES:
            draft = replace(draft, example=TYPED, **{side: said[side] for side in SIDES})
        active, control = (int(number) - 1 for number in said.get("prompts", "1,1").split(","))
        head, other = (Head.parse(said[key]) if key in said else None for key in ("head", "compared"))
        view = View(said.get("measure", View.measure), head, other, (active, control), said.get("side", View.side))
        if view.measure not in MEASURES or view.side not in SIDES or min(view.numbers) < 0 or draft.test not in DESIGNS:
            raise ValueError
    except (ValueError, KeyError):
        raise ValueError(
            f"state: expected a line that the playground made, such as 'model=demo&example=minimal+pairs', got {text[:80]!r}"
        ) from None
    return draft, view
