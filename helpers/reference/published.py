"""Published figures of GPT-2 small, quoted as data with their source. Nothing here was measured by us."""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from helpers.reference.circuits import IOI_POST
from helpers.statistics.ranking import auroc

SOURCE = "Fields 2026, Attention Diagnostics: Testing KL and Susceptibility on the IOI Circuit (GPT-2 small)"
PATCHING_SOURCE = "TransformerLens documentation, demo 'Attribution Patching' (GPT-2 small, 8 IOI prompts)"

#: One-sided Mann-Whitney tests of the post, 23 circuit heads against 121: U, p, means and sds of the two groups.
TESTS = pd.DataFrame(
    {
        "statistic": ["|dKL|", "|dchi|"],
        "u": [2049, 2219],
        "p": [0.00017, 0.000003],
        "auroc": [2049 / (23 * 121), 2219 / (23 * 121)],
        "mean_circuit": [0.0568, 0.0280],
        "sd_circuit": [0.0663, 0.0210],
        "mean_other": [0.0134, 0.0075],
        "sd_other": [0.0154, 0.0083],
    }
)

#: Correlations over heads (keys as in `helpers.statistics.coupling.correlations`).
CORRELATIONS = pd.Series(
    {
        "KL, chi (active means)": 0.339,
        "dKL, dchi (all heads)": 0.695,
        "dKL, dchi (circuit)": 0.604,
        "dKL, dchi (others)": 0.651,
        "|dKL|, |dchi|": 0.756,
        "layer, KL (others, active)": 0.379,
        "layer, chi (others, active)": 0.384,
    }
)

#: Off-diagonal range of the cross-head correlation matrices of KL, and the sd of their difference.
COUPLING = {"c_active": (-0.947, 0.944), "c_control": (-0.975, 0.941), "c_diff": (-1.274, 1.211), "sd_c_diff": 0.254}


@cache
def circuit_heads() -> pd.DataFrame:
    """Mean KL and chi of the 23 circuit heads on both prompt sets, and their shifts.

    Columns: layer, head, role, d_kl, d_chi, kl_active, kl_control, chi_active, chi_control (active = IOI, control =
    non-IOI; normalised; four printed decimals).
    """
    return _read("published_circuit_heads.csv").rename(
        columns={
            "delta_kl": "d_kl",
            "delta_chi": "d_chi",
            "kl_ioi": "kl_active",
            "kl_non_ioi": "kl_control",
            "chi_ioi": "chi_active",
            "chi_non_ioi": "chi_control",
        }
    )


@cache
def strongest_pairs() -> pd.DataFrame:
    """The post's fifty largest |C_diff| among pairs of heads."""
    return _read("published_top50_cdiff_pairs.csv")


@cache
def outlier_pairs() -> pd.DataFrame:
    """The post's ten largest |C_diff| between a circuit head and one outside."""
    return _read("published_noncircuit_circuit_outliers.csv")


@cache
def head_patching() -> pd.DataFrame:
    """Activation and attribution patching of all 144 heads (`PATCHING_SOURCE`), normalised logit difference.

    Columns: layer, head, act_output, act_query, … attr_pattern.
    """
    return _read("published_gpt2_head_patching.csv")


def layer_auroc() -> float:
    """AUROC of the layer index alone for the post's 23 heads of 144: a baseline that needs no model."""
    return auroc(np.repeat(np.arange(12), 12), [(i // 12, i % 12) in IOI_POST.heads for i in range(144)])


def compare_heads(table: pd.DataFrame, tolerance: float = 0.0005) -> pd.DataFrame:
    """Published and measured, one row a head and quantity: head, quantity, published, yours, difference, agrees.

    Args:
        table: the experiment's per-head table of a GPT-2 small run.
        tolerance: how far two values may differ; the figures are printed with four decimals.
    """
    quantities = ["kl_active", "kl_control", "d_kl", "chi_active", "chi_control", "d_chi"]
    long = [
        frame.melt(["layer", "head"], quantities, "quantity", name)
        for frame, name in ((circuit_heads(), "published"), (table, "yours"))
    ]
    both = long[0].merge(long[1], on=["layer", "head", "quantity"], how="left")
    difference = both.yours - both.published
    return both.assign(difference=difference, agrees=difference.abs() <= tolerance)


def _read(name: str) -> pd.DataFrame:
    with resources.files("helpers.reference.data").joinpath(name).open() as file:
        return pd.read_csv(file)
