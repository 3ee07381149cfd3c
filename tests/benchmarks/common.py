"""What the benchmarks share: a random model of GPT-2 small's shape, texts of a given length, and peak memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from models import save_gpt2

from helpers.demo.train import build_tokenizer
from helpers.prompts.ioi import NAMES

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def save_model(folder: Path) -> Path:
    """Random weights, 12 layers x 12 heads, d_model 768, 1,024 positions; the demo model's small vocabulary."""
    return save_gpt2(folder, build_tokenizer())


def text_of(length: int, number: int = 0) -> str:
    """A text of ``length`` tokens, BOS included."""
    return " ".join(["red"] * (length - 2) + [NAMES[number % len(NAMES)]])


def in_fresh_process(script: str, *arguments: object, returned: int = 2**20) -> str:
    """The last line that ``python script arguments`` prints.

    glibc is told to return freed blocks above ``returned`` bytes, so that peaks are what is held and not what malloc
    keeps in reserve.
    """
    command = [sys.executable, script, *map(str, arguments)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(returned)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return done.stdout.splitlines()[-1]


def forget_peak() -> None:
    """Begin to measure peak memory anew (loading a model takes more than running it); on Linux and on CUDA."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR.exists():
        CLEAR.write_text("5")


def peak_memory() -> float:
    """Peak memory in MB, to a page: of the GPU if there is one, else of this process.

    Linux's VmHWM, because ru_maxrss of a fresh process begins at the peak of the process that started it.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if STATUS.exists():
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
