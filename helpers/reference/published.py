"""Published figures of GPT-2 small, quoted as data with their source. Nothing here was measured by us."""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from helpers.heads import PAIR, head_index
from helpers.reference.circuits import IOI_POST
from helpers.statistics.ranking import auroc, rank_heads

SOURCE = "Fields 2026, Attention Diagnostics: Testing KL and Susceptibility on the IOI Circuit (GPT-2 small)"
PATCHING_SOURCE = "TransformerLens documentation, demo 'Attribution Patching' (GPT-2 small, 8 IOI prompts)"

#: One-sided Mann-Whitney tests of the post, 23 circuit heads against 121: U, p, means and sds of the two groups.
TESTS = pd.DataFrame(
    {
        "statistic": ["|dKL|", "|dchi|"],
        "u": [2049, 2219],
        "p": [0.00017, 0.000003],
        "p_precision": [0.000005, 0.0000005],
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

#: The same correlation of KL and chi over all 7,200 (prompt, head) points of the IOI set.
PER_PROMPT_CORRELATION = 0.352

#: Off-diagonal range of the cross-head correlation matrices of KL, and the sd of their difference.
COUPLING = {"c_active": (-0.947, 0.944), "c_control": (-0.975, 0.941), "c_diff": (-1.274, 1.211)}
COUPLING_SD = 0.254

#: Two heads outside the circuit that the post prints as well.
OTHER_HEADS = pd.DataFrame(
    {
        "layer": [11, 11],
        "head": [1, 6],
        "role": ["other", "other"],
        "d_kl": [0.0407, 0.0186],
        "d_chi": [0.0334, 0.0400],
        "kl_active": [0.3065, 0.5463],
        "kl_control": [0.2658, 0.5277],
        "chi_active": [0.1838, 0.2494],
        "chi_control": [0.1504, 0.2094],
    }
)

#: Where heads look at END on the first 20 ABC prompts: target of the largest weight, in which share of the prompts, and
#: the mean of that weight. The post gives one figure for 9.9 and 9.6 together; it is read here as holding for each.
IDLE_HEADS = pd.DataFrame(
    {
        "layer": [9, 9, 5, 3, 4, 7],
        "head": [9, 6, 5, 0, 11, 3],
        "target": ["BOS", "BOS", "BOS", "BOS", "the previous token", "the verb"],
        "share": [0.80, 0.80, 1.0, 1.0, 1.0, np.nan],
        "share_precision": [0.005] * 6,
        "weight": [0.46, 0.46, 0.904, 0.961, 1.000, 0.339],
        "weight_precision": [0.01, 0.01, 0.001, 0.001, 0.001, 0.001],
    }
)


#: Output magnitude ||z||^2 / d_head at END, 1,000 prompts a set: U and p of |mean shift|, ratio of the groups' means (all
#: as the author gives them), and the within-layer AUROC and p that our code finds in the author's data.
OUT_MAGNITUDE = pd.Series(
    {"u": 2168, "p": 1.16e-5, "ratio": 30.5, "auroc": 2168 / (23 * 121), "within": 0.746, "within_p": 2.0e-4}
)

#: Var_v, how far apart the values are that a row mixes, and its logarithm, at END (author's scratch notebook for a third
#: post, 1,000 prompts a set): AUROC and within-layer AUROC of the |mean shift| that our code finds in the author's data.
VALUE_SPREAD = {"|d Var_v|": (0.767, 0.672), "|d log Var_v|": (0.838, 0.776)}


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
def top_pairs() -> pd.DataFrame:
    """The post's fifty largest |C_diff| among pairs of heads: rank, a pair's columns (`pair_index`), c_diff, pair_type."""
    return _read_pairs("published_top50_cdiff_pairs.csv", ["layer_i", "head_i", "layer_j", "head_j"])


@cache
def outlier_pairs() -> pd.DataFrame:
    """The post's ten largest |C_diff| between a head outside the circuit (first) and one inside, columns as `pair_index`."""
    names = ["nc_layer", "nc_head", "circuit_layer", "circuit_head"]
    return _read_pairs("published_noncircuit_circuit_outliers.csv", names)


@cache
def head_patching() -> pd.DataFrame:
    """Activation and attribution patching of all 144 heads (`PATCHING_SOURCE`), normalised logit difference.

    Columns: layer, head, act_output, act_query, … attr_pattern.
    """
    return _read("published_gpt2_head_patching.csv")


def rankings() -> pd.DataFrame:
    """How published figures rank GPT-2 small's 144 heads against the post's 23: AUROC, and within layers where it is known.

    Quoted where the data of all heads were not published; computed by `rank_heads` from the patching table.
    """
    layer, inside = head_index(12, 12).layer, IOI_POST.mask(12, 12).ravel()
    rows: list[tuple[str, float, float, str]] = [("layer index", layer_auroc(), 0.5, "no model")]
    rows += [(f"{t.statistic} at END", t.auroc, np.nan, "Fields 2026, post 2") for t in TESTS.itertuples()]
    rows += [("|d output magnitude| at END", OUT_MAGNITUDE.auroc, OUT_MAGNITUDE.within, "Fields 2026, working data")]
    rows += [(f"{name} at END", *numbers, "Fields 2026, working data") for name, numbers in VALUE_SPREAD.items()]
    for name, column in (("attribution patching", "attr_output"), ("activation patching", "act_output")):
        r = rank_heads(head_patching()[column].abs(), inside, layer)
        rows.append((name, r.auroc, r.within_auroc, "TransformerLens documentation"))
    return pd.DataFrame(rows, columns=["statistic", "auroc", "within", "source"]).round(3).set_index("statistic")


def layer_auroc() -> float:
    """AUROC of the layer index alone for the post's 23 heads of 144: a baseline that needs no model."""
    return auroc(head_index(12, 12).layer, IOI_POST.mask(12, 12).ravel())


def _read_pairs(name: str, columns: list[str]) -> pd.DataFrame:
    return _read(name).rename(columns=dict(zip(columns, PAIR, strict=True)))


def _read(name: str) -> pd.DataFrame:
    with resources.files("helpers.reference.data").joinpath(name).open() as file:
        return pd.read_csv(file)
