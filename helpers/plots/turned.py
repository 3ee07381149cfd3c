"""One head with its knob turned: its row over the tokens, its place in the plane, the next words, and the answer."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.knob.turned import TurnedHead
from helpers.plots.plane import label_plane, plot_attainable
from helpers.plots.rows import plot_token_strips
from helpers.plots.style import BLACK, BLUE, GREY, VERMILION

#: Settings along which a path is drawn.
PATH = tuple(np.geomspace(0.02, 50, 120))


def knob_figure(turned: TurnedHead, beta: float) -> Figure:
    """One head at one setting of its knob, beside the head as it is.

    Args:
        turned: what `helpers.knob.turn_head` returns.
        beta: one of its settings.
    """
    at = turned.betas.index(beta)
    fig = Figure(figsize=(9, 4.6), layout="constrained")
    [top], [bottom] = fig.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.7])
    strips = top.subplots()
    labels = ["β = 1", f"β = {beta:g}"]
    plot_token_strips(strips, turned.rows[[turned.plain, at]], tokens=[turned.tokens] * 2, labels=labels, size=8)
    strips.set_title(f"head {turned.head} at the last token, its scores multiplied by β = {beta:g}")
    plane, words, answer = bottom.subplots(1, 3, width_ratios=[1.25, 0.8, 1])
    plot_turned_place(plane, turned, beta)
    plot_next_words(words, turned, beta).set_title("next word")
    plot_answer(answer, turned, beta)
    return fig


def plot_turned_place(ax: Axes, turned: TurnedHead, beta: float) -> Axes:
    """The path of a head's row at END through the (KL, chi) plane as its knob turns; a ring at beta = 1, a dot at beta."""
    n = int(turned.visible.sum())
    label_plane(plot_attainable(ax, n, label=False), n)
    ax.plot(*turned.places(PATH).T, color=VERMILION, lw=1.2)
    ax.plot(*turned.places([1.0])[0], "o", ms=9, mfc="none", mec=BLACK, mew=1.3, zorder=3, clip_on=False)
    ax.plot(*turned.places([beta])[0], "o", ms=7, color=VERMILION, zorder=4, clip_on=False)
    ax.set_title("place in the plane (ring: β = 1)", fontsize=10)
    return ax


def plot_next_words(ax: Axes, turned: TurnedHead, beta: float) -> Axes:
    """Bars of the most likely next words at beta, with ticks at what the same words have at beta = 1, where they are listed."""
    words = turned.words[turned.betas.index(beta)]
    before = dict(turned.words[turned.plain])
    places = np.arange(len(words))[::-1]
    kinds = {turned.answer: VERMILION, turned.foil: BLUE}
    ax.barh(places, [p for _, p in words], color=[kinds.get(word.strip(), GREY) for word, _ in words], height=0.7)
    known = [(y, before[word]) for y, (word, _) in zip(places, words, strict=True) if word in before]
    if known:
        ax.plot([p for _, p in known], [y for y, _ in known], "|", color=BLACK, ms=13, mew=1.5)
    ax.set_yticks(places, [word.strip() or repr(word) for word, _ in words])
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(0, 1.02), xlabel="probability")
    return ax


def plot_answer(ax: Axes, turned: TurnedHead, beta: float) -> Axes:
    """The logit difference against beta, the setting marked; beta from 0 on an axis of log(1 + beta)."""
    ax.plot(np.log1p(turned.betas), turned.logit_difference, ".-", color=GREY, ms=5)
    at = turned.betas.index(beta)
    ax.plot(np.log1p(beta), turned.logit_difference[at], "o", ms=8, color=VERMILION, zorder=4)
    ax.axhline(turned.logit_difference[turned.plain], color=BLACK, lw=0.8, ls=":")
    _label_betas(ax, [0, 0.5, 1, 2, 4, 8])
    ax.set_title(f"logit of {turned.answer} − logit of {turned.foil}", fontsize=10)
    return ax


def _label_betas(ax: Axes, betas: list[float]) -> None:
    """Ticks of an axis of log(1 + beta)."""
    ax.set_xticks(np.log1p(betas), [f"{beta:g}" for beta in betas])
    ax.set_xlabel("β")
