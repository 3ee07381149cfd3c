"""From the command line: the experiment (``python -m helpers run``), the check of the published result (``reproduce``),
and the causal heads of any model on a task (``circuit``)."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from helpers.attention.capture import record_attention, tokenize_for
from helpers.attention.record import AttentionRecord
from helpers.circuit_wording import circuit_report
from helpers.console import accept_all_characters, is_watched, path_of, say, sentence, short, tell
from helpers.experiment import analyse, asks_ioi
from helpers.folders import check_folder, check_writing, claimed, resolve_folder, whole_folder
from helpers.models.load import ModelUnavailable, load_model
from helpers.models.model import LanguageModel
from helpers.options import parser
from helpers.patching.circuits import SCREEN, find_circuit, fit_to_model
from helpers.prompts.fit import TASK_NAMES
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.prompts.prompt import Prompt
from helpers.prompts.reading import read_prompts
from helpers.prompts.tokens import bos_id
from helpers.reference.circuits import IOI_POST, Circuit
from helpers.reference.demo import circuit_of
from helpers.reference.measured import ABOUT, MeasuredCircuit, measured_circuit
from helpers.reference.measured import FORMAT as MEASURED
from helpers.results import SIDES, check_out, load_records, save_results
from helpers.scorecard import as_text, scorecard, summary
from helpers.wording import describe, report


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 if it did its work, 2 with one sentence on stderr if the input or the model is unusable."""
    args = parser(__doc__, run, reproduce, circuit).parse_args(argv)
    accept_all_characters()
    try:
        return int(args.command(args))
    except (ValueError, OSError, ModelUnavailable) as error:
        tell(f"error: {sentence(error)}")
        return 2
    except KeyboardInterrupt:
        tell("stopped; nothing is written")
        return 130


def run(args: argparse.Namespace) -> int:
    """The experiment: two prompt sets through a model (or two saved records), to a report and a results folder."""
    given = _circuit_named(args.circuit) if args.circuit else None
    sides = _sides(args)
    saved = _saved(args.record) if args.record else None
    with _claimed(args.out, check_out):
        records = saved or _measure(args, sides, given)
        active, control = (record.at("END") for record in records)
        known = (measured_circuit(active.model) or circuit_of(active.model)) if asks_ioi(active, control) else None
        experiment = analyse(active, control, given or known, design=args.design)
        experiment = replace(experiment, notes=[*_reading_notes(sides), *experiment.notes])
        save_results(experiment, args.out, records=records)
    say(f"{report(experiment)}\nwritten to {args.out}/", args.out)
    return 0


def reproduce(args: argparse.Namespace) -> int:
    """The post's protocol on GPT-2 small against every published figure; exit status 0 only if all agree, 1 if not."""
    saved = _saved(args.record) if args.record else None
    with _claimed(args.out, check_out):
        records = saved or _measure_everywhere(args.model)
        active, control = (record.at("END") for record in records)
        experiment = analyse(active, control, IOI_POST)
        card = scorecard(experiment)
        words = f"{as_text(card)}\n\n{summary(card)}\n"
        texts = {"scorecard.csv": card.to_csv(index=False), "scorecard.txt": words}
        save_results(experiment, args.out, records=records, texts=texts)
    say(f"{describe(experiment)}\n\n{as_text(card)}\n\nwritten to {args.out}/\n{summary(card)}", args.out)
    return 0 if card.agrees.all() else 1


def circuit(args: argparse.Namespace) -> int:
    """Causal heads of a model on a task: prompts that suit its tokenizer, accuracy, patching, to a table that ``run`` takes."""
    if args.task not in TASK_NAMES:
        raise ValueError(f"task: expected one of {', '.join(TASK_NAMES)}, got {args.task!r}")
    if args.n < 2:
        raise ValueError(f"n: expected at least 2 pairs, for intervals over pairs, got {args.n}")
    check = partial(check_folder, marker=ABOUT, form=MEASURED)
    with _claimed(args.out, check):
        out = resolve_folder(args.out)
        work = short(out.with_name(f"{out.name}.unfinished"))
        try:
            found = _find(args, work)
        except KeyboardInterrupt:
            kept = f"finished layers are in {work}/: the same command goes on from there"
            tell(f"stopped; {kept if work.is_dir() else 'nothing is kept'}")
            return 130
        check(args.out)
        with whole_folder(args.out) as folder:
            found.save(folder)
            (folder / "report.txt").write_text(circuit_report(found), encoding="utf-8")
    first = " NO_BOS=1" if args.no_bos else f" BOS={shlex.quote(args.bos)}" if args.bos else ""
    scores = f"make run MODEL={args.model}{first} CIRCUIT={args.out}"
    say(f"{circuit_report(found)}\nwritten to {args.out}/; {scores} scores with it", args.out)
    return 0


