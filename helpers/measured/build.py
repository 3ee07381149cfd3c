"""``make measure MODEL=smollm2``: the measurements of a model that ship with the repository.

    python -m helpers.measured.build smollm2 [--steps examination circuits values attribution roles records card]

What is measured, on which prompts and in which order is fixed in ``PROTOCOL.md`` of the model's folder. Every step writes
its own files and can be repeated by itself; the patching of a task that was stopped goes on after its last layer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.attention.capture import record_attention
from helpers.contents.roles import head_roles
from helpers.heads import head_index
from helpers.measured import card
from helpers.models.load import load_model
from helpers.models.model import LanguageModel
from helpers.patching.attribution import attribute_heads
from helpers.patching.circuits import find_circuit, fit_to_model, task_accuracy
from helpers.prompts.fit import VARIANTS, fit_task
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.reference.measured import MeasuredCircuit
from helpers.scores.comparison import gather, score_heads

FOLDER = Path(__file__).parent
MEASURED = ("ioi", "repeated", "agreement", "ownership")
#: Pairs on which heads are patched, and other pairs on which they are scored.
PAIRS, TRUTH_SEED, SCORE_SEED = 40, 0, 1
#: Pairs whose attention rows ship.
RECORDED_PAIRS = 32
#: Special tokens that a text may begin with, beside the tokenizer's own BOS.
OTHER_BOS = {"smollm2": ("<|im_start|>",)}
#: Prompts on which accuracy is measured: the first number that a tokenizer makes.
EXAMINED = (200, 100)


def examination(model: LanguageModel, out: Path, tasks: Sequence[str]) -> None:
    """Accuracy on every task in each of its forms, for each choice of BOS."""
    rows: list[tuple[Any, ...]] = []
    for bos in (*_bos_choices(model), None):
        tokens: dict[str, Any] = {"prepend_bos": False} if bos is None else {"bos": bos}
        for task in (*tasks, "greater_than"):
            for options in VARIANTS[task]:
                form = ", ".join(f"{name} {value}" for name, value in options.items())
                rows.append((bos or "none", task, form, *_examine(model, task, tokens, options)))
    columns = ["bos", "task", "form", "prompts", "tokens", "accuracy", "top_1", "reason"]
    _write(pd.DataFrame(rows, columns=columns), out / "examination.csv")


def _examine(
    model: LanguageModel, task: str, tokens: dict[str, Any], options: Mapping[str, Any]
) -> tuple[int, int, float | None, float | None, str]:
    """Prompts, tokens, accuracy and top-1 of one form of a task, or why it can't be made."""
    reason = ""
    for n in EXAMINED:
        try:
            fitted = fit_task(task, model.tokenizer, n, **tokens, **options)
        except ValueError as error:
            reason = str(error)
            continue
        return n, fitted.length, *task_accuracy(model, (fitted.clean, fitted.corrupt), **tokens), ""
    return 0, 0, None, None, reason


def circuits(model: LanguageModel, out: Path, tasks: Sequence[str]) -> None:
    """The truth: every head patched in both directions, on each task that the model does."""
    refused = {}
    for task in tasks:
        try:
            fitted = fit_to_model(model, task, PAIRS)
            found = find_circuit(
                model,
                (fitted.clean, fitted.corrupt),
                task=task,
                work=out / f"{task}.unfinished",
                left_out=fitted.left_out,
                batch_size=PAIRS,
            )
        except ValueError as error:  # what can't be made for this tokenizer, or is not done by this model
            refused[task] = str(error)
            continue
        found.save(out / task)
    (out / "refused.json").write_text(json.dumps(refused, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def values(model: LanguageModel, out: Path, tasks: Sequence[str]) -> None:
    """Every score of every head, on each measured task, from other pairs than the truth."""
    for task in tasks:
        if not (out / task).is_dir():
            continue
        fitted = fit_to_model(model, task, PAIRS, seed=SCORE_SEED)
        tokens = MeasuredCircuit.load(out / task).about["tokens"]
        if fitted.length != tokens:
            raise ValueError(f"task {task!r}: expected pairs of {tokens} tokens, as of the truth, got {fitted.length}")
        table, reasons = score_heads(gather(model, fitted.clean, fitted.corrupt))
        _write(table, out / task / "scores.csv")
        text = json.dumps(reasons, indent=1, ensure_ascii=False)
        (out / task / "reasons.json").write_text(text + "\n", encoding="utf-8")


def attribution(model: LanguageModel, out: Path, tasks: Sequence[str]) -> None:
    """Attribution patching in both directions, on the pairs of the scores: each head's estimate, mean over pairs."""
    for task in tasks:
        if not (out / task).is_dir():
            continue
        fitted = fit_to_model(model, task, PAIRS, seed=SCORE_SEED)
        denoising, noising = (
            attribute_heads(model, fitted.clean, fitted.corrupt, at=side).mean(-1).ravel()
            for side in ("corrupt", "clean")
        )
        table = head_index(model.n_layers, model.n_heads).assign(denoising=denoising, noising=noising)
        _write(table, out / task / "attribution.csv")


def roles(model: LanguageModel, out: Path, tasks: Sequence[str]) -> None:
    """Every head's behaviour, and the roles that it gives."""
    _write(head_roles(model), out / "roles.csv")


def records(model: LanguageModel, out: Path, tasks: Sequence[str]) -> None:
    """Attention rows of all positions: the post's prompts, and minimal pairs of IOI."""
    (out / "records").mkdir(parents=True, exist_ok=True)
    fitted = fit_to_model(model, "ioi", RECORDED_PAIRS)
    sets = {"ioi": ioi_prompts(), "abc": abc_prompts(), "clean": fitted.clean, "corrupt": fitted.corrupt}
    for name, prompts in sets.items():
        record = record_attention(model, prompts, query="all", readout=True)
        record.save(out / "records" / f"{name}.safetensors", compact=True)


STEPS: dict[str, Callable[[LanguageModel, Path, Sequence[str]], None]] = {
    "examination": examination,
    "circuits": circuits,
    "values": values,
    "attribution": attribution,
    "roles": roles,
    "records": records,
}


def _bos_choices(model: LanguageModel) -> tuple[str, ...]:
    return (model.tokenizer.bos_token, *OTHER_BOS.get(model.name, ()))


def _write(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="short name of the model, which is also its folder")
    parser.add_argument("--steps", nargs="+", choices=[*STEPS, "card"], default=[*STEPS, "card"])
    parser.add_argument("--tasks", nargs="+", choices=MEASURED, default=MEASURED)
    parser.add_argument("--out", type=Path, help="default: beside this file")
    args = parser.parse_args()
    out = args.out or FOLDER / args.model
    if set(args.steps) & set(STEPS):
        model = load_model(args.model)
        for name in args.steps:
            if name in STEPS:
                STEPS[name](model, out, args.tasks)
    if "card" in args.steps:
        card.write(out)


if __name__ == "__main__":
    main()
