"""Where the time of ``make run`` goes, and whether memory grows with the number of prompts: part of ``make bench``.

Phases of the experiment on the post's 100 prompts, with the demo model and with a random model of GPT-2 small's shape
(imports are paid once and shown beside both); then the peak memory of recording 100 and 5,000 prompts on the demo
model, in fresh processes, beside the size of the record itself.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch  # noqa: F401  (what comes after torch is ours)

if TYPE_CHECKING:
    from helpers import Circuit

Phases = dict[str, float]


@contextmanager
def phase(seconds: Phases, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def main() -> None:
    imports: Phases = {}
    with phase(imports, "import helpers"):
        import helpers
    if len(sys.argv) == 2:
        return print(peak(int(sys.argv[1])))
    with phase(imports, "import transformers and TransformerLens"):
        importlib.import_module("transformer_lens.model_bridge")
    with phase(imports, "import statistics and plots"):
        importlib.import_module("helpers.results")
    from common import in_fresh_process, save_model

    with tempfile.TemporaryDirectory() as scratch:
        random = str(save_model(Path(scratch, "model")))
        for title, name, circuit in (
            ("the demo model (make run)", "demo", helpers.circuit_of("demo")),
            ("a random model of GPT-2 small's shape", random, helpers.IOI_POST),
        ):
            report(title, imports, experiment(name, circuit, Path(scratch, "results")))
    few, many = (float(in_fresh_process(__file__, n)) for n in (100, 5000))
    print(f"peak memory of recording: {few:.0f} MB for 100 prompts, {many:.0f} MB for 5,000 (their record is 14 MB)")


def experiment(name: str, circuit: Circuit | None, out: Path) -> Phases:
    """What ``make run`` does after its imports, timed phase by phase."""
    import helpers

    seconds: Phases = {}
    with phase(seconds, "load the model"):
        model = helpers.load_model(name, device="cpu")
    with phase(seconds, "forward passes"):
        sides = [
            helpers.record_attention(model, prompts(), readout=True, progress=False)
            for prompts in (helpers.ioi_prompts, helpers.abc_prompts)
        ]
    with phase(seconds, "KL, chi, statistics"):
        analysed = helpers.analyse(*sides, circuit)
    with phase(seconds, "table, figures, records"):
        helpers.save_results(analysed, out)
    return seconds


def report(title: str, imports: Phases, seconds: Phases) -> None:
    total = sum(seconds.values())
    print(f"{title}: {sum(imports.values()):.1f} s of imports, {total:.1f} s of computing")
    for name, value in imports.items():
        print(f"{value:7.2f} s         {name}")
    for name, value in seconds.items():
        print(f"{value:7.2f} s  {value / total:5.1%}  {name}")


def peak(n: int) -> float:
    """Peak memory in MB of recording n prompts on the demo model."""
    from common import peak_memory

    from helpers import abc_prompts, load_model, record_attention

    record_attention(load_model("demo", device="cpu"), abc_prompts(n), progress=False)
    return peak_memory()


if __name__ == "__main__":
    main()
