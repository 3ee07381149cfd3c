"""The verdict over all measured models and tasks: its table, its steps, its bills, and the one sentence that comes of it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from helpers.measured import (
    BOTH,
    EARLY,
    LATE,
    NAMED,
    RECOMMENDATION,
    STORY_STEPS,
    all_rankings,
    bill,
    head_scores,
    kind_of,
    measured_tasks,
    ranked_scores,
    step_gains,
    step_table,
    toy_against_real,
    verdict_table,
    verdicts_by_chance,
    within_on_both,
)
from helpers.reference import measured_circuit, published
from helpers.scores import SCORES
from helpers.statistics import expected_passes, passes_to_recall, screen, within_layer_auroc

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tables() -> dict[tuple[str, str], pd.DataFrame]:
    return dict(all_rankings())


def test_every_measurement_is_in_and_the_real_model_first(tables: dict[tuple[str, str], pd.DataFrame]) -> None:
    """Each shipped (model, task) once, every score in each, as `ranked_scores` gives it; SmolLM2's three tasks lead."""
    assert sorted(tables) == list(measured_tasks())
    assert [model for model, _ in list(tables)[:3]] == ["smollm2"] * 3
    assert all(list(table.index) == list(SCORES) for table in tables.values())
    pd.testing.assert_frame_equal(tables["demo", "ioi"], ranked_scores("demo", "ioi"))


def test_counts_of_the_verdict(tables: dict[tuple[str, str], pd.DataFrame]) -> None:
    """Useful = interval above 0.5 and p below 0.05, counted one by one; medians are of the same eleven tables."""
    verdict = verdict_table(tables)
    assert verdict.attrs["of"] == {"SmolLM2": 3, "demos": 8}
    assert set(verdict.index) == set(SCORES)
    for score in ("|d KL|", NAMED, "output change, END, relative"):
        for kind, is_real in (("SmolLM2", True), ("demos", False)):
            some = [t.loc[score] for (model, _), t in tables.items() if (model == "smollm2") == is_real]
            assert verdict.loc[score, f"useful, {kind}"] == sum(row.low > 0.5 and row.within_p < 0.05 for row in some)
            assert verdict.loc[score, f"within, {kind}"] == np.median([row.within for row in some])
    both = verdict["useful, SmolLM2"] + verdict["useful, demos"]
    assert both.is_monotonic_decreasing
    assert list(verdict.index[both == 11]) == ["activation patching", "attribution patching", NAMED]


def test_verdicts_by_chance(tables: dict[tuple[str, str], pd.DataFrame]) -> None:
    """Found: as the verdict counts. By chance: at most 5 % of the scores in the mean; one combination by hand; none by depth alone."""
    chance, verdict = verdicts_by_chance(tables, n_permutations=500), verdict_table(tables)
    assert chance.useful["all"] == verdict[["useful, SmolLM2", "useful, demos"]].to_numpy().sum()
    assert chance.drop("all").useful.sum() == chance.useful["all"]
    assert chance.attrs["of"] == 330
    assert (chance.chance <= 0.05 * 30).drop("all").all()
    assert chance.chance["all"] <= 0.05 * 330 < chance.chance_95["all"] < chance.useful["all"]
    values, _ = head_scores("demo", "ioi")
    causal, rng = measured_circuit("demo", "ioi").table.causal.to_numpy(), np.random.default_rng(0)
    counts = []
    for _ in range(40):
        shuffled = causal.copy()
        for layer in range(6):
            rng.shuffle(shuffled[8 * layer : 8 * layer + 8])
        p = [
            within_layer_auroc(np.nan_to_num(values[s]), shuffled, values.layer, n_permutations=300)[1] for s in SCORES
        ]
        counts.append(sum(one < 0.05 for one in p))
    row = chance.loc["demo, ioi"]
    assert np.median(counts) == pytest.approx(row.chance, abs=1)
    assert np.quantile(counts, 0.95) == pytest.approx(row.chance_95, abs=4)
    one, luckiest = zip(*chance.attrs["at_least"].values(), strict=True)
    assert all(a < b for a, b in zip(one, luckiest, strict=True))
    assert list(one) == sorted(one, reverse=True)
    depth = {at: table.loc[["layer index"]] for at, table in tables.items()}
    assert (verdicts_by_chance(depth, n_permutations=50)[["useful", "chance", "chance_95"]] == 0).all(axis=None)


def test_steps_are_the_scores_they_stand_for(tables: dict[tuple[str, str], pd.DataFrame]) -> None:
    """One row a model, task and step with that score's two numbers; gains are differences of neighbours, counted apart."""
    steps = step_table(tables)
    assert len(steps) == len(tables) * len(STORY_STEPS)
    row = steps[(steps.model == "smollm2") & (steps.task == "ioi") & (steps.step == "what the head writes")].iloc[0]
    assert (row.auroc, row.within) == tuple(tables["smollm2", "ioi"].loc[NAMED, ["auroc", "within"]])
    gains = step_gains(steps)
    assert list(gains.index) == list(STORY_STEPS)[1:]
    real = [t.auroc["|d KL|"] - t.auroc["layer index"] for (model, _), t in tables.items() if model == "smollm2"]
    first = gains.loc["shape of the row at END", "auroc"]
    assert first["SmolLM2, median gain"] == pytest.approx(np.median(real))
    assert first["SmolLM2, gains"] == f"{sum(g > 0 for g in real)} of 3"
    assert gains.loc["what the head writes", ("within", "demos, gains")] == "8 of 8"


