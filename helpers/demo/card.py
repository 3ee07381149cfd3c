"""The model card of the demo models, written from what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.circuit_wording import causal_rows, markdown
from helpers.demo.acceptance import LEAST_ACCURACY
from helpers.demo.corpus import MIXTURE, held_out, vocabulary
from helpers.demo.train import BATCH, N_CTX, PEAK_LR, STEPS, build_model
from helpers.patching.paths import EDGE_THRESHOLD
from helpers.statistics.effects import THRESHOLD

TEMPLATE = """# The demo models

Small GPT-2-architecture language models that know one circuit for certain: the one activation patching finds in them.
They exist so that everything in this repository runs offline, in seconds. They are **not** GPT-2 small, and no figure
measured on them says anything about GPT-2 small.

| | |
|---|---|
| architecture | GPT-2: {layers} layers x {heads} heads (d_head {d_head}), d_model {d_model}, context {n_ctx}, {parameters:,} parameters |
| files | Hugging Face format; weights in float16 (safetensors), computed in float32 |
| tokenizer | one token a word or punctuation mark, {vocabulary} in all; `<\\|endoftext\\|>` is BOS |
| data | synthetic English, `helpers/demo/corpus.py`: {kinds} |
| held out | {held_out} (frame, name pair) combinations, among them those of the post's 100 prompts |
| training | {steps} steps of {batch} documents, AdamW, peak learning rate {lr:g}, cosine to zero; `make demo-model` |
| licence | MIT, as the repository |

## Acceptance

The rule was fixed first and looks at answers only: at least {required:.0%} top-1 on held-out IOI prompts, for ABBA and
BABA each, and on held-out ABC prompts no preference between the two names beyond what a fair coin shows. Three seeds
are trained; `demo` is seed 0 whatever the diagnostics say.

{accuracy}

## How the recipe came about

Two recipes before this one were dropped, on accuracy and patching tables. With 24 names (stopped half-way) and then with
120 (seed 0 finished), and every ABC sentence ending in one of its two first names, IOI was solved without noticing a
repetition: one head in layer 0 weighed all names at END and did nearly everything, three or four heads were causal, and
the finished model failed the ABC rule. In the present recipe half of the ABC sentences end with "them", which makes the
repetition matter. (KL and chi of a half-trained model of the first recipe had been printed while the code was tested;
they played no part.) Seeds still differ in how they solve the task: see which heads are causal below.

## Causal heads

A head is causal if replacing its output, on {pairs} minimal pairs (an IOI prompt against the same prompt with S2
replaced by a third name), moves the logit difference by more than {threshold:.0%} of the clean-corrupt gap in either
direction, with a 95 % bootstrap interval that excludes 0. `causal_heads.csv` in each folder has all heads;
`acts_at` says at which position patching alone recovers at least half of the effect. `edges.csv` has every path from a
head to a later one, by path patching on {path_pairs} minimal pairs (causal: more than {edge_threshold:.0%} of the gap).

{causal}
"""


def write(folder: Path) -> None:
    """Write ``README.md`` beside the seeds' folders."""
    seeds = sorted(folder.glob("seed-*"))
    examined = {s.name: json.loads((s / "examination.json").read_text()) for s in seeds}
    tables = {s.name: pd.read_csv(s / "causal_heads.csv") for s in seeds}
    config = build_model(0).config
    text = TEMPLATE.format(
        layers=config.n_layer, heads=config.n_head, d_head=config.n_embd // config.n_head, d_model=config.n_embd,
        n_ctx=N_CTX, parameters=build_model(0).num_parameters(), vocabulary=len(vocabulary()),
        kinds=", ".join(f"{kind.__name__.replace('_', ' ')} {share:.0%}" for kind, share in MIXTURE.items()),
        held_out=len(held_out()), steps=STEPS, batch=BATCH, lr=PEAK_LR, required=LEAST_ACCURACY,
        threshold=THRESHOLD, pairs=100, path_pairs=50, edge_threshold=EDGE_THRESHOLD,
        accuracy=markdown(pd.DataFrame({name: _accuracy(e) for name, e in examined.items()})),
        causal="\n\n".join(f"**{name}**\n\n{causal_rows(t[t.causal])}" for name, t in tables.items()),
    )  # fmt: skip
    (folder / "README.md").write_text(text)


def _accuracy(examined: dict[str, Any]) -> dict[str, str]:
    rows = {}
    for template, score in examined["ioi"].items():
        rows[f"IOI, {template} ({score['prompts']} prompts): accuracy"] = f"{score['accuracy']:.1%}"
        rows[f"IOI, {template}: mean logit difference IO - S"] = f"{score['logit_difference']:.2f}"
    abc = examined["abc"]
    rows[f"ABC ({abc['prompts']} prompts): share of A (fair coin: {abc['fair_coin'][0]} to {abc['fair_coin'][1]})"] = (
        f"{abc['share_of_a']:.3f}"
    )
    for kind, accuracy in examined["kinds"].items():
        rows[f"{kind.replace('_', ' ')}: accuracy"] = f"{accuracy:.1%}"
    return rows | {"accepted": "yes" if examined["accepted"] else "no"}
