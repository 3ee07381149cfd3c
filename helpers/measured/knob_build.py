"""``make measure-knob MODEL=smollm2``: the measurements of KNOB.md, and the verdicts.

    python -m helpers.measured.knob_build smollm2 [--steps lengths loss response slopes turned curvature points verdicts]

Every step writes its own files. What a step has finished (a stretch, a head) is kept until it is done, so that a run that was
killed goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file
from torch import Tensor

from helpers.attention.capture import record_attention
from helpers.diagnostics.heads import diagnose, head_resolution
from helpers.diagnostics.rows import kl_selectivity, susceptibility
from helpers.folders import Kept, kept_in
from helpers.heads import Head
from helpers.knob.directions import random_ratios
from helpers.knob.hooks import TemperedLayer, keys_seen
from helpers.knob.lengths import kl_at_lengths
from helpers.knob.predictors import knob_predictors
from helpers.knob.response import linear_response, reach
from helpers.knob.runs import TemperedRun, run_tempered
from helpers.knob.slopes import answer_slopes, loss_slopes
from helpers.measured.build import FOLDER, RECORDED_PAIRS
from helpers.measured.knob import KINDS, LENGTHS, MeasuredKnob
from helpers.measured.knob_tables import (
    bootstrap_mean,
    correlation_table,
    curvature_heads,
    curvature_table,
    length_table,
    loss_table,
    matched_heads,
    null_table,
    turned_table,
)
from helpers.measured.knob_text import BEGINNINGS, demo_documents, ids_of, long_stretches, short_stretches, shuffled
from helpers.measured.knob_verdicts import verdict_table
from helpers.models.forward import token_losses
from helpers.models.load import load_model
from helpers.models.model import LanguageModel
from helpers.patching.circuits import fit_to_model
from helpers.prompts.ioi import ioi_prompts
from helpers.prompts.prompt import Prompt
from helpers.reference.measured import measured_circuit

RESPONSE_BETAS = (0.5, 0.8, 0.9, 1.1, 1.25, 2.0)
TURNED_BETAS = (0.0, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0)
CURVATURE_BETAS = (0.5, 0.8, 1.0, 1.25, 2.0)
POINT_BETAS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0)
POINT_PROMPTS, POINT_WORDS, NULL_DRAWS = 3, 5, 1000


class Work:
    """A model, the folder that its measurements are written to, and what has been finished of each step."""

    def __init__(self, model: LanguageModel, out: Path) -> None:
        self.model, self.out = model, out
        out.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def kept(self, step: str) -> Iterator[Kept]:
        with kept_in(self.out / f"{step}.unfinished", f"{step}/{self.model.identity}") as kept:
            yield kept

    def write(self, name: str, table: pd.DataFrame) -> None:
        table.to_csv(self.out / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")

    def prompts(self) -> list[Prompt]:
        """The clean side of the recorded pairs of IOI."""
        return [*fit_to_model(self.model, "ioi", RECORDED_PAIRS).clean]

    def short(self) -> list[Any]:
        """The stretches on which the loss is measured."""
        tokenizer = self.model.tokenizer
        return demo_documents(tokenizer) if self.model.name == "demo" else short_stretches(long_stretches(tokenizer))


def lengths(work: Work) -> None:
    """Section 4: KL and its parts at nine lengths of each long stretch, as it is and shuffled."""
    long, found = long_stretches(work.model.tokenizer), []
    with work.kept("lengths") as kept:
        for seed, stretch in enumerate(long):
            texts = (stretch, shuffled(stretch, seed))
            found.append([kept.get(f"{seed}-{kind}", partial(_long_rows, work.model, text.ids)) for kind, text in zip(KINDS, texts, strict=True)])  # fmt: skip
    all_parts = np.stack([np.stack(kinds) for kinds in found]).astype(np.float32)
    parts, weight = np.moveaxis(all_parts[:, :, :3], 2, -1), all_parts[:, :, 3]
    save_file({"parts": np.ascontiguousarray(parts), "weight": np.ascontiguousarray(weight)}, work.out / "lengths.safetensors")  # fmt: skip
    work.write("lengths", length_table(parts, weight))


def _long_rows(model: LanguageModel, ids: tuple[int, ...]) -> np.ndarray:
    rows = kl_at_lengths(model, torch.tensor(ids), LENGTHS)
    return np.stack([rows.kl, rows.sink, rows.rest, rows.weight])


def loss(work: Work) -> None:
    """Section 3: slopes of the loss and what random directions would give, in the model and in one with random weights."""
    short, tables, drawn = work.short(), {}, {}
    stretches = pd.DataFrame(
        [(i, one.text, one.start) for i, one in enumerate(short)], columns=["stretch", "text", "start"]
    )
    with work.kept("loss") as kept:
        for prefix, model in (("", work.model), ("random_", random_twin(work.model))):
            said, slope, turn = _loss_slopes(kept, prefix, model, ids_of(short))
            stretches[f"{prefix}loss"] = said
            tables[prefix] = loss_table(slope, turn)
            drawn[prefix] = kept.get(f"{prefix}null", partial(random_ratios, turn, n_draws=NULL_DRAWS))
    work.write("stretches", stretches)
    work.write("loss", tables[""])
    work.write("random", tables["random_"])
    work.write("null", null_table(drawn))


def _loss_slopes(
    kept: Kept, prefix: str, model: LanguageModel, ids: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss and slopes of each stretch, and C, their mean; a stretch at a time."""

    def one(k: int, name: str) -> np.ndarray:
        found = loss_slopes(model, ids[k : k + 1])
        kept.get(f"{prefix}loss-{k}", lambda: found.loss)
        kept.get(f"{prefix}turn-{k}", lambda: found.turn)
        return found.slope

    slope = np.concatenate([kept.get(f"{prefix}slope-{k}", partial(one, k, prefix)) for k in range(len(ids))])
    said, turn = ([kept.get(f"{prefix}{what}-{k}", _missing) for k in range(len(ids))] for what in ("loss", "turn"))
    return np.concatenate(said), slope, np.mean(turn, axis=0)


