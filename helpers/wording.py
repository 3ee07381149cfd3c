"""An experiment in words and tables: the report of ``make run``."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.attention.record import AttentionRecord
from helpers.design import Q, design_in_words
from helpers.experiment import RANKED_SHIFTS, Experiment, asks_ioi
from helpers.heads import head_names
from helpers.reference import published
from helpers.reference.demo import circuit_of
from helpers.statistics.effects import THRESHOLD
from helpers.statistics.ranking import Ranking

__all__ = [
    "answer",
    "correlation_table",
    "describe",
    "performance",
    "published_tests",
    "ranking_table",
    "report",
    "shift_table",
    "tested",
    "thresholds_table",
]


def report(experiment: Experiment) -> str:
    """The whole experiment as plain text: model and prompts, accuracy, statistics, published figures, answer."""
    parts = [
        describe(experiment),
        f"test     {tested(experiment)}",
        *(f"NOTE  {note}" for note in experiment.notes),
        _section("Heads that shift most", shift_table(experiment).to_string(index=False)),
        _section("Correlations over heads", correlation_table(experiment).to_string()),
        _section("Do circuit heads shift more? (measured)", _ranking_text(experiment)),
        _section(f"GPT-2 small, as published ({published.SOURCE})", published_tests().to_string()),
        _section("Answer", answer(experiment)),
    ]
    return "\n".join(parts) + "\n"


def _section(title: str, body: str) -> str:
    return f"\n{title}\n{'-' * len(title)}\n{body}"


def tested(experiment: Experiment) -> str:
    """Which test the shifts had, over how many prompts, and the smallest q that a head could reach by itself."""
    sides = (len(experiment.active.prompts), len(experiment.control.prompts))
    return design_in_words(experiment.design, *sides, len(experiment.table))


def describe(experiment: Experiment) -> str:
    """Which model, which prompts, and what the model answered."""
    record = experiment.active
    lines = [
        f"model    {record.model} ({record.n_layers} layers x {record.n_heads} heads, "
        f"{record.settings.get('dtype', 'dtype unknown')}), rows of the {record.query} token",
        *(_side(name, side) for name, side in (("active", experiment.active), ("control", experiment.control))),
    ]
    return "\n".join(lines)


def _side(name: str, record: AttentionRecord) -> str:
    lengths = sorted({len(p) for p in record.prompts})
    span = str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    text = f"{name:8} {len(record.prompts)} prompts of {span} tokens"
    measured = performance(record)
    return text if measured.empty else text + "; " + ", ".join(f"{k} {v}" for k, v in measured.items())


def performance(record: AttentionRecord) -> pd.Series:
    """How well the model does the task, as printed strings; empty if the record has no readout or no answers.

    IOI prompts: share with IO as top token, mean logit difference IO - S, mean P(IO). ABC prompts, where both names
    are right: mean P(A) / (P(A) + P(B)), which is 0.5 without a preference, and mean |logit difference|.
    """
    said = record.readout
    if said is None or bool(said.p_foil.isnan().any()):
        return pd.Series(dtype=object)
    if all(p.prompt.template == "ABC" for p in record.prompts):
        share = (said.p_answer / (said.p_answer + said.p_foil)).mean()
        return pd.Series(
            {
                "share of A among A and B": f"{share:.3f}",
                "mean |logit difference|": f"{said.logit_difference.abs().mean():.2f}",
                "P(A) + P(B)": f"{(said.p_answer + said.p_foil).mean():.3f}",
            }
        )
    return pd.Series(
        {
            "IO is the top token in": f"{said.correct.mean():.1%}",
            "mean logit difference IO - S": f"{said.logit_difference.mean():.2f}",
            "mean P(IO)": f"{said.p_answer.mean():.3f}",
        }
    )


def shift_table(experiment: Experiment, top: int = 12) -> pd.DataFrame:
    """The heads with the largest |dKL|, three decimals, with 95 % intervals and false-discovery rates."""
    table = experiment.table
    rows = table.loc[table.d_kl.abs().nlargest(top).index]
    return pd.DataFrame(
        {
            "head": head_names(rows),
            "role": rows.role,
            "KL active": rows.kl_active.map("{:.3f}".format),
            "KL control": rows.kl_control.map("{:.3f}".format),
            "dKL": rows.d_kl.map("{:+.3f}".format),
            "95 % interval": [f"{a:+.3f} to {b:+.3f}" for a, b in zip(rows.d_kl_low, rows.d_kl_high, strict=True)],
            "q": rows.d_kl_q.map("{:.1g}".format),
            "dchi": rows.d_chi.map("{:+.3f}".format),
            "q chi": rows.d_chi_q.map("{:.1g}".format),
        }
    )


def ranking_table(rankings: dict[str, Ranking]) -> pd.DataFrame:
    """The statistics of each score, one column a score, as printed strings."""
    return pd.DataFrame({score: _ranking_rows(r) for score, r in rankings.items()})


def _ranking_rows(r: Ranking) -> dict[str, str]:
    return {
        "heads (circuit, others)": f"{r.n_circuit}, {r.n_other}",
        "mean (sd), circuit": f"{r.mean_circuit:.4f} ({r.sd_circuit:.4f})",
        "mean (sd), others": f"{r.mean_other:.4f} ({r.sd_other:.4f})",
        "Mann-Whitney U": f"{r.u:g}",
        "p (one-sided)": f"{r.p:.2g}",
        "AUROC (= U / pairs)": f"{r.auroc:.3f}",
        "  95 % interval": f"{r.low:.3f} to {r.high:.3f}",
        "  layer index alone": f"{r.layer_auroc:.3f}",
        "  within layers": f"{r.within_auroc:.3f}",
        "  within layers, p": f"{r.within_p:.2g}",
    }


def published_tests() -> pd.DataFrame:
    """The post's tests on GPT-2 small in the form of `ranking_table`, beside the layer index, which is no measurement."""
    rows = {
        t.statistic: {
            "heads (circuit, others)": "23, 121",
            "mean (sd), circuit": f"{t.mean_circuit:.4f} ({t.sd_circuit:.4f})",
            "mean (sd), others": f"{t.mean_other:.4f} ({t.sd_other:.4f})",
            "Mann-Whitney U": f"{t.u:g}",
            "p (one-sided)": f"{t.p:.2g}",
            "AUROC (= U / pairs)": f"{t.auroc:.3f}",
            "  layer index alone": f"{published.layer_auroc():.3f}",
        }
        for t in published.TESTS.itertuples()
    }
    return pd.DataFrame(rows)


