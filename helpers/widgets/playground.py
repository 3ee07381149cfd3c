"""The playground without its widgets: prompts are measured, drawn, exported and written as code by plain functions."""

from __future__ import annotations

import base64
import html
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, to_hex, to_rgb
from matplotlib.figure import Figure

from helpers.attention.capture import record_attention
from helpers.attention.record import AttentionRecord
from helpers.attention.stream import concatenate
from helpers.diagnostics.distances import DISTANCES
from helpers.experiment import Experiment, analyse, shape_columns
from helpers.heads import Head, HeadLike
from helpers.plots.rows import plot_token_strips
from helpers.plots.style import BLACK, RC
from helpers.widgets.checker import Inputs, Side, has_bos, token_index

#: What the grid can show, and the column of the experiment's table that holds it.
MEASURES = {
    "shift of KL": "d_kl", "shift of chi": "d_chi",
    "significance of the KL shift (q)": "d_kl_q", "significance of the chi shift (q)": "d_chi_q",
    "KL, active": "kl_active", "KL, control": "kl_control", "chi, active": "chi_active", "chi, control": "chi_control",
} | {
    name if name in DISTANCES else f"shift of {name}": column for name, column in shape_columns().items()
}  # fmt: skip

#: Colour of a head for which a measure is not defined (no visible BOS; distances of sets that are no pairs).
UNDEFINED = "#dddddd"

#: Attention rows are drawn over at most this many tokens: the first and the last ones.
MOST_TOKENS = 40

_drawing = threading.Lock()  # matplotlib's rcParams belong to the whole process


class Stopped(Exception):
    """The run was stopped between two chunks of prompts."""


# ---- measuring


def run(
    model: Any,
    inputs: Inputs,
    *,
    progress: Callable[[int, int], object] | None = None,
    stop: Callable[[], bool] = lambda: False,
    chunk: int = 4,
) -> Experiment:
    """Record both prompt sets a few prompts at a time and compare them.

    Args:
        model: what `load_model` returns.
        inputs: the prompt sets and the position; see `helpers.widgets.checker.check` for what may be wrong with them.
        progress: called with (prompts done, prompts in all) after each chunk.
        stop: asked before each chunk; True ends the run.
        chunk: prompts between two questions.

    Raises:
        Stopped: if ``stop`` said so.
        ValueError: as `record_attention` and `analyse`.
    """
    total, done, records = len(inputs.active) + len(inputs.control), 0, []
    for prompts in inputs.sides.values():
        parts = []
        for start in range(0, len(prompts), chunk):
            if stop():
                raise Stopped(f"Stopped after {done} of {total} prompts.")
            some = prompts[start : start + chunk]
            parts.append(record_at(model, some, inputs.position))
            done += len(some)
            if progress:
                progress(done, total)
        records.append(concatenate(parts))
    active, control = records
    return analyse(active, control)


def record_at(model: Any, prompts: Side, position: str) -> AttentionRecord:
    """The attention rows of a named position or of a token index, e.g. ``"token 5"``."""
    index = token_index(position)
    query = position if index is None else "all"
    record = record_attention(model, prompts, query=query, prepend_bos=has_bos(model), progress=False)
    return record if index is None else at_token(record, index)


def at_token(record: AttentionRecord, index: int) -> AttentionRecord:
    """The rows of one token index (BOS, if any, is 0), from a record of all query positions.

    Raises:
        ValueError: if a prompt is too short, or the record holds one position only.
    """
    for number, prompt in enumerate(record.prompts, 1):
        if not 0 <= index < len(prompt):
            raise ValueError(f"index: prompt {number} has the tokens 0 to {len(prompt) - 1}, got {index}")
    name = f"token {index}"
    named = [replace(p, positions={**p.positions, name: index}) for p in record.prompts]
    return replace(record, prompts=named).at(name)


# ---- the grid


@dataclass(frozen=True)
class Cell:
    """One head in the grid: its name, what a tooltip says, and its colours."""

    head: Head
    name: str
    text: str
    background: str
    ink: str


def grid_values(experiment: Experiment, measure: str) -> np.ndarray:
    """One column of the experiment's table, shape ``(layer, head)``."""
    shape = experiment.active.n_layers, experiment.active.n_heads
    return np.asarray(experiment.table[MEASURES[measure]].to_numpy(dtype=float).reshape(shape))


def colour_scale(experiment: Experiment, measure: str) -> ScalarMappable:
    """Orange for more on active prompts and purple for less; q on a logarithmic scale, darkest where smallest."""
    values, column = grid_values(experiment, measure), MEASURES[measure]
    largest = max(float(np.nan_to_num(np.abs(values)).max()), 1e-6)
    if column.endswith("_q"):
        return ScalarMappable(LogNorm(1e-3, 1, clip=True), "Oranges_r")
    if column.startswith("d_"):
        return ScalarMappable(Normalize(-largest, largest), "PuOr_r")
    return ScalarMappable(Normalize(0, largest), "Oranges")


