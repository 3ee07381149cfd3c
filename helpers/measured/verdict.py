"""Which number finds the heads that matter: every score on every measured model and task, told apart by kind of model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from helpers.measured.protocol import NAMED
from helpers.measured.shipped import head_scores, measured_tasks, ranked_scores
from helpers.reference.measured import measured_circuit
from helpers.scores.catalogue import SCORES
from helpers.statistics.agreement import mean_of, rank_agreement, resampled_within
from helpers.statistics.ranking import chance_within_layers
from helpers.statistics.screening import expected_passes

#: What the table over all models and tasks comes to: the same words in notebooks 05 and 06 and in the README.
RECOMMENDATION = (
    "Make minimal pairs and rank the heads twice, by attribution patching and by the change of what each head writes, summed "
    "over positions; patch the top of both lists; use KL and chi to look at a head, not to find it."
)

REAL = "smollm2"

#: The turn of the story: what is read of a head, from its depth alone to a gradient, and the score that stands for it.
STORY_STEPS = {
    "depth alone": "layer index",
    "shape of the row at END": "|d KL|",
    "shape where it moves most": "|d KL|, furthest position",
    "which token the row is on": "total variation, furthest position",
    "what the head writes": NAMED,
    "a gradient": "attribution patching",
}

#: Screens of a bill beside the scores: two orders that need no model, and the better rank of two lists.
LATE, EARLY, BOTH = "late layers first", "early layers first", "either list"

_Tables = Mapping[tuple[str, str], pd.DataFrame]
_Resampled = tuple[NDArray[np.float64], NDArray[np.float64]]


@cache
def all_rankings(n_permutations: int = 20_000) -> _Tables:
    """`ranked_scores`, every score, of every shipped (model, task); SmolLM2's first."""
    order = sorted(measured_tasks(), key=lambda at: (at[0] != REAL, at[0], _ORDER.index(at[1])))
    return {at: ranked_scores(*at, n_permutations=n_permutations) for at in order}


def verdict_table(tables: _Tables) -> pd.DataFrame:
    """How often each score is useful, on the real model and on the demo models, best first.

    Useful: the interval of the AUROC lies above 0.5, and the within-layer p is below 0.05.

    Returns:
        One row a score: useful on the real model and on the demos (counts, of ``attrs["of"]``), median AUROC and median
        within-layer AUROC on each, passes a pair on SmolLM2, needs.
    """
    kinds = {"SmolLM2": [at for at in tables if at[0] == REAL], "demos": [at for at in tables if at[0] != REAL]}
    useful = _useful(tables)
    columns = {f"useful, {kind}": useful[some].sum(axis=1) for kind, some in kinds.items()}
    for what, name in (("auroc", "AUROC"), ("within", "within")):
        values = pd.DataFrame({at: t[what] for at, t in tables.items()})
        columns |= {f"{name}, {kind}": values[some].median(axis=1) for kind, some in kinds.items()}
    first = next(iter(tables.values()))
    table = pd.DataFrame(columns).assign(passes=first.passes.astype(int), needs=first.needs)
    by = [*list(columns)[:2], "within, SmolLM2"]
    ranked = table.assign(_all=table[by[0]] + table[by[1]]).sort_values(["_all", *by], ascending=False, kind="stable")
    ranked.attrs["of"] = {kind: len(some) for kind, some in kinds.items()}
    return ranked.drop(columns="_all")


