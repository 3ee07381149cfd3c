"""The commands and options of ``python -m helpers``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from helpers.console import path_of
from helpers.design import Design
from helpers.patching.circuits import REQUIRED_ACCURACY
from helpers.prompts.fit import TASK_NAMES

Command = Callable[[argparse.Namespace], int]


def parser(about: str | None, run: Command, reproduce: Command, circuit: Command) -> argparse.ArgumentParser:
    """What reads the command line; each command's function is ``args.command``."""
    found = argparse.ArgumentParser(prog="helpers", description=about)
    commands = found.add_subparsers(required=True)
    one = commands.add_parser("run", help="run the experiment", description=run.__doc__)
    one.set_defaults(command=run)
    one.add_argument("--model", default="demo", help='"demo", "gpt2-small", a Hugging Face name or a folder')
    one.add_argument("--n", type=int, default=50, help="prompts in each of the two sets (default: the post's 50)")
    one.add_argument(
        "--active", type=path_of, help="text file, one prompt a line (# begins a comment), instead of the IOI set"
    )
    one.add_argument("--control", type=path_of, help="the same, instead of the ABC set")
    _add_record(one)
    one.add_argument(
        "--circuit", help="heads to score with: a folder that the command circuit wrote, or a model's name"
    )
    one.add_argument(
        "--design",
        choices=get_args(Design),
        help="test within pairs (line k of both files) or between two sets (default: pairs if there are as many prompts on both "
        "sides, each as long as its twin and like it in two thirds of the tokens or more, but not in all)",
    )
    _add_bos(one)
    one.add_argument("--out", type=path_of, default=Path("results"), help="folder of the results")
    two = commands.add_parser(
        "reproduce", help="compare GPT-2 small with the published result", description=reproduce.__doc__
    )
    two.set_defaults(command=reproduce)
    two.add_argument("--model", default="gpt2-small", help="GPT-2 small, or a folder that holds it")
    _add_record(two)
    two.add_argument("--out", type=path_of, default=Path("results-gpt2-small"), help="folder of the results")
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
    _add_bos(three)
    three.add_argument("--out", type=path_of, default=Path("results-circuit"), help="folder of the table")
    return found


def _add_record(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--record", type=path_of, help="replay the records of an earlier results folder; no model is loaded"
    )


def _add_bos(command: argparse.ArgumentParser) -> None:
    """What stands in front of every prompt."""
    first = command.add_mutually_exclusive_group()
    first.add_argument(
        "--bos", metavar="TOKEN", help="token of the vocabulary in front of every prompt (default: the tokenizer's BOS)"
    )
    first.add_argument("--no-bos", action="store_true", help="put no token in front of the prompts")
