"""The knob of one head as a widget: its row, its place in the plane, the next words and the answer, at any temperature.

`turned_view` says what is shown as plain data; `HeadKnob` puts it on the screen.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as w
import numpy as np

from helpers.attention.record import AttentionRecord
from helpers.diagnostics.plane import upper_curve
from helpers.heads import Head
from helpers.knob.turned import TurnedHead, tempered_rows
from helpers.plots.rows import READABLE
from helpers.widgets.web.plane import PlaneDots
from helpers.widgets.web.strips import TokenStrips

#: From a prompt's number and a head to the head turned.
Turn = Callable[[int, Head], TurnedHead]
#: Settings along which the path through the plane is drawn, beside those that can be chosen.
_PATH = tuple(np.geomspace(0.02, 50, 100))
_BAR = '<div style="background:currentColor; opacity:0.45; height:9px; width:{:.0f}px"></div>'


def turned_view(turned: TurnedHead, beta: float) -> dict[str, Any]:
    """What the widget shows of a head at one setting: keyword arguments of its strips and its plane, and the words as HTML.

    Args:
        turned: what `helpers.knob.turn_head` returns.
        beta: one of its settings.

    Raises:
        ValueError: if beta is none of them.
    """
    if beta not in turned.betas:
        raise ValueError(f"beta: expected one of {', '.join(f'{b:g}' for b in turned.betas)}, got {beta!r}")
    return {"strips": _strips(turned, beta), "plane": _plane(turned, beta), "says": _says(turned, beta)}


def shipped_turn(points: Mapping[str, Any], record: AttentionRecord) -> Turn:
    """Heads turned as they ship, for `HeadKnob`.

    Args:
        points: of a `helpers.measured.MeasuredKnob`.
        record: attention rows of the same prompts, of which those at END are tempered.

    Raises:
        ValueError: if the record is of other prompts.
    """
    rows, visible = record.at("END").rows, record.at("END").visible()
    for i, prompt in enumerate(points["prompts"]):
        if list(record.prompts[i].tokens) != prompt["tokens"]:
            raise ValueError(
                f"record: expected the prompts of the points, got {record.prompts[i].prompt.text!r} as number {i}"
            )

    def turn(number: int, head: Head) -> TurnedHead:
        one, prompt = points["heads"][str(head)][number], points["prompts"][number]
        n = len(prompt["tokens"])
        row, seen = rows[number, *head, :n], visible[number, head.layer, 0, :n]
        words = [[(str(word), float(p)) for word, p in some] for some in one["top"]]
        return TurnedHead(
            head, prompt["tokens"], points["betas"], tempered_rows(row, points["betas"], seen), seen.numpy(),
            np.array(one["ld"]), words, prompt["answer"], prompt["foil"],
        )  # fmt: skip

    return turn


class HeadKnob:
    """Choose a prompt and a head, turn its beta, and watch.

    Args:
        turn: from a prompt's number and a head to the head turned; each pair is asked for once.
        prompts: the prompts, as readers see them.
        heads: the heads that can be chosen, with what is said beside their names.
        beta: where the knob stands first.

    Attributes:
        view: the widget to display.
        prompt, head, beta: its menus and slider; set ``.value`` to turn them.
        strips, plane, says: what is shown.
    """

    def __init__(self, turn: Turn, prompts: Sequence[str], heads: Mapping[Head, str], beta: float = 1.0) -> None:
        self._turn, self._known = turn, dict[tuple[int, Head], TurnedHead]()
        options = [(f"{head}  {about}".strip(), head) for head, about in heads.items()]
        wide = {"layout": w.Layout(width="auto"), "style": {"description_width": "60px"}}
        self.prompt = w.Dropdown(options=[(text, i) for i, text in enumerate(prompts)], description="prompt", **wide)
        self.head = w.Dropdown(options=options, description="head", **wide)
        settings = [(f"{b:g}", b) for b in self.turned.betas]
        self.beta = w.SelectionSlider(options=settings, value=beta, description="β", **wide)
        self.strips, self.plane, self.says = TokenStrips(max_height=200), PlaneDots(max_height=260), w.HTML()
        for menu in (self.prompt, self.head, self.beta):
            menu.observe(self.show, "value")
        columns = w.Layout(grid_template_columns="repeat(auto-fit, minmax(min(100%, 320px), 1fr))")
        below = w.GridBox([self.plane, self.says], layout=columns)
        self.view = w.VBox([self.prompt, self.head, self.beta, self.strips, below])
        self.show()

    @property
    def turned(self) -> TurnedHead:
        """The chosen head in the chosen prompt, at all settings."""
        key = self.prompt.value, self.head.value
        if key not in self._known:
            self._known[key] = self._turn(*key)
        return self._known[key]

    def show(self, _: Any = None) -> None:
        """Bring the screen up to the menus and the slider."""
        shown = turned_view(self.turned, self.beta.value)
        self.strips.show(**shown["strips"])
        self.plane.show(**shown["plane"])
        self.says.value = shown["says"]

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.view._repr_mimebundle_(**options)


def _strips(turned: TurnedHead, beta: float) -> dict[str, Any]:
    at, end = turned.betas.index(beta), len(turned.tokens) - 1
    rows = {f"β = {beta:g}": turned.rows[at], "β = 1, as trained": turned.rows[turned.plain]}
    common = {"tokens": [READABLE.get(token, token) for token in turned.tokens], "query": end}
    strips = [{"label": label, "weights": row.tolist(), **common} for label, row in rows.items()]
    return {"strips": strips, "title": f"Head {turned.head} at the last token"}


def _plane(turned: TurnedHead, beta: float) -> dict[str, Any]:
    way = sorted({*turned.betas, *_PATH})
    here, trained = turned.places([beta, 1.0]).tolist()
    texts = {"active": (here, f"β = {beta:g}"), "control": (trained, "as trained")}
    points = [{"x": x, "y": y, "side": side, "text": text} for side, ((x, y), text) in texts.items()]
    return {
        "points": points,
        "side_labels": ["at this β", "β = 1"],
        "region": np.column_stack(upper_curve(int(turned.visible.sum()), 100)).tolist(),
        "trajectory": turned.places(way).tolist(),
        "current": way.index(beta),
        "title": "Its place in the plane",
    }


def _says(turned: TurnedHead, beta: float) -> str:
    """The logit difference and the next words, beside those of beta = 1, as HTML."""
    at, plain = turned.betas.index(beta), turned.plain
    lines = []
    if turned.answer and turned.foil:
        now, before = turned.logit_difference[[at, plain]]
        names = f"{html.escape(turned.answer)} − {html.escape(turned.foil)}"
        lines = [f"<div>logit difference {names}: <b>{now:.2f}</b> (β = 1: {before:.2f})</div>"]
    before_words = dict(turned.words[plain])
    rows = "".join(_word(word, p, before_words.get(word)) for word, p in turned.words[at])
    head = "<tr><th style='text-align:left'>next word</th><th></th><th>probability</th><th>at β = 1</th></tr>"
    return f'<div aria-live="polite">{"".join(lines)}<table>{head}{rows}</table></div>'


def _word(word: str, p: float, before: float | None) -> str:
    cells = html.escape(word.strip() or repr(word)), _BAR.format(120 * p), f"{p:.3f}"
    was = "–" if before is None else f"{before:.3f}"
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in (*cells, was))}</tr>"
