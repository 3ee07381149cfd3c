"""Attention rows as pictures: over their tokens, split into sink and rest, and as numbered points of the plane."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from helpers.plots.style import BLACK, GREY, ORANGE, SKY

#: What tokenizers call the token in front of a prompt, and what a reader should see.
READABLE = {"<|endoftext|>": "BOS", "<|begin_of_text|>": "BOS", "<s>": "BOS", "<bos>": "BOS"}

#: Colours of points by their weight on the sink: a light grey for none, through the colour of the sink's bars, to dark blue.
SINK_COLOURS = LinearSegmentedColormap.from_list("sink", ["#C4C4C4", SKY, "#00304D"])


def plot_token_strips(
    ax: Axes,
    rows: ArrayLike,
    *,
    tokens: Sequence[Sequence[str]],
    labels: Sequence[str],
    print_from: float = 0.05,
    size: float = 8,
) -> Axes:
    """Attention rows as strips of tokens, each token shaded by its weight (0 lightest, 1 darkest).

    Args:
        rows: weights, shape ``(row, key)``; a shorter row is padded with zeros.
        tokens: the tokens of each row; its cells are drawn for these only.
        labels: one a row, at the left.
        print_from: weights from here on are also printed as numbers.
        size: font size of the tokens.

    Raises:
        ValueError: if rows, tokens and labels differ in number, or a row has more tokens than weights.
    """
    weights = np.asarray(rows, dtype=float)
    if weights.ndim != 2 or not len(weights) == len(tokens) == len(labels):
        raise ValueError(
            f"rows: expected shape (row, key) with {len(labels)} labels and as many token lists, got {weights.shape}"
            f" and {len(tokens)}"
        )
    shown = np.ma.masked_all(weights.shape)
    for y, words in enumerate(tokens):
        if len(words) > weights.shape[1]:
            raise ValueError(f"tokens: row {y} has {weights.shape[1]} weights, got {len(words)} tokens")
        shown[y, : len(words)] = weights[y, : len(words)]
        for x, word in enumerate(words):
            _cell(ax, x, y, word, float(weights[y, x]), print_from=print_from, size=size)
    ax.imshow(shown, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
    ax.hlines(np.arange(1, len(weights)) - 0.5, -0.5, weights.shape[1] - 0.5, color="white", lw=6)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def plot_sink_bars(
    ax: Axes,
    kl_sink: ArrayLike,
    kl_rest: ArrayLike,
    *,
    labels: Sequence[str],
    ceiling: float | None = None,
    sink: str = "BOS",
    size: float = 7.5,
) -> Axes:
    """Stacked bars of KL in nats: what the weight of the sink explains, and what the rest of the row explains.

    Args:
        kl_sink, kl_rest: the two parts, shape ``(bar,)``, as in `helpers.diagnostics.plane.split_sink`.
        labels: one a bar.
        ceiling: log n, drawn as a dashed line.
        sink: what the sink is called in the legend.
        size: font size of the bar labels.
    """
    below, above = np.asarray(kl_sink, dtype=float), np.asarray(kl_rest, dtype=float)
    places = np.arange(below.size)
    ax.bar(places, below, width=0.8, color=SKY, label=f"how much goes to {sink}")
    ax.bar(places, above, width=0.8, bottom=below, color=ORANGE, label="how the rest is spread")
    if ceiling is not None:
        ax.axhline(ceiling, color=GREY, lw=1, ls="--", label=r"ceiling $\log n$")
    ax.set_xticks(places, labels, rotation=90, fontsize=size)
    ax.set(ylabel=r"$\mathrm{KL}(\pi\|u)$ (nats)", xlim=(-0.7, below.size - 0.3))
    return ax


def plot_numbered_points(ax: Axes, kl: ArrayLike, chi: ArrayLike, *, size: float = 9.5) -> Axes:
    """Circle points of the plane and number them from 1, in the order given."""
    places = np.column_stack([np.asarray(kl, dtype=float), np.asarray(chi, dtype=float)])
    ax.plot(*places.T, "o", ms=8, mfc="none", mec=BLACK, mew=1.3, zorder=4, label="_numbered")
    for number, (x, y) in enumerate(places, 1):
        left = x > 0.95
        ax.annotate(
            str(number), (x, y), (-7 if left else 7, 5), textcoords="offset points", fontsize=size, weight="bold",
            ha="right" if left else "left", zorder=5, path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
    return ax


def drawable(text: str) -> str:
    """A text in which letters that the figures' font lacks stand by their numbers, such as U+65E5; a browser shows them."""
    known = _letters()
    return "".join(letter if ord(letter) in known else f"U+{ord(letter):04X} " for letter in text).rstrip()


@cache
def _letters() -> frozenset[int]:
    """Code points that the figures' font has."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _cell(ax: Axes, x: int, y: int, word: str, weight: float, *, print_from: float, size: float) -> None:
    """One token, and its weight below it where that is worth a number."""
    colour = "white" if weight > 0.6 else BLACK
    text = READABLE.get(word) or drawable(word.strip() or repr(word))
    number = weight >= print_from
    ax.text(x, y - 0.12 * number, text, ha="center", va="center", fontsize=size, color=colour, parse_math=False)
    if number:
        ax.text(x, y + 0.2, f"{weight:.2f}", ha="center", va="center", fontsize=size - 1, color=colour)
