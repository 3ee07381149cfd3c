"""Circuits that are known by a model's name; those of the demo models from the tables that ship with the weights."""

from __future__ import annotations

from importlib import resources

import pandas as pd

from helpers.reference.circuits import IOI_POST, Circuit, from_effects
from helpers.reference.measured import measured_circuit

DEMO_SEEDS = {"demo": 0, "demo-seed-1": 1, "demo-seed-2": 2}


def causal_heads(name: str = "demo") -> pd.DataFrame:
    """The shipped patching table of a demo model (see `helpers.patching.heads.head_effects`), with ``acts_at``."""
    return _shipped(name, "causal_heads.csv")


def causal_edges(name: str = "demo") -> pd.DataFrame:
    """The shipped path-patching table of a demo model (see `helpers.patching.paths.edge_effects`): every pair of heads."""
    return _shipped(name, "edges.csv")


def _shipped(name: str, table: str) -> pd.DataFrame:
    folder = resources.files("helpers.demo") / "weights" / f"seed-{DEMO_SEEDS[name]}"
    with (folder / table).open() as file:
        return pd.read_csv(file, keep_default_na=False, na_values=[""])


def circuit_of(model: str) -> Circuit | None:
    """The IOI circuit of a model by its name, or None.

    The causal heads of a demo model, or of a model whose measurement ships (`measured_circuit`); the post's 23 of GPT-2 small.
    """
    if model in DEMO_SEEDS:
        source = "activation patching in both directions on minimal pairs; helpers/demo"
        return from_effects(f"causal heads of {model}", causal_heads(model), by_position=True, source=source)
    if model in ("gpt2-small", "gpt2", "openai-community/gpt2"):
        return IOI_POST
    measured = measured_circuit(model)
    return measured.circuit() if measured else None