def _missing() -> np.ndarray:
    raise AssertionError("a slope is kept after its loss and its turn")


def random_twin(model: LanguageModel, seed: int = 0) -> LanguageModel:
    """A model of the same configuration with the random weights that training would begin with."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(model.hf.config, dtype=model.dtype)
    return LanguageModel(hf.to(model.device), model.tokenizer, f"{model.name}, random weights")


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
    prompts, pairs = work.prompts(), _pairs(work.model, work.prompts())
    with work.kept("turned") as kept:
        ld = [kept.get(str(head), partial(_turned, work.model, prompts, head)) for pair in pairs for head in pair]
    work.write("turned", turned_table(pairs, TURNED_BETAS, np.stack(ld)))


def _turned(model: LanguageModel, prompts: list[Prompt], head: Head) -> np.ndarray:
    return run_tempered(model, prompts, {head: TURNED_BETAS}, progress=False).logit_difference


def curvature(work: Work) -> None:
    """Section 3: the loss at several betas of twelve heads, on the first short stretch of each long one."""
    knob, short = MeasuredKnob(work.out), work.short()
    every = 1 if work.model.name == "demo" else len(BEGINNINGS)
    ids, heads = ids_of(short[::every][:8]), curvature_heads(knob.loss)
    with work.kept("curvature") as kept:
        found = [
            kept.get(str(head), partial(tempered_losses, work.model, ids, head, CURVATURE_BETAS)) for head, _ in heads
        ]
    work.write("curvature", curvature_table(heads, CURVATURE_BETAS, np.stack(found)))


def tempered_losses(model: LanguageModel, ids: Tensor, head: Head, betas: tuple[float, ...]) -> np.ndarray:
    """Mean loss of each stretch with one head turned at every token, ``(beta, stretch)``."""
    ids = ids.to(model.device)
    visible, found = keys_seen(model, ids), np.zeros((len(betas), len(ids)))
    for i, beta in enumerate(betas):
        for k, one in enumerate(ids):
            settings = torch.ones(1, model.n_heads, dtype=model.dtype, device=ids.device)
            settings[:, head.head] = beta
            hooks = TemperedLayer(model, head.layer, settings, visible).hooks
            with torch.no_grad():
                found[i, k] = token_losses(model, one[None], hooks).double().mean()
    return found


def points(work: Work) -> None:
    """What the widget shows, for each causal and matched head on the first prompts of the recorded pairs."""
    prompts = work.prompts()
    some, heads = prompts[:POINT_PROMPTS], sorted({head for pair in _pairs(work.model, prompts) for head in pair})
    found: dict[str, Any] = {}
    for head in heads:
        run = run_tempered(work.model, some, {head: POINT_BETAS}, progress=False)
        found[str(head)] = _points(run, work.model.tokenizer)
    told = [
        {"text": p.prompt.text, "tokens": [*p.tokens], "answer": p.prompt.answer, "foil": p.prompt.foil}
        for p in run.prompts
    ]
    text = json.dumps(
        {"betas": POINT_BETAS, "prompts": told, "heads": found}, ensure_ascii=False, separators=(",", ":")
    )
    (work.out / "points.json").write_text(text + "\n", encoding="utf-8")


def _points(run: TemperedRun, tokenizer: Any) -> list[Mapping[str, Any]]:
    """One entry a prompt: the logit difference, KL and chi of the row, and the likeliest next tokens at every beta."""
    n = torch.tensor([len(p) for p in run.prompts]).expand(len(run.betas), -1)
    kl, chi = (f(run.rows[:, :, 0], n=n, normalized=False) for f in (kl_selectivity, susceptibility))
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


def verdicts(work: Work) -> None:
    """Holds, fails or undecided, from the files that the other steps wrote."""
    work.write("verdicts", verdict_table(MeasuredKnob(work.out)))


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


STEPS: dict[str, Callable[[Work], None]] = {
    "response": response,
    "slopes": slopes,
    "loss": loss,
    "lengths": lengths,
    "turned": turned,
    "curvature": curvature,
    "points": points,
    "verdicts": verdicts,
}
#: What the demo model's context of 64 tokens leaves out, and what is computed live on it.
NOT_ON_THE_DEMO = ("lengths", "points")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="short name of the model, which is also its folder")
    parser.add_argument("--steps", nargs="+", choices=STEPS, help="default: all that the model allows")
    parser.add_argument("--out", type=Path, help="default: the folder of the shipped measurements")
    args = parser.parse_args()
    work = Work(load_model(args.model), args.out or FOLDER / args.model / "knob")
    for name in args.steps or [name for name in STEPS if args.model != "demo" or name not in NOT_ON_THE_DEMO]:
        print(name, flush=True)
        STEPS[name](work)


if __name__ == "__main__":
    main()
