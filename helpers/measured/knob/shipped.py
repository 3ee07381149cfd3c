"""What was measured by turning the knob of each head (KNOB.md), as it ships."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from safetensors.numpy import load_file

#: Parts of KL in nats, in the order of the last axis of `MeasuredKnob.long_rows`; the first is the sum of the other two.
PARTS = ("kl", "sink", "rest")
#: Texts that rows were measured on: as they are, and with their tokens shuffled.
KINDS = ("natural", "shuffled")
#: Lengths n at which rows were measured.
LENGTHS = tuple(2**k for k in range(4, 13))


@dataclass(frozen=True)
class MeasuredKnob:
    """The shipped measurements of one model. Every table has one row a head (columns ``layer`` and ``head``) unless said otherwise.

    KL is in nats, chi in nats squared, LD = logit(answer) - logit(foil) at END in logits, loss in nats a token. ``low`` and
    ``high`` are 95 % intervals, over prompts or stretches. The protocol is ``helpers/measured/KNOB.md``.

    Args:
        folder: where the files are.
    """

    folder: Path

    @property
    def response(self) -> pd.DataFrame:
        """Section 1, a row a head and beta: END rows of the post's 50 IOI prompts.

        ``beta``; ``kl`` KL(beta), mean over prompts; ``predicted`` KL(1) + (beta - 1) chi, mean; ``moved`` mean over
        prompts of |KL(beta) - KL(1)|; ``error`` mean over prompts of |prediction - KL(beta)|, divided by ``moved``.
        """
        return self._table("response")

    @property
    def reach(self) -> pd.DataFrame:
        """Section 1. ``kl``, ``chi`` at beta = 1, means over prompts; ``resolved`` False where chi is below what rounding makes.

        ``reach_low``, ``reach_high``: the furthest beta below and above 1 up to which the error stays at most 0.10 (0 and 8
        where it does so all the way).
        """
        return self._table("reach")

    @property
    def slopes(self) -> pd.DataFrame:
        """Section 2: the 32 clean prompts of the recorded pairs.

        ``slope`` d LD / d beta at END, signed, mean over prompts, and ``slope_low``, ``slope_high``; ``kl`` mean KL at END;
        ``attribution`` mean direct logit attribution (signed); ``direct slope`` mean of the direct response with its sign. The
        predictors, never negative, under their names in the protocol: ``chi``, ``chi x attribution``, ``chi x magnitude``,
        ``chi x value spread``, ``output response``, ``direct response``; the baseline is ``layer``. ``causal``: by the 5 % rule
        of activation patching on IOI.
        """
        return self._table("slopes")

    @property
    def correlations(self) -> pd.DataFrame:
        """Section 2, a row a predictor: Spearman correlations with \\|slope\\| over heads.

        ``predictor``; ``rho``, ``low``, ``high`` over all heads; ``within``, ``within_low``, ``within_high`` with ranks centred by
        layer; ``p`` of ``within``, two-sided, and ``null_low``, ``null_high``, the middle 95 % of permutations within layers.
        """
        return self._table("correlations")

    @property
    def turned(self) -> pd.DataFrame:
        """Section 2, a row a head and beta: the knob turned at every token, causal heads of IOI and as many matched ones.

        ``kind`` "causal" or "matched"; ``partner`` the name of the other head of the match; ``beta``; ``plain`` mean LD at
        beta = 1; ``ld`` mean LD(beta); ``effect`` mean of LD(beta) - LD(1), with ``low``, ``high``; ``p`` of a sign-flip test, ``q``
        over all rows.
        """
        return self._table("turned")

    @property
    def loss(self) -> pd.DataFrame:
        """Section 3: d loss / d beta at beta = 1 at every token, over the stretches of ``stretches``.

        ``slope`` mean over stretches, nats a token per unit of beta, with ``low``, ``high``; ``p``, ``q`` of a t test over stretches;
        ``trace`` trace(C), ``norm`` |C|, ``ratio`` R = |trace(C)| d_head^½ / |C|: how many random directions the knob is worth.
        """
        return self._table("loss")

    @property
    def random(self) -> pd.DataFrame:
        """Section 3, the columns of ``loss``: a model of the same configuration with random weights (seed 0)."""
        return self._table("random")

    @property
    def null(self) -> pd.DataFrame:
        """Section 3, a row a draw: what R is along random directions.

        ``draw``; ``median`` the median over heads of |trace(M C)| d_head^½ / |C|, and ``random_median`` of the model with random
        weights; ``ratio`` quantiles of that quantity over all heads and draws, in rising order (1,000 of them, evenly spaced).
        """
        return self._table("null")

    @property
    def stretches(self) -> pd.DataFrame:
        """Section 3, a row a stretch: ``stretch``, ``text`` it is from, ``start`` (token of that text), ``loss``, ``random_loss``."""
        return self._table("stretches")

    @cached_property
    def stretch_slopes(self) -> Float[np.ndarray, "stretch layer head"]:
        """Section 3: the slopes of the loss on each stretch, whose mean is ``loss.slope``."""
        return np.asarray(load_file(self.folder / "slopes_of_stretches.safetensors")["slope"])

    @property
    def curvature(self) -> pd.DataFrame:
        """Section 3, a row a head and beta (1 among them): twelve heads on eight stretches.

        ``group`` "largest slope" or "drawn"; ``beta``; ``loss``; ``change`` mean over stretches of loss(beta) - loss(1), with ``low``,
        ``high``; ``best`` True at the beta with the smallest loss.
        """
        return self._table("curvature")

    @property
    def lengths(self) -> pd.DataFrame:
        """Section 4, a row a head, kind and part: slopes against log n of the mean over stretches.

        ``kind`` one of `KINDS`; ``part`` one of `PARTS`; ``slope`` with ``low``, ``high``; ``r2`` the share of the variance over
        lengths that log n explains; ``first``, ``last`` the mean at the shortest and the longest n; ``weight`` of BOS at the longest.
        """
        return self._table("lengths")

    @cached_property
    def long_rows(self) -> Float[np.ndarray, "stretch kind n layer head part"]:
        """Section 4: KL and its parts in nats at the last of n tokens; axes in the order of `KINDS`, `LENGTHS` and `PARTS`."""
        return np.asarray(load_file(self.folder / "lengths.safetensors")["parts"])

    @cached_property
    def sink_weights(self) -> Float[np.ndarray, "stretch kind n layer head"]:
        """Section 4: the weight of BOS in the same rows."""
        return np.asarray(load_file(self.folder / "lengths.safetensors")["weight"])

    @cached_property
    def points(self) -> dict[str, Any]:
        """For the widget: each causal and matched head, at every token, on three prompts.

        ``betas``: the settings. ``prompts``: a list of ``text``, ``tokens``, ``answer``, ``foil`` (as in the record of clean prompts,
        whose first three they are). ``heads``: from a head's name ("9.6") to one entry a prompt: ``ld`` (one a beta), ``kl``, ``chi``
        of its row at END, and ``top``, for each beta five pairs of the token as text and its probability.
        """
        found: dict[str, Any] = json.loads((self.folder / "points.json").read_text(encoding="utf-8"))
        return found

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row a question: ``section``, ``question``, ``value``, ``low``, ``high``, ``limit`` it is held against, ``verdict``
        ("holds", "fails", "undecided"), ``numbers`` (a sentence).
        """
        return self._table("verdicts")

    def has(self, name: str) -> bool:
        """Whether a table (or ``points``) was measured on this model."""
        return any((self.folder / f"{name}{end}").is_file() for end in (".csv", ".json", ".safetensors"))

    def _table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv", keep_default_na=False, na_values=[""])


def measured_knob(model: str) -> MeasuredKnob:
    """The shipped measurements of a model's knobs, by its short name.

    Raises:
        ValueError: if nothing was measured on it.
    """
    root = Path(str(resources.files("helpers.measured")))
    known = sorted(path.parent.name for path in root.glob("*/knob") if any(path.iterdir()))
    if model not in known:
        raise ValueError(f"model: expected one of {', '.join(known) or 'none yet'}, got {model!r}")
    return MeasuredKnob(root / model / "knob")
