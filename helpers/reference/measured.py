"""Circuits that were measured: the patching table of a model on a task, with all that is needed to judge and repeat it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.reference.circuits import Circuit, from_roles
from helpers.statistics.effects import THRESHOLD, is_causal

FORMAT = "measured-circuit/1"
TABLE, ABOUT = "heads.csv", "circuit.json"


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

    def circuit(self, threshold: float = THRESHOLD) -> Circuit:
        """The causal heads at a threshold (`is_causal`), by the position at which they act."""
        causal = self.table[is_causal(self.table, threshold)]
        where = causal.acts_at.fillna("").replace("", "unknown")
        roles = ((f"acts at {at}", (row.layer, row.head)) for at, row in zip(where, causal.itertuples(), strict=True))
        shape = int(self.table.layer.max()) + 1, int(self.table["head"].max()) + 1
        method = "activation patching in both directions"
        source = f"{method}, {self.about['pairs']} pairs, more than {threshold:.0%} of the gap"
        return from_roles(self.name, *shape, sorted(roles), source)

    def save(self, folder: str | Path) -> None:
        """Write `TABLE` and `ABOUT` into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.table.to_csv(folder / TABLE, index=False, float_format="%.5f", lineterminator="\n")
        (folder / ABOUT).write_text(json.dumps(dict(self.about), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> MeasuredCircuit:
        """Read what `save` wrote, from the folder or one of its two files.

        Raises:
            ValueError: if there is no measured circuit.
        """
        folder = Path(path)
        folder = folder if folder.is_dir() else folder.parent
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            table = pd.read_csv(folder / TABLE, keep_default_na=False, na_values=[""])
            if about["format"] != FORMAT or not {"layer", "head", "denoising", "noising", "causal", "acts_at"} <= {
                *table
            }:
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(
                f"circuit: expected the results folder of a measured circuit ({TABLE}, {ABOUT}), got {str(path)!r}"
            ) from None
        return cls(table, about)


def missed(screened: MeasuredCircuit, full: MeasuredCircuit) -> pd.DataFrame:
    """The causal heads of a full table that a screened one did not find, with their effects.

    Raises:
        ValueError: if the tables are of other weights or tasks.
    """
    for what in ("weights", "task"):
        if screened.about[what] != full.about[what]:
            raise ValueError(f"full: expected the same {what}, {screened.about[what]!r}, got {full.about[what]!r}")
    return full.table[full.table.causal.to_numpy() & ~screened.table.causal.to_numpy()]
