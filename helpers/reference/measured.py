"""Circuits that were measured: the patching table of a model on a task, with all that is needed to judge and repeat it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.heads import head_index, model_shape
from helpers.reference.circuits import Circuit, from_effects
from helpers.statistics.effects import DIRECTIONS, THRESHOLD, is_causal

FORMAT = "measured-circuit/1"
TABLE, ABOUT = "heads.csv", "circuit.json"

_EFFECTS = [f"{way}{bound}" for way in DIRECTIONS for bound in ("", "_low", "_high")]


@dataclass(frozen=True)
class MeasuredCircuit:
    """What activation patching found on one task, head by head.

    Attributes:
        table: one row a head of the whole model: layer, head; denoising and noising as shares of the gap, with intervals
            (``_low``, ``_high``); causal (5 % rule); acts_at (of causal heads: the position at which patching it alone has at
            least half of the effect, else "in between"). A screened table also has attribution_denoising and
            attribution_noising, and NaN effects for the heads that were not patched.
        about: model, weights (hash), task, pairs, tokens, prompts, accuracy, gap, how it was measured.
    """

    table: pd.DataFrame
    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"causal heads of {self.about['model']} ({self.about['task']})"

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and heads of the model."""
        return model_shape(self.table)

    def circuit(self, threshold: float = THRESHOLD) -> Circuit:
        """The causal heads at a threshold (`is_causal`), by the position at which they act."""
        method = "activation patching in both directions"
        if self.about["screened_above"] is not None:
            method += " of the heads that attribution patching points at"
        source = f"{method}, {self.about['pairs']} pairs, more than {threshold:.0%} of the gap"
        effects = self.table.assign(causal=is_causal(self.table, threshold))
        return from_effects(self.name, effects, by_position=True, source=source)

    def check_shape(self, n_layers: int, n_heads: int) -> None:
        """Refuse a model of another shape than the circuit's."""
        self.circuit().check_shape(n_layers, n_heads)

    def save(self, folder: str | Path) -> None:
        """Write `TABLE` and `ABOUT` into a folder; `load` gives back the same numbers, bit by bit."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.table.to_csv(folder / TABLE, index=False, lineterminator="\n")
        (folder / ABOUT).write_text(json.dumps(dict(self.about), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> MeasuredCircuit:
        """Read what `save` wrote, from the folder or one of its two files.

        Raises:
            ValueError: if there is no measured circuit.
        """
        folder = Path(path)
        folder = folder if os.path.isdir(folder) else folder.parent
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            table = pd.read_csv(
                folder / TABLE,
                keep_default_na=False,
                na_values=dict.fromkeys(_EFFECTS, ""),
            )
            found = cls(table, about)
            whole = head_index(*found.shape).equals(table[["layer", "head"]])
            missing = {"causal", "acts_at", *_EFFECTS} - {*table} or {"model", "task", "pairs", "screened_above"} - {
                *about
            }
            if about["format"] != FORMAT or missing or not whole:
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"circuit: expected a folder that make circuit wrote ({TABLE}, {ABOUT}), got {str(path)!r}"
            ) from None
        return found


def measured_circuit(model: str, task: str = "ioi") -> MeasuredCircuit | None:
    """The measured circuit of a model on a task that ships with the package, by the model's short name; None if none does."""
    root = Path(str(resources.files("helpers.measured")))
    shipped = {(path.parts[-3], path.parts[-2]): path for path in root.glob(f"*/*/{ABOUT}")}
    return MeasuredCircuit.load(shipped[model, task]) if (model, task) in shipped else None