def verdicts_by_chance(tables: _Tables, *, n_permutations: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How many scores the rule of `verdict_table` calls useful, and how many it would if other heads were the causal ones.

    On each model and task by itself, as many heads are drawn from each layer as are causal there (`chance_within_layers`).
    Counted is the half of the rule that this null speaks of, the within-layer p below 0.05; the other half, an AUROC above
    0.5, can only make it fewer.

    Returns:
        One row a model and task, and one of all: useful (scores found useful), chance and chance_95 (median and 95 %
        quantile of the number by chance). ``attrs["of"]`` is the number of verdicts; ``attrs["at_least"]`` the
        chance of one score, and of the luckiest of all, to pass on k models and tasks or more.
    """
    found, passes = _useful(tables), []
    for k, ((model, task), table) in enumerate(tables.items()):
        values, _ = head_scores(model, task)
        scores, causal = np.nan_to_num(values[list(table.index)].to_numpy().T), _causal(model, task)
        p = chance_within_layers(list(scores), causal, values.layer, n_permutations=n_permutations, seed=seed + k)
        passes.append(p < 0.05)
    each = np.array(passes)  # model and task, shuffle, score
    counts = np.vstack([each.sum(2), each.sum((0, 2))])
    rows = pd.DataFrame(index=[*(f"{model}, {task}" for model, task in tables), "all"])
    rows["useful"] = [*found.sum(), found.to_numpy().sum()]
    rows["chance"], rows["chance_95"] = (np.quantile(counts, q, axis=1, method="higher") for q in (0.5, 0.95))
    often, can = each.sum(0), max(1, each.any((0, 1)).sum())  # the layer number can't pass
    rows.attrs["of"] = found.size
    rows.attrs["at_least"] = {
        k: (float((often >= k).mean(0).sum() / can), float((often.max(1) >= k).mean())) for k in (1, 2, 3, 4)
    }
    return rows.astype(int)


def step_table(tables: _Tables) -> pd.DataFrame:
    """The steps of the story on every model and task: columns model, task, step, auroc, within."""
    rows = [
        (*at, step, t.auroc[score], t.within[score]) for at, t in tables.items() for step, score in STORY_STEPS.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "task", "step", "auroc", "within"])


def step_gains(steps: pd.DataFrame) -> pd.DataFrame:
    """What each step adds to the one before: median gain, and on how many models and tasks it is a gain, apart by kind of model."""
    rows = {}
    for what in ("auroc", "within"):
        wide = steps.pivot_table(index=["model", "task"], columns="step", values=what)[list(STORY_STEPS)]
        gain = wide.diff(axis=1).iloc[:, 1:]
        for kind, some in (("SmolLM2", gain.index.get_level_values(0) == REAL), ("demos", gain.index.get_level_values(0) != REAL)):  # fmt: skip
            rows[what, f"{kind}, median gain"] = gain[some].median()
            rows[what, f"{kind}, gains"] = [f"{(gain[some][step] > 0).sum()} of {some.sum()}" for step in gain]
    return pd.DataFrame(rows)


def bill(model: str, task: str, names: Sequence[str]) -> pd.DataFrame:
    """Forward passes a pair until 75 % and all of the causal heads are found, if heads are patched in the order of a screen.

    Args:
        names: scores, `LATE`, `EARLY`, `BOTH` (the better of a head's two ranks, by attribution patching and by `NAMED`), or
            "random order"; of tied heads the mean over orders counts (`expected_passes`).

    Returns:
        One row a screen: columns 75 %, 100 %; ``attrs["all"]`` is the price of patching every head.

    Raises:
        ValueError: as `head_scores`.
    """
    values, _ = head_scores(model, task)
    causal, rows = _causal(model, task), {}
    for name in names:
        score, passes = _screen(values, name)
        rows[name] = [expected_passes(score, causal, share, screening=max(2, passes)) for share in (0.75, 1.0)]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["75 %", "100 %"])
    table.attrs["all"] = 2 + 2 * causal.size
    return table


def toy_against_real(
    names: Sequence[str], tasks: Sequence[str], *, n_resamples: int = 500
) -> tuple[float, float, float]:
    """Spearman correlation, over scores, of the within-layer AUROC on SmolLM2 and on the demo models (each a mean over tasks).

    Returns:
        (rho, low, high): 95 % interval from resampled heads (`rank_agreement`).

    Raises:
        ValueError: if nothing was measured on those tasks.
    """
    return rank_agreement(*_both_kinds(names, tasks, n_resamples))


def within_on_both(names: Sequence[str], tasks: Sequence[str]) -> pd.DataFrame:
    """What `toy_against_real` correlates: a row a score, columns SmolLM2 and demos, and the kind of the score (`kind_of`)."""
    real, toy = _both_kinds(names, tasks, 1)
    return pd.DataFrame({"SmolLM2": real[0], "demos": toy[0], "kind": [kind_of(name) for name in names]}, index=names)


def kind_of(score: str) -> str:
    """What a score reads of a head: "attention", "values, outputs", "what is written", "gradient"."""
    if score.startswith("output change"):
        return "what is written"
    if score.endswith("patching"):
        return "gradient"
    others = ("|d output magnitude|", "|d Var_v|", "|d log Var_v|", "|d direct logit attribution|")
    return "values, outputs" if score in others else "attention"


def _both_kinds(names: Sequence[str], tasks: Sequence[str], n_resamples: int) -> tuple[_Resampled, _Resampled]:
    """Within-layer AUROCs on the real model and on the demos, each the mean over the tasks measured there."""
    found: dict[bool, list[_Resampled]] = {True: [], False: []}
    for k, (model, task) in enumerate(at for at in measured_tasks() if at[1] in tasks):
        values, _ = head_scores(model, task)
        scores = np.nan_to_num(values[list(names)].to_numpy())
        some = resampled_within(scores, _causal(model, task), values.layer, n_resamples=n_resamples, seed=k)
        found[model == REAL].append(some)
    if not all(found.values()):
        raise ValueError(f"tasks: expected tasks measured on {REAL} and on a demo model, got {', '.join(tasks)}")
    return mean_of(found[True]), mean_of(found[False])


def _useful(tables: _Tables) -> pd.DataFrame:
    """Whether each score (row) is useful on each model and task (column)."""
    return pd.DataFrame({at: (t.low > 0.5) & (t.within_p < 0.05) for at, t in tables.items()})


def _causal(model: str, task: str) -> NDArray[np.bool_]:
    measured = measured_circuit(model, task)
    assert measured is not None  # `head_scores` found it
    return np.asarray(measured.circuit().mask(*measured.shape).ravel())


_ORDER = ("ioi", "repeated", "agreement", "ownership")


def _screen(values: pd.DataFrame, name: str) -> tuple[np.ndarray, float]:
    """One number a head, and the passes that it costs."""
    if name in (LATE, EARLY):
        return (values.layer if name == LATE else -values.layer).to_numpy(dtype=float), 0
    if name == "random order":
        return np.zeros(len(values)), 0
    if name == BOTH:
        pair = [NAMED, "attribution patching"]
        return np.maximum(*(rankdata(values[one]) for one in pair)), max(SCORES[one].passes for one in pair)
    return np.nan_to_num(values[name].to_numpy()), SCORES[name].passes
