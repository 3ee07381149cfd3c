"""Where the time of ``make run`` goes, and whether memory grows with the number of prompts: part of ``make bench``.

Phases of the experiment on the post's 100 prompts with a random model of GPT-2 small's shape; then the peak memory of
recording 100 and 5,000 prompts on the demo model, in fresh processes, beside the size of the record itself.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch  # noqa: F401  (what comes after torch is ours)

SECONDS: dict[str, float] = {}


@contextmanager
def phase(name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    SECONDS[name] = time.perf_counter() - start


def main() -> None:
    with phase("import helpers"):
        import helpers
    from common import in_fresh_process, save_model

    if len(sys.argv) == 2:
        return print(peak(int(sys.argv[1])))
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_model(Path(scratch, "model"))
        with phase("load (transformers and TransformerLens are imported here)"):
            model = helpers.load_model(str(folder), device="cpu")
        with phase("forward passes"):
            sides = [
                helpers.record_attention(model, p(), progress=False) for p in (helpers.ioi_prompts, helpers.abc_prompts)
            ]
        with phase("import statistics and plots"):
            analyse: Callable = helpers.analyse
            save_results: Callable = helpers.save_results
        with phase("KL, chi, statistics"):
            experiment = analyse(*sides, helpers.IOI_POST)
        with phase("table, figures, records"):
            save_results(experiment, Path(scratch, "results"))
    total = sum(SECONDS.values())
    for name, seconds in SECONDS.items():
        print(f"{seconds:7.2f} s  {seconds / total:5.1%}  {name}")
    print(f"{total:7.2f} s         all")
    few, many = (int(in_fresh_process(__file__, n)) for n in (100, 5000))
    print(f"peak memory of recording: {few} MB for 100 prompts, {many} MB for 5,000 (their record is 14 MB)")


def peak(n: int) -> int:
    """Peak memory in MB of recording n prompts on the demo model."""
    from common import peak_memory

    from helpers import abc_prompts, load_model, record_attention

    record_attention(load_model("demo", device="cpu"), abc_prompts(n), progress=False)
    return peak_memory()


if __name__ == "__main__":
    main()