@contextmanager
def _claimed(out: Path, check: Callable[[Path], None]) -> Iterator[None]:
    """The folder of the results: checked, tested by writing, announced, and no other run's until the block ends."""
    check(out)
    check_writing(out)
    with claimed(out):
        tell(f"results go to {resolve_folder(out)}/")
        yield


def _find(args: argparse.Namespace, work: Path) -> MeasuredCircuit:
    model = load_model(args.model)
    tokens = _tokens(args, model)
    fitted = fit_to_model(model, args.task, args.n, **tokens)
    return find_circuit(
        model,
        (fitted.clean, fitted.corrupt),
        task=args.task,
        screen=SCREEN if args.screen else None,
        work=work,
        min_accuracy=args.min_accuracy,
        left_out=fitted.left_out,
        progress=is_watched(),
        **tokens,
    )


def _tokens(args: argparse.Namespace, model: LanguageModel) -> dict[str, Any]:
    """What stands in front of every prompt, as recording and patching take it."""
    if args.bos is None and not args.no_bos and model.tokenizer.bos_token_id is None:
        raise ValueError("--bos: expected --bos TOKEN or --no-bos, for a tokenizer without a BOS token, got neither")
    tokens = {"prepend_bos": not args.no_bos, "bos": args.bos}
    try:
        bos_id(model.tokenizer, **tokens)
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    return tokens


def _circuit_named(text: str) -> Circuit | MeasuredCircuit:
    """A circuit by the name of a model that has one, or of a model and a task ("demo", "smollm2/repeated"), or by its folder."""
    model, _, task = text.partition("/")
    return measured_circuit(model, task or "ioi") or circuit_of(text) or MeasuredCircuit.load(path_of(text))


def _sides(args: argparse.Namespace) -> list[Sequence[Prompt]]:
    """The two prompt sets that are asked for; none for a replay."""
    if bool(args.active) != bool(args.control):
        raise ValueError("active, control: expected both prompt files or neither, got one")
    if args.record and args.active:
        raise ValueError(
            "--record: expected no prompt files beside records, which hold their own, got --active, --control"
        )
    if args.record and (args.bos is not None or args.no_bos):
        raise ValueError("--record: expected no --bos or --no-bos beside records, which hold their own tokens")
    if args.record:
        return []
    if not args.active:
        if args.n < 2:
            raise ValueError(f"--n: expected at least 2 prompts in each set, for a spread over prompts, got {args.n}")
        return [ioi_prompts(args.n), abc_prompts(args.n)]
    return [_own(name, path) for name, path in (("--active", args.active), ("--control", args.control))]


def _own(name: str, path: Path) -> Sequence[Prompt]:
    """The prompts of a file, if they are enough."""
    side = read_prompts(path, name=name)
    if len(side) < 2:
        raise ValueError(f"{name}: expected at least 2 prompts, for a spread over prompts, {path} has {len(side)}")
    return side


def _reading_notes(sides: Sequence[Sequence[Prompt]]) -> list[str]:
    """What the reader of the prompt files left out."""
    named = zip(SIDES, sides, strict=True) if sides else ()
    return [f"{name.capitalize()} set: {note}" for name, side in named for note in getattr(side, "notes", ())]


def _saved(folder: Path) -> tuple[AttentionRecord, AttentionRecord]:
    """The records of an earlier run, of enough prompts."""
    try:
        records = load_records(folder)
    except (OSError, ValueError) as error:
        what = sentence(error).removeprefix("path: ")
        raise ValueError(f"--record: expected an earlier results folder, got {str(folder)!r} ({what})") from None
    for name, record in zip(SIDES, records, strict=True):
        if len(record.prompts) < 2:
            raise ValueError(
                f"--record: expected at least 2 prompts in each set, for a spread over prompts, the {name} record has "
                f"{len(record.prompts)}"
            )
    return records


def _measure(
    args: argparse.Namespace, sides: Sequence[Sequence[Prompt]], circuit: Circuit | MeasuredCircuit | None
) -> tuple[AttentionRecord, AttentionRecord]:
    model = load_model(args.model)
    if circuit:
        circuit.check_shape(model.n_layers, model.n_heads)
    tokens = _tokens(args, model)
    for name, side in zip(SIDES, sides, strict=True):
        try:
            tokenize_for(model, side, **tokens)
        except ValueError as error:
            raise ValueError(f"{name} set, {error}") from None
    readout, progress = not args.active, is_watched()
    active, control = (record_attention(model, side, readout=readout, progress=progress, **tokens) for side in sides)
    return active, control


def _measure_everywhere(name: str) -> tuple[AttentionRecord, AttentionRecord]:
    """The post's two sets, rows of every query position."""
    model = load_model(name)
    active, control = (
        record_attention(model, side, query="all", readout=True, progress=is_watched())
        for side in (ioi_prompts(), abc_prompts())
    )
    return active, control


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a run that is told to end tidies up
    sys.exit(main())