def grid_cells(experiment: Experiment, measure: str) -> list[Cell]:
    """Every head with its value and colour, in reading order."""
    values, scale = grid_values(experiment, measure), colour_scale(experiment, measure)
    cells = []
    for place, value in np.ndenumerate(values):
        head = Head(*place)
        colour = UNDEFINED if np.isnan(value) else to_hex(scale.to_rgba(value))  # type: ignore[arg-type]
        text = f"head {head}, {measure}: {_number(value, measure)}"
        cells.append(Cell(head, str(head), text, colour, _ink(colour)))
    return cells


def _number(value: float, measure: str) -> str:
    column = MEASURES[measure]
    if np.isnan(value):
        return "n/a"
    if column.endswith("_q"):
        return f"{value:.2g}"
    return f"{round(value, 3) + 0.0:{'+' if column.startswith('d_') else ''}.3f}"


def _ink(colour: str) -> str:
    """Black or white, whichever can be read on a colour."""
    red, green, blue = to_rgb(colour)
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"


def strongest(experiment: Experiment, measure: str) -> Head:
    """The head that the grid's colours point at: the largest value or shift, or the smallest q."""
    values = grid_values(experiment, measure)
    at = values.argmin() if MEASURES[measure].endswith("_q") else np.nan_to_num(np.abs(values)).argmax()
    layer, head = np.unravel_index(at, values.shape)
    return Head(int(layer), int(head))


# ---- figures


def grid_figure(experiment: Experiment, measure: str) -> Figure:
    """The grid as a picture, each cell with its value."""
    values, scale = grid_values(experiment, measure), colour_scale(experiment, measure)
    layers, heads = values.shape
    fig = Figure(figsize=(1.6 + 0.62 * heads, 1.3 + 0.42 * layers))
    ax = fig.subplots()
    ax.imshow(scale.to_rgba(values), aspect="auto")
    for cell in grid_cells(experiment, measure):
        number = _number(values[cell.head], measure)
        ax.text(*cell.head[::-1], number, ha="center", va="center", fontsize=7.5, color=cell.ink)
    ax.set(xlabel="head", ylabel="layer", xticks=range(heads), yticks=range(layers))
    best = strongest(experiment, measure)
    ax.set_title(f"{experiment.active.model}, {experiment.active.query}: {measure}, strongest in {best}")
    fig.colorbar(scale, ax=ax, pad=0.02)
    return fig


def legend_figure(experiment: Experiment, measure: str) -> Figure:
    """The grid's colours as a bar."""
    fig = Figure(figsize=(5.2, 0.75))
    bar = fig.colorbar(colour_scale(experiment, measure), cax=fig.subplots(), orientation="horizontal")
    bar.set_label(measure, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return fig


def rows_figure(experiment: Experiment, head: HeadLike, active: int = 0, control: int = 0) -> Figure:
    """What one head looks at from the query position, in one active prompt and one control prompt.

    Args:
        head: (layer, head).
        active, control: index of the prompt in its set.
    """
    chosen = [(experiment.active, active), (experiment.control, control)]
    kept = [_kept(record.prompts[i].position(record.query) + 1) for record, i in chosen]
    rows = np.zeros((2, max(map(len, kept))))
    for row, (record, i), keys in zip(rows, chosen, kept, strict=True):
        row[: len(keys)] = record.rows[i, head[0], head[1], keys].double().numpy()
    tokens = [[record.prompts[i].tokens[k] for k in keys] for (record, i), keys in zip(chosen, kept, strict=True)]
    fig = Figure(figsize=(1.2 + 0.66 * rows.shape[1], 2.2))
    ax = fig.subplots()
    plot_token_strips(ax, rows, tokens=tokens, labels=[f"active {active + 1}", f"control {control + 1}"])
    ax.set_title(f"Head {Head(*head)}: attention of {experiment.active.query} in active prompt {active + 1} "
                 f"and control prompt {control + 1}")  # fmt: skip
    return fig


def _kept(n: int) -> list[int]:
    """Which of n tokens are drawn: all, or the first and the last ones."""
    return list(range(n)) if n <= MOST_TOKENS else [0, *range(n - MOST_TOKENS + 1, n)]


def picture(name: str, draw: Callable[..., Figure], *args: Any) -> str:
    """The figure that ``draw(*args)`` returns, in the style of the series, as an HTML image that says what it shows.

    Its class is ``playground-name``; the alternative text is the figure's own title (or the label of its axis).
    """
    buffer = io.BytesIO()
    with _drawing, rc_context(RC):  # type: ignore[arg-type]
        fig = draw(*args)
        fig.savefig(buffer, format="png", dpi=100)
    ax = fig.axes[0]
    says = html.escape(ax.get_title(loc="left") or f"colours of the grid: {ax.get_xlabel()}", quote=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="playground-{name}" style="max-width: none" alt="{says}" src="data:image/png;base64,{data}">'
