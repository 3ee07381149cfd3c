"""From the command line: the experiment (``python -m helpers run``), the check of the published result (``reproduce``),
and the causal heads of any model on a task (``circuit``)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from helpers.attention.capture import record_attention, tokenize_for
from helpers.attention.record import AttentionRecord
from helpers.circuit_wording import circuit_report
from helpers.experiment import analyse, asks_ioi
from helpers.folders import check_folder, whole_folder
from helpers.models.load import ModelUnavailable, load_model
from helpers.patching.circuits import REQUIRED_ACCURACY, SCREEN, find_circuit, fit_to_model
from helpers.prompts.fit import TASK_NAMES
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.prompts.prompt import Prompt
from helpers.reference.circuits import IOI_POST, Circuit
from helpers.reference.demo import circuit_of
from helpers.reference.measured import ABOUT, MeasuredCircuit, measured_circuit
from helpers.reference.measured import FORMAT as MEASURED
from helpers.results import SIDES, check_out, load_records, save_results
from helpers.scorecard import as_text, scorecard, summary
from helpers.wording import describe, report


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 if it did its work, 2 with one sentence on stderr if the input or the model is unusable."""
    args = _parser().parse_args(argv)
    try:
        return int(args.command(args))
    except (ValueError, OSError, ModelUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """The experiment: two prompt sets through a model (or two saved records), to a report and a results folder."""
    check_out(args.out)
    given = _circuit_named(args.circuit) if args.circuit else None
    records = load_records(args.record) if args.record else _measure(args, given)
    active, control = (record.at("END") for record in records)
    known = (measured_circuit(active.model) or circuit_of(active.model)) if asks_ioi(active, control) else None
    experiment = analyse(active, control, given or known)
    print(report(experiment))
    print(f"written to {save_results(experiment, args.out, records=records)}/")
    return 0


def reproduce(args: argparse.Namespace) -> int:
    """The post's protocol on GPT-2 small against every published figure; exit status 0 only if all agree, 1 if not."""
    check_out(args.out)
    records = load_records(args.record) if args.record else _measure_everywhere(args.model)
    active, control = (record.at("END") for record in records)
    experiment = analyse(active, control, IOI_POST)
    card = scorecard(experiment)
    print(f"{describe(experiment)}\n\n{as_text(card)}\n")
    texts = {"scorecard.csv": card.to_csv(index=False), "scorecard.txt": as_text(card) + "\n\n" + summary(card) + "\n"}
    print(f"written to {save_results(experiment, args.out, records=records, texts=texts)}/")
    print(summary(card))
    return 0 if card.agrees.all() else 1


def circuit(args: argparse.Namespace) -> int:
    """Causal heads of a model on a task: prompts that suit its tokenizer, accuracy, patching, to a table that ``run`` takes."""
    check_folder(args.out, ABOUT, MEASURED)
    if args.task not in TASK_NAMES:
        raise ValueError(f"task: expected one of {', '.join(TASK_NAMES)}, got {args.task!r}")
    if args.n < 2:
        raise ValueError(f"n: expected at least 2 pairs, for intervals over pairs, got {args.n}")
    work = args.out.with_name(args.out.name + ".unfinished")
    try:
        found = _find(args, work)
    except KeyboardInterrupt:
        left = (
            f"finished layers are in {work}/: the same command goes on from there"
            if work.is_dir()
            else "nothing is kept"
        )
        print(f"stopped; {left}", file=sys.stderr)
        return 130
    with whole_folder(args.out) as folder:
        found.save(folder)
        (folder / "report.txt").write_text(circuit_report(found), encoding="utf-8")
    scores = f"make run MODEL={args.model} CIRCUIT={args.out}"
    print(f"{circuit_report(found)}\nwritten to {args.out}/; {scores} scores with it")
    return 0


def _find(args: argparse.Namespace, work: Path) -> MeasuredCircuit:
    model = load_model(args.model)
    fitted = fit_to_model(model, args.task, args.n)
    return find_circuit(
        model,
        (fitted.clean, fitted.corrupt),
        task=args.task,
        screen=SCREEN if args.screen else None,
        work=work,
        min_accuracy=args.min_accuracy,
        left_out=fitted.left_out,
    )


def _circuit_named(text: str) -> Circuit | MeasuredCircuit:
    """A circuit by the name of a model that has one, or of a model and a task ("demo", "smollm2/repeated"), or by its folder."""
    model, _, task = text.partition("/")
    return measured_circuit(model, task or "ioi") or circuit_of(text) or MeasuredCircuit.load(text)


def _measure(
    args: argparse.Namespace, circuit: Circuit | MeasuredCircuit | None
) -> tuple[AttentionRecord, AttentionRecord]:
    if bool(args.active) != bool(args.control):
        raise ValueError("active, control: expected both prompt files or neither, got one")
    prompts = [_read(args.active, "active"), _read(args.control, "control")] if args.active else _shipped(args.n)
    model = load_model(args.model)
    if circuit:
        circuit.check_shape(model.n_layers, model.n_heads)
    for name, side in zip(SIDES, prompts, strict=True):
        try:
            tokenize_for(model, side)
        except ValueError as error:
            raise ValueError(f"{name} set, {error}") from None
    active, control = (record_attention(model, side, readout=not args.active) for side in prompts)
    return active, control


def _shipped(n: int) -> list[list[Prompt | str]]:
    """The post's two sets."""
    if n < 2:
        raise ValueError(f"n: expected at least 2 prompts in each set, for a spread over prompts, got {n}")
    return [[*ioi_prompts(n)], [*abc_prompts(n)]]


def _measure_everywhere(name: str) -> tuple[AttentionRecord, AttentionRecord]:
    """The post's two sets, rows of every query position."""
    model = load_model(name)
    active, control = (
        record_attention(model, side, query="all", readout=True) for side in (ioi_prompts(), abc_prompts())
    )
    return active, control


def _read(path: Path, name: str) -> list[Prompt | str]:
    """Prompts of a text file, one a line."""
    try:
        lines: list[Prompt | str] = [*path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected a text file in UTF-8, one prompt a line") from None
    if len(lines) < 2:
        raise ValueError(f"{name}: expected at least 2 prompts, for a spread over prompts, {path} has {len(lines)}")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="helpers", description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run", help="run the experiment", description=run.__doc__)
    one.set_defaults(command=run)
    one.add_argument("--model", default="demo", help='"demo", "gpt2-small", a Hugging Face name or a folder')
    one.add_argument("--n", type=int, default=50, help="prompts in each of the two sets (default: the post's 50)")
    one.add_argument("--active", type=Path, help="text file, one prompt a line, instead of the IOI set")
    one.add_argument("--control", type=Path, help="text file, one prompt a line, instead of the ABC set")
    one.add_argument("--record", type=Path, help="replay the records of an earlier results folder; no model is loaded")
    one.add_argument(
        "--circuit", help="heads to score with: a folder that the command circuit wrote, or a model's name"
    )
    one.add_argument("--out", type=Path, default=Path("results"), help="folder of the results")
    two = commands.add_parser(
        "reproduce", help="compare GPT-2 small with the published result", description=reproduce.__doc__
    )
    two.set_defaults(command=reproduce)
    two.add_argument("--model", default="gpt2-small", help="GPT-2 small, or a folder that holds it")
    two.add_argument("--record", type=Path, help="replay the records of an earlier results folder; no model is loaded")
    two.add_argument("--out", type=Path, default=Path("results-gpt2-small"), help="folder of the results")
    three = commands.add_parser("circuit", help="find the heads that cause the answer", description=circuit.__doc__)
    three.set_defaults(command=circuit)
    three.add_argument("--model", default="demo", help="as of run")
    three.add_argument("--task", default="ioi", help=f"one of {', '.join(TASK_NAMES)} (default: ioi)")
    three.add_argument("--n", type=int, default=32, help="pairs of prompts (default: 32)")
    three.add_argument("--screen", action="store_true", help="patch only the heads that attribution patching points at")
    three.add_argument(
        "--min-accuracy",
        type=float,
        default=REQUIRED_ACCURACY,
        help="smallest share of clean prompts with the answer above the foil (default: %(default)s)",
    )
    three.add_argument("--out", type=Path, default=Path("results-circuit"), help="folder of the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
