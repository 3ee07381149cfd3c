"""GPT-2 small as published, read for notebook 03: counts, intervals and verdicts that follow from the quoted figures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.heads import head_index, head_names, heads_of, pairs_of
from helpers.reference import published
from helpers.reference.circuits import IOI_POST
from helpers.statistics.ranking import rank_heads

#: Roles of the post's circuit that do their work at END; the others work at earlier positions (Wang et al. 2022).
AT_END = ("Name Mover", "Backup Name Mover", "Negative Name Mover", "S-Inhibition")

#: Who passes what to whom in the circuit, by role, as Wang et al. 2022 draw it.
FLOW = (
    ("Previous Token", "Induction"), ("Induction", "S-Inhibition"), ("Duplicate Token", "S-Inhibition"),
    ("S-Inhibition", "Name Mover"), ("S-Inhibition", "Backup Name Mover"), ("S-Inhibition", "Negative Name Mover"),
)  # fmt: skip


def working_at_end(at_end: bool = True) -> pd.DataFrame:
    """The published rows of the circuit heads that work at END, or of those that don't."""
    table = published.circuit_heads()
    return table[table.role.isin(AT_END) == at_end]


def directions() -> pd.Series:
    """How the heads that work at END go from ABC to IOI prompts in the plane: published signs of both shifts, counted."""
    table = working_at_end()
    signs = zip(np.sign(table.d_kl), np.sign(table.d_chi), strict=True)
    said = {1: "up", -1: "down", 0: "unchanged"}
    return pd.Series([f"KL {said[int(k)]}, chi {said[int(c)]}" for k, c in signs]).value_counts()


def prediction_in_words() -> str:
    """Post 1's prediction, "active: high KL, low chi", against the published means."""
    table, counted = working_at_end(), directions()
    fall = int((table.d_chi < 0).sum())
    return (
        f"Of the {len(table)} heads that work at END, {counted['KL up, chi up']} rise in both KL and chi; chi falls in {fall}. Their "
        f"mean KL goes from {table.kl_control.mean():.2f} to {table.kl_active.mean():.2f}, their mean chi from "
        f"{table.chi_control.mean():.2f} to {table.chi_active.mean():.2f}. So the first half of the prediction, higher KL, holds for "
        f"{int((table.d_kl > 0).sum())} of {len(table)}; the second half, lower chi, does not hold."
    )


def unmoved_in_words() -> str:
    """Heads that work at END and shift KL no more than the mean of the 121 other heads, but for rounding to two digits."""
    other = float(published.TESTS.mean_other[0])
    table = working_at_end()
    near = table[table.d_kl.abs() < other + 0.001]
    names = " ".join(head_names(near))
    return (
        f"{len(near)} of the {len(table)} heads that work at END ({names}) shift KL by {near.d_kl.abs().max():.3f} at most; the mean "
        f"|dKL| of the 121 other heads is {other:.3f}."
    )


def idle_table() -> pd.DataFrame:
    """Where six circuit heads look at END when there is nothing to do (published: first 20 ABC prompts), as printed strings."""
    idle = published.IDLE_HEADS
    role = [IOI_POST.role(*head) for head in heads_of(idle)]
    share = ["not given" if np.isnan(s) else f"{s:.0%} of prompts" for s in idle.share]
    weight = idle.weight.map("{:.2f}".format)
    return pd.DataFrame(
        {"head": head_names(idle), "role": role, "looks at": idle.target, "in": share, "mean weight": weight}
    )


def auroc_interval(auroc: float, n_circuit: int, n_other: int) -> tuple[float, float]:
    """95 % interval of an AUROC of which only the value and the two counts are known.

        se^2 = (A (1 - A) + (m - 1) (A / (2 - A) - A^2) + (n - 1) (2 A^2 / (1 + A) - A^2)) / (m n),  A -+ 1.96 se

    Exact for exponential scores and an approximation for others; heads count as independent.

    Args:
        auroc: A, in [0, 1].
        n_circuit, n_other: m and n.

    Raises:
        ValueError: if A is outside [0, 1] or a count is below 1.

    Source: Hanley and McNeil 1982, Radiology 143(1).
    """
    if not 0 <= auroc <= 1:
        raise ValueError(f"auroc: expected a number from 0 to 1, got {auroc}")
    if min(n_circuit, n_other) < 1:
        raise ValueError(f"n_circuit, n_other: expected at least 1 head a side, got {n_circuit} and {n_other}")
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = auroc * (1 - auroc) + (n_circuit - 1) * (q1 - auroc**2) + (n_other - 1) * (q2 - auroc**2)
    half = 1.96 * np.sqrt(max(spread, 0) / (n_circuit * n_other))
    return max(0.0, float(auroc - half)), min(1.0, float(auroc + half))


def published_aurocs() -> pd.DataFrame:
    """How published figures rank GPT-2 small's heads, with 95 % intervals, in the form that `plot_scores` draws.

    Intervals of the post's two AUROCs by `auroc_interval`; of the layer index and of patching by resampling heads.
    """
    rows: dict[str, tuple[float, float, float, float, str]] = {}
    for test in published.TESTS.itertuples():
        rows[f"{test.statistic} at END"] = (test.auroc, *auroc_interval(test.auroc, 23, 121), np.nan, "two sets")
    layer, inside = head_index(12, 12).layer, IOI_POST.mask(12, 12).ravel()
    scores = {
        "layer index": (layer, "nothing"),
        "activation patching": (published.head_patching().act_output.abs(), "pairs"),
    }
    for name, (score, needs) in scores.items():
        r = rank_heads(score, inside, layer)
        rows[name] = (r.auroc, r.low, r.high, r.within_auroc, needs)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["auroc", "low", "high", "within", "needs"])


def pair_in_words() -> str:
    """The strongest published change of a correlation between two heads, and how it was measured."""
    pairs = published.outlier_pairs()
    top, (one, other) = pairs.iloc[0], pairs_of(pairs)[0]
    sds = abs(top.c_diff) / published.COUPLING_SD
    return (
        f"{one} and name mover {other}: the correlation of their KL over prompts is {top.c_non_ioi:+.2f} on ABC prompts and "
        f"{top.c_ioi:+.2f} on IOI prompts. The change, {top.c_diff:.3f}, is the largest of {144 * 143 // 2:,} pairs and "
        f"{sds:.1f} standard deviations of all changes."
    )
