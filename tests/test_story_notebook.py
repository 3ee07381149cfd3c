"""Notebook 03 on models of other kinds: without a circuit, of two layers, of GPT-2 small's shape."""

from __future__ import annotations

import matplotlib

matplotlib.use("agg")

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from cells import WITH_TASKS, cells_of, code_of
from models import CIRCUIT
from test_story import toy_story

import helpers.story
from helpers.reference import Circuit

pytestmark = pytest.mark.slow


def run(cells: list[Any]) -> dict[str, Any]:
    """Run code cells one after the other, without the kernel's own commands; returns the names they leave."""
    names: dict[str, Any] = {}
    with matplotlib.rc_context(), pd.option_context("display.width", 140):
        for cell in cells:
            if cell.cell_type == "code" and "%pip" not in cell.source:
                exec(compile(code_of(cell), cell.id, "exec"), names)
                plt.close("all")
    for option in ("max_colwidth", "max_columns"):
        pd.reset_option(f"display.{option}")
    return names


SHAPES = {
    "no circuit": (4, 6, None),
    "two layers": (2, 4, Circuit("made up", 2, 4, {"acts at END": ((1, 0), (1, 2))}, "made up")),
    "the shape of GPT-2 small": (12, 12, None),
    "a circuit without heads": (4, 6, Circuit("made up", 4, 6, {}, "made up")),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_every_cell_runs_for_other_models(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a story of made-up rows in place of the model's own, from `tell` on, no cell fails, whatever the shape."""
    n_layers, n_heads, circuit = SHAPES[kind]
    stories = {"demo": toy_story(circuit=CIRCUIT), "toy": toy_story(n_layers, n_heads, circuit=circuit)}
    monkeypatch.setattr(helpers.story, "tell", lambda model, *, live=False: stories[model])
    monkeypatch.setenv("MODEL", "toy")
    names = run(cells_of(WITH_TASKS[2]))
    assert names["MODEL"] == "toy"
    assert names["changes"].shape[0] == n_layers * n_heads