def correlation_table(experiment: Experiment) -> pd.DataFrame:
    """Correlations over heads: measured, and published for GPT-2 small."""
    both = {experiment.active.model: experiment.correlations, "GPT-2 small (published)": published.CORRELATIONS}
    return pd.DataFrame(both).map(lambda value: "-" if np.isnan(value) else f"{value:.3f}")


def _ranking_text(experiment: Experiment) -> str:
    if experiment.circuit is None:
        return f"Heads can be looked at, but not scored. {_no_circuit(experiment)}"
    if not experiment.rankings:
        return f"{_too_few(experiment)}\n(circuit: {experiment.circuit.source})"
    text: str = ranking_table(experiment.rankings).to_string() + f"\n(circuit: {experiment.circuit.source})"
    if not experiment.other_rankings:
        return text
    other = thresholds_table(experiment).to_string(index=False)
    return f"{text}\n\nHow far that depends on the threshold ({THRESHOLD:.0%} is the one that counts):\n{other}"


def thresholds_table(experiment: Experiment) -> pd.DataFrame:
    """AUROCs of both scores by each threshold of the causal rule, of a measured circuit, as printed strings."""
    by_rule = dict(sorted({**experiment.other_rankings, THRESHOLD: experiment.rankings}.items()))
    rows = []
    for threshold, rankings in by_rule.items():
        first = next(iter(rankings.values()), None)
        row = {
            "more than": f"{threshold:.0%} of the gap",
            "heads": str(first.n_circuit) if first else "too few",
            "layer alone": f"{first.layer_auroc:.2f}" if first else "-",
        }
        for score in RANKED_SHIFTS:
            r = rankings.get(score)
            row[f"{score} AUROC"] = f"{r.auroc:.2f} ({r.low:.2f} to {r.high:.2f})" if r else "-"
            row[f"{score} within layers"] = f"{r.within_auroc:.2f} (p {r.within_p:.2g})" if r else "-"
        rows.append(row)
    return pd.DataFrame(rows)


def _no_circuit(experiment: Experiment) -> str:
    """Why there is no circuit to score with, and what gives one."""
    model = experiment.active.model
    if circuit_of(model) is None:
        return (
            f"No circuit is known for this model: make circuit MODEL={model} TASK=ioi measures one, and "
            f"make run MODEL={model} CIRCUIT=results-circuit scores with it."
        )
    if asks_ioi(experiment.active, experiment.control):
        return "No circuit was given, though one is known for this model."
    return (
        f"The circuit that is known for this model is of the task IOI, and these are other prompts: CIRCUIT={model} scores with "
        "it all the same."
    )


def _too_few(experiment: Experiment) -> str:
    """A circuit that can't be ranked."""
    inside = int(experiment.table.in_circuit.sum())
    return f"The circuit has {inside} of {len(experiment.table)} heads: a ranking needs at least two on either side."


def answer(experiment: Experiment) -> str:
    """The question of the experiment, answered in plain words that follow from the numbers."""
    moved = experiment.table[["d_kl_q", "d_chi_q"]].lt(Q).sum()
    seen = (
        f"On {experiment.active.model}, {moved.d_kl_q} of {len(experiment.table)} heads shift their KL and {moved.d_chi_q} "
        "their chi between the two prompt sets (false-discovery rate below 5 %)."
    )
    if experiment.circuit is None:
        return f"{seen} Whether these are the heads that matter cannot be said. {_no_circuit(experiment)}"
    if not experiment.rankings:
        return f"{seen} {_too_few(experiment)}"
    return " ".join([seen, *(_verdict(score, r) for score, r in experiment.rankings.items())])


def _verdict(score: str, r: Ranking) -> str:
    """Yes, if the interval of AUROC is above 0.5 and the within-layer test agrees at 5 %; else what is missing."""
    above = r.low > 0.5
    within = r.within_p < 0.05
    numbers = (
        f"AUROC {r.auroc:.2f}, 95 % interval {r.low:.2f} to {r.high:.2f}; the layer index alone gives {r.layer_auroc:.2f}; "
        f"within layers {r.within_auroc:.2f}, p = {r.within_p:.2g}"
    )
    if above and within:
        return f"{score} tells circuit heads from the others, and not only by depth ({numbers})."
    if above:
        return f"{score} is larger in circuit heads, but comparing heads of the same layer does not confirm it ({numbers})."
    if r.high < 0.5:
        return f"{score} ranks circuit heads below the others ({numbers})."
    return f"{score} does not tell circuit heads from the others ({numbers})."
