"""What every step of the measurements of the knob works with: the model, its prompts and texts, and what is finished."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from helpers.folders import Kept
from helpers.measured.build import RECORDED_PAIRS
from helpers.measured.knob.text import Stretch, demo_documents, long_stretches, short_stretches
from helpers.models.model import LanguageModel
from helpers.patching.circuits import fit_to_model
from helpers.prompts.prompt import Prompt


class Work:
    """A model, the folder that its measurements are written to, and what has been finished (a stretch, a head) by name."""

    def __init__(self, model: LanguageModel, out: Path, kept: Kept | None = None) -> None:
        self.model, self.out, self.kept = model, out, kept or Kept()
        out.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, table: pd.DataFrame) -> None:
        table.to_csv(self.out / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")

    def prompts(self) -> list[Prompt]:
        """The clean side of the recorded pairs of IOI."""
        return [*fit_to_model(self.model, "ioi", RECORDED_PAIRS).clean]

    def short(self) -> list[Stretch]:
        """The stretches on which the loss is measured."""
        tokenizer = self.model.tokenizer
        return demo_documents(tokenizer) if self.model.name == "demo" else short_stretches(long_stretches(tokenizer))
