"""The playground without its widgets: prompts are measured and drawn by plain functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from helpers.attention.capture import record_attention
from helpers.attention.record import AttentionRecord
from helpers.attention.stream import concatenate
from helpers.diagnostics.distances import DISTANCES
from helpers.experiment import Experiment, analyse, shape_columns
from helpers.heads import Head, HeadLike
from helpers.plots.rows import plot_token_strips
from helpers.plots.style import BLACK
from helpers.widgets.inputs import Inputs, Side, first_token, token_index

#: What the grid can show, and the column of the experiment's table that holds it.
MEASURES = {
    "shift of KL": "d_kl", "shift of chi": "d_chi",
    "significance of the KL shift (q)": "d_kl_q", "significance of the chi shift (q)": "d_chi_q",
    "KL, active": "kl_active", "KL, control": "kl_control", "chi, active": "chi_active", "chi, control": "chi_control",
} | {
    name if name in DISTANCES else f"shift of {name}": column for name, column in shape_columns().items()
}  # fmt: skip

#: Attention rows are drawn over at most this many tokens: the first and the last ones.
MOST_TOKENS = 40

Records = tuple[AttentionRecord, AttentionRecord]


class Stopped(Exception):
    """The run was stopped between two chunks of prompts."""


# ---- measuring


def run(model: Any, inputs: Inputs, **options: Any) -> Experiment:
    """Record both prompt sets and compare them; arguments and errors as `record` and `analyse`."""
    return analyse(*record(model, inputs, **options), design=inputs.design)


def record(
    model: Any,
    inputs: Inputs,
    *,
    progress: Callable[[int, int], object] | None = None,
    stop: Callable[[], bool] = lambda: False,
    chunk: int = 4,
) -> Records:
    """Record both prompt sets a few prompts at a time.

    Args:
        model: what `load_model` returns.
        inputs: the prompt sets and the position; see `helpers.widgets.checker.check` for what may be wrong with them.
        progress: called with (prompts done, prompts in all) after each chunk.
        stop: asked before each chunk; True ends the run.
        chunk: prompts between two questions.

    Raises:
        Stopped: if ``stop`` said so.
        ValueError: as `record_attention`.
    """
    total, done, records = len(inputs.active) + len(inputs.control), 0, []
    for prompts in inputs.sides.values():
        parts = []
        for start in range(0, len(prompts), chunk):
            if stop():
                raise Stopped(f"Stopped after {done} of {total} prompts.")
            some = prompts[start : start + chunk]
            parts.append(record_at(model, some, inputs))
            done += len(some)
            if progress:
                progress(done, total)
        records.append(concatenate(parts))
    return records[0], records[1]


def record_at(model: Any, prompts: Side, inputs: Inputs) -> AttentionRecord:
    """The attention rows of some prompts at the position of the inputs, a name or a token index (``"token 5"``)."""
    index = token_index(inputs.position)
    query = inputs.position if index is None else "all"
    found = record_attention(model, prompts, query=query, progress=False, **first_token(model, inputs.bos))
    return found if index is None else at_token(found, index)


def at_position(record: AttentionRecord, position: str) -> AttentionRecord:
    """The rows of a named position or a token index, from a record of all query positions; errors as `at_token`."""
    index = token_index(position)
    return record.at(position) if index is None else at_token(record, index)


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


def grid_values(experiment: Experiment, measure: str) -> np.ndarray:
    """One column of the experiment's table, shape ``(layer, head)``."""
    shape = experiment.active.n_layers, experiment.active.n_heads
    return np.asarray(experiment.table[MEASURES[measure]].to_numpy(dtype=float).reshape(shape))


def scale_of(measure: str) -> str:
    """Which colours a measure has: ``"q"`` (darkest where smallest), ``"shift"`` (two colours around 0), ``"size"``."""
    column = MEASURES[measure]
    return "q" if column.endswith("_q") else "shift" if column.startswith("d_") else "size"


def strongest(experiment: Experiment, measure: str) -> Head:
    """The head that the grid's colours point at: the largest value or shift, or the smallest q."""
    values = grid_values(experiment, measure)
    at = values.argmin() if scale_of(measure) == "q" else np.nan_to_num(np.abs(values)).argmax()
    layer, head = np.unravel_index(at, values.shape)
    return Head(int(layer), int(head))


# ---- figures


def grid_figure(experiment: Experiment, measure: str) -> Figure:
    """The grid as a picture, each cell with its value: orange for more on active prompts, purple for less."""
    values, colours = grid_values(experiment, measure), _colours(experiment, measure)
    layers, heads = values.shape
    fig = Figure(figsize=(1.6 + 0.62 * heads, 1.3 + 0.42 * layers))
    ax = fig.subplots()
    shades = colours.to_rgba(values)
    ax.imshow(shades, aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        light = shades[y, x, :3] @ (0.299, 0.587, 0.114) > 0.5
        text, ink = _number(value, scale_of(measure)), BLACK if light else "white"
        ax.text(x, y, text, ha="center", va="center", fontsize=7.5, color=ink)
    ax.set(xlabel="head", ylabel="layer", xticks=range(heads), yticks=range(layers))
    best, record = strongest(experiment, measure), experiment.active
    ax.set_title(f"{record.model}, {record.query}: {measure}, strongest in {best}", parse_math=False)
    fig.colorbar(colours, ax=ax, pad=0.02)
    return fig


def _colours(experiment: Experiment, measure: str) -> ScalarMappable:
    """q on a logarithmic scale; shifts symmetric around 0."""
    values, scale = grid_values(experiment, measure), scale_of(measure)
    largest = max(float(np.nan_to_num(np.abs(values)).max()), 1e-6)
    if scale == "q":
        return ScalarMappable(LogNorm(1e-3, 1, clip=True), "Oranges_r")
    return ScalarMappable(
        Normalize(-largest if scale == "shift" else 0, largest), "PuOr_r" if scale == "shift" else "Oranges"
    )


def _number(value: float, scale: str) -> str:
    if np.isnan(value):
        return "n/a"
    return f"{value:.2g}" if scale == "q" else f"{round(value, 3) + 0.0:{'+' if scale == 'shift' else ''}.3f}"


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
