"""Sections 1 and 2 of KNOB.md: what turning the knob of a head does to its row, and to the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from helpers.attention.capture import record_attention
from helpers.diagnostics.heads import diagnose, head_resolution
from helpers.diagnostics.rows import kl_selectivity, susceptibility
from helpers.heads import Head
from helpers.knob.predictors import knob_predictors
from helpers.knob.response import linear_response, reach
from helpers.knob.runs import TemperedRun, run_tempered
from helpers.knob.slopes import answer_slopes
from helpers.knob.turned import SETTINGS
from helpers.measured.knob.tables import bootstrap_mean, correlation_table, matched_heads, turned_table
from helpers.measured.knob.work import Work
from helpers.models.model import LanguageModel
from helpers.prompts.ioi import ioi_prompts
from helpers.prompts.prompt import Prompt
from helpers.reference.measured import measured_circuit

RESPONSE_BETAS = (0.5, 0.8, 0.9, 1.1, 1.25, 2.0)
TURNED_BETAS = (0.0, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0)
POINT_PROMPTS, POINT_WORDS = 3, 5


def response(work: Work) -> None:
    """Section 1: KL(beta) against its first-order prediction, on the post's 50 IOI prompts."""
    record = record_attention(work.model, ioi_prompts(), progress=False)
    visible, found = record.visible().expand(record.rows.shape), diagnose(record)
    resolved = found.chi.mean(0) > head_resolution("chi", found)
    work.write("response", linear_response(record.rows, visible, RESPONSE_BETAS))
    table = reach(record.rows, visible)
    table.insert(4, "resolved", resolved.ravel())
    work.write("reach", table)


def slopes(work: Work) -> None:
    """Section 2: d LD / d beta of every head, its predictors, and how they go together."""
    prompts = work.prompts()
    slope = answer_slopes(work.model, prompts, position="END", progress=False)
    known = knob_predictors(work.model, prompts, progress=False)
    low, high = bootstrap_mean(slope)
    columns = {"slope": slope.mean(0), "slope_low": low, "slope_high": high, "kl": _mean_kl(work.model, prompts)}
    columns |= {"attribution": known.attribution.mean(0), "direct slope": known.direct.mean(0)}
    columns["causal"] = _causal(work.model)
    table = known.table().assign(**{name: x.ravel() for name, x in columns.items()})
    work.write("slopes", table)
    work.write("correlations", correlation_table(table))


def turned(work: Work) -> None:
    """Section 2: causal heads and matched ones turned for real, at every token."""
    prompts = work.prompts()
    pairs = _pairs(work.model, prompts)
    heads = [head for pair in pairs for head in pair]
    ld = [work.kept.get(f"turned-{head}", partial(_turned, work.model, prompts, head)) for head in heads]
    work.write("turned", turned_table(pairs, TURNED_BETAS, np.stack(ld)))


def _turned(model: LanguageModel, prompts: list[Prompt], head: Head) -> np.ndarray:
    return run_tempered(model, prompts, {head: TURNED_BETAS}, progress=False).logit_difference


def points(work: Work) -> None:
    """What the widget shows, for each causal and matched head on the first prompts of the recorded pairs."""
    prompts = work.prompts()
    some, heads = prompts[:POINT_PROMPTS], sorted({head for pair in _pairs(work.model, prompts) for head in pair})
    found: dict[str, Any] = {}
    for head in heads:
        run = run_tempered(work.model, some, {head: SETTINGS}, progress=False)
        found[str(head)] = _points(run, work.model.tokenizer)
    told = [
        {"text": p.prompt.text, "tokens": [*p.tokens], "answer": p.prompt.answer, "foil": p.prompt.foil}
        for p in run.prompts
    ]
    text = json.dumps({"betas": SETTINGS, "prompts": told, "heads": found}, ensure_ascii=False, separators=(",", ":"))
    (work.out / "points.json").write_text(text + "\n", encoding="utf-8")


def _points(run: TemperedRun, tokenizer: Any) -> list[Mapping[str, Any]]:
    """One entry a prompt: the logit difference, KL and chi of the row, and the likeliest next tokens at every beta."""
    seen = run.visible[:, 0]
    kl, chi = (f(run.rows[:, :, 0], mask=seen, normalized=False) for f in (kl_selectivity, susceptibility))
    probability, token = run.top(POINT_WORDS)
    return [
        {
            "ld": [round(float(x), 4) for x in run.logit_difference[:, i]],
            "kl": [round(float(x), 5) for x in kl[:, i]],
            "chi": [round(float(x), 5) for x in chi[:, i]],
            "top": [[[tokenizer.decode([int(t)]), round(float(p), 4)] for t, p in zip(*one, strict=True)]
                    for one in zip(token[:, i], probability[:, i], strict=True)],
        }
        for i in range(len(run.prompts))
    ]  # fmt: skip


def _causal(model: LanguageModel) -> np.ndarray:
    measured = measured_circuit(model.name, "ioi")
    if measured is None:
        raise ValueError(f"model: expected one whose circuit of IOI was measured, got {model.name!r}")
    return np.asarray(measured.circuit().mask(model.n_layers, model.n_heads))


def _mean_kl(model: LanguageModel, prompts: list[Prompt]) -> np.ndarray:
    """KL at END in nats, ``(layer, head)``, mean over prompts."""
    record = record_attention(model, prompts, progress=False)
    visible = record.visible().expand(record.rows.shape)
    return np.asarray(kl_selectivity(record.rows, mask=visible, normalized=False).mean(0).numpy())


def _pairs(model: LanguageModel, prompts: list[Prompt]) -> list[tuple[Head, Head]]:
    return matched_heads(_causal(model), _mean_kl(model, prompts))