def test_bills() -> None:
    """Scores without ties cost what `screen` says; random order 2 + 2 k (n + 1) / (m + 1); layer orders are each other's mirror."""
    table = bill("demo", "ioi", ["random order", LATE, EARLY, NAMED, BOTH])
    values, _ = head_scores("demo", "ioi")
    causal = measured_circuit("demo", "ioi").table.causal.to_numpy()  # type: ignore[union-attr]
    assert table.attrs["all"] == 2 + 2 * 48
    curve = screen(values[NAMED], causal, screening=2)
    assert table.loc[NAMED].tolist() == [passes_to_recall(curve, share) for share in (0.75, 1.0)]
    assert table.loc["random order", "100 %"] == pytest.approx(2 + 2 * 9 * 49 / 10)
    assert table.loc["random order", "75 %"] == pytest.approx(2 + 2 * 7 * 49 / 10)
    assert table.loc[LATE, "100 %"] == expected_passes(values.layer, causal, 1, screening=2)
    assert table.loc[EARLY, "100 %"] == expected_passes(-values.layer, causal, 1, screening=2)
    either = np.maximum(values[NAMED].rank(), values["attribution patching"].rank())
    assert table.loc[BOTH, "75 %"] == expected_passes(either, causal, 0.75, screening=4)


def test_toy_against_real() -> None:
    """A correlation inside [-1, 1] with an interval; fixed seeds; only where both kinds of model were measured."""
    names = [name for name in SCORES if name not in ("layer index", "activation patching", "|d entropy|")]
    rho, low, high = toy_against_real(names, ["ioi", "repeated"], n_resamples=100)
    assert -1 <= low < high <= 1
    assert rho > 0.7
    assert toy_against_real(names, ["ioi", "repeated"], n_resamples=100) == (rho, low, high)
    with pytest.raises(ValueError, match="expected tasks measured on smollm2 and on a demo model, got agreement"):
        toy_against_real(names, ["agreement"])


NAMES = [name for name in SCORES if name not in ("layer index", "activation patching", "|d entropy|")]


def test_values_on_both_are_means_of_the_tables(tables: dict[tuple[str, str], pd.DataFrame]) -> None:
    """Within-layer AUROC of a score, averaged over a kind's tasks; what each score reads is one of four kinds."""
    both = within_on_both(NAMES, ["ioi", "repeated", "agreement", "ownership"])
    for name in ("|d KL|", NAMED):
        for kind, is_real in (("SmolLM2", True), ("demos", False)):
            some = [t.within[name] for (model, _), t in tables.items() if (model == "smollm2") == is_real]
            assert both.loc[name, kind] == pytest.approx(np.mean(some))
    assert both.kind.value_counts().to_dict() == {
        "attention": 15, "what is written": 7, "values, outputs": 4, "gradient": 1,
    }  # fmt: skip
    kinds = [kind_of(name) for name in ("|d chi|", NAMED, "|d Var_v|", "attribution patching")]
    assert kinds == ["attention", "what is written", "values, outputs", "gradient"]


def test_the_readme_says_what_the_table_says(tables: dict[tuple[str, str], pd.DataFrame]) -> None:
    """How many scores are useful everywhere, where KL and chi are, how far toys agree, and the published values beside."""
    readme = " ".join((ROOT / "README.md").read_text().split()).replace("\\|", "|")
    verdict = verdict_table(tables)
    assert (verdict["useful, SmolLM2"] + verdict["useful, demos"] == 11).sum() == 3
    assert "Of thirty scores three are useful on all eleven combinations" in readme
    assert verdict.loc[["|d KL|", "|d chi|"], "useful, SmolLM2"].tolist() == [1, 1]
    assert verdict.loc[["|d KL|", "|d chi|"], "useful, demos"].tolist() == [0, 1]
    assert "are useful on one task of SmolLM2 each, and on none and one of the demos' eight" in readme
    rho, low, high = toy_against_real(NAMES, ["ioi", "repeated", "agreement", "ownership"])
    assert (
        f"over {len(NAMES)} scores between the demo models and SmolLM2 is {rho:.2f} ({low:.2f} to {high:.2f})" in readme
    )
    quoted = published.rankings()
    for row, said in (("|d output magnitude| at END", "output magnitude {}, within layers {}"), ("attribution patching", "attribution patching {}, {}")):  # fmt: skip
        assert said.format(*(f"{quoted.loc[row, column]:.3f}" for column in ("auroc", "within"))) in readme


@pytest.mark.parametrize(
    "name", ["notebooks/05_is_it_real.ipynb", "notebooks/06_from_correlation_to_circuit.ipynb", "README.md"]
)
def test_one_recommendation_in_the_same_words(name: str) -> None:
    """Both notebooks and the README give the recommendation word for word, line breaks aside."""
    path = ROOT / name
    if path.suffix == ".ipynb":
        text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    else:
        text = path.read_text()
    assert " ".join(text.split()).count(RECOMMENDATION) == 1
