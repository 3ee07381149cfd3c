"""Mutate `helpers/diagnostics` and `helpers/statistics` with mutmut, run the tests that concern them, and print the score.

    score = killed / (mutants tried - equivalent ones)

A mutant is a function with one small change. It is killed if a test fails (or never ends). Equivalent mutants, which no
test could tell from the original, are listed with a reason in ``equivalent.txt``. What mutmut does not mutate (constants of
a module, decorated functions and properties) has tests as well, but is not in the score.

    python tests/mutation/score.py [--sample 500] [--seed 0] [--children 2] [PATTERN ...]
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "mutation"
#: How mutmut's exit codes read; a test process that was stopped for its time has killed the mutant as well.
SURVIVED, NO_TEST = 0, 33
PACKAGES = ("helpers/diagnostics", "helpers/statistics")


def main() -> None:
    options = argparse.ArgumentParser(description="Mutation score of the pure functions.")
    options.add_argument("patterns", nargs="*", help="names of mutants, with * (default: all)")
    options.add_argument("--sample", type=int, default=0, help="try so many, drawn at random (default: all)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--children", type=int, default=2, help="processes at a time")
    arguments = options.parse_args()
    copy_tree()
    run_mutmut(["helpers.diagnostics.values.*__mutmut_1"], arguments.children)  # makes all mutants, times all tests
    names = sorted(name for name in codes() if matches(name, arguments.patterns))
    chosen = names
    if 0 < arguments.sample < len(names):
        chosen = sorted(random.Random(arguments.seed).sample(names, arguments.sample))
        print(f"A sample: {len(chosen)} of {len(names)} mutants, drawn with seed {arguments.seed}.")
    run_mutmut(chosen, arguments.children)
    report(chosen)


def matches(name: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def copy_tree() -> None:
    """What is mutated is a copy of the working tree."""
    shutil.rmtree(WORK, ignore_errors=True)
    leave_out = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("helpers", "tests"):
        shutil.copytree(ROOT / name, WORK / name, ignore=leave_out)
    shutil.copy(ROOT / "pyproject.toml", WORK)


def run_mutmut(names: list[str], children: int) -> None:
    """Annotations are not checked while mutants run: a mutant must be noticed by what it computes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children), *names]
    done = subprocess.run(
        command, cwd=WORK, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout[-3000:])


def codes() -> dict[str, int | None]:
    """Exit code of the tests for each mutant, by its name; None: not tried."""
    found: dict[str, int | None] = {}
    for package in PACKAGES:
        for file in sorted((WORK / "mutants" / package).glob("*.meta")):
            found |= json.loads(file.read_text())["exit_code_by_key"]
    return found


def change(name: str) -> str:
    """``module.function: old -> new`` of a mutant, its lines without their indentation."""
    shown = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", name], cwd=WORK, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    lines = [line for line in shown if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    old, new = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    function = name.removeprefix("helpers.").split("__mutmut_")[0].replace(".x_", ".")
    return f"{function}: {old} -> {new}"


def equivalent() -> re.Pattern[str]:
    """Changes listed as equivalent, * for anything; lines that begin with # are reasons."""
    lines = (HERE / "equivalent.txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    return re.compile("|".join(re.escape(line).replace(r"\*", ".*") for line in listed))


def report(names: list[str]) -> None:
    found = codes()
    left = {name: change(name) for name in names if found[name] in (SURVIVED, NO_TEST, None)}
    alike = equivalent()
    alive = {name: text for name, text in left.items() if not alike.fullmatch(text)}
    for name, text in alive.items():
        print(f"alive  {text}" + ("  (no test reaches it)" if found[name] == NO_TEST else ""))
    tried = len(names) - (len(left) - len(alive))
    modules = Counter(name.split(".x")[0] for name in alive)
    print(*(f"{module}: {count} alive" for module, count in modules.most_common()), sep="\n")
    print(f"{len(names)} mutants, {len(names) - tried} equivalent; killed {tried - len(alive)} of {tried}: "
          f"score {100 * (tried - len(alive)) / tried:.1f} %")  # fmt: skip


if __name__ == "__main__":
    main()
