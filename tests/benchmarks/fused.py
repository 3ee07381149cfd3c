"""Time and memory of attention rows beside fused attention, against the bare fused forward pass: part of ``make bench``.

On a random model of SmolLM2-135M's shape (30 layers x 9 heads, 3 key/value heads, d_model 576):

    ours     rows_of(model, ids, at END): the END rows of all heads
    body     the forward pass of the model's body on fused attention (sdpa), keeping nothing
    eager    the same pass on eager attention, with (T, T) weights; memory only

on one prompt of T tokens, and on 100 prompts of 15 tokens. Times are medians over rounds in which they take turns;
ratios are medians of per-round ratios. Peak memory is that of a pass in a fresh process, after loading and a short
pass, minus what the process held before; the median of several passes, and malloc keeps next to nothing in reserve.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import forget_peak, in_fresh_process, peak_memory

LENGTHS = (1024, 4096)
N, SHORT, BATCH = 100, 15, 32
ROUNDS = {1024: 5, 4096: 3, SHORT: 15}
PASSES = {1024: 5, 4096: 1}  # for memory
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = {
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576,
    "intermediate_size": 1536, "vocab_size": 49_152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip

Run = Callable[[torch.Tensor], object]


def load(implementation: str = "sdpa") -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, attn_implementation=implementation)
    return LlamaForCausalLM(config).eval().to(DEVICE)


def runs_of(model: Any) -> dict[str, Run]:
    """What is compared, as functions of a batch of token ids."""
    from helpers.models.fused import rows_of

    return {
        "ours": lambda ids: rows_of(model, ids, [ids.shape[1] - 1] * len(ids)),
        "body": lambda ids: model.model(ids, use_cache=False),
    }


def ids_of(n: int, length: int) -> torch.Tensor:
    return torch.randint(3, SHAPE["vocab_size"], (n, length), generator=torch.Generator().manual_seed(1)).to(DEVICE)


def clock(run: Run, batches: tuple[torch.Tensor, ...]) -> float:
    """Seconds of one pass over some batches."""
    start = time.perf_counter()
    with torch.no_grad():
        for ids in batches:
            run(ids)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - start


def take_turns(runs: dict[str, Run], batches: tuple[torch.Tensor, ...], rounds: int) -> list[dict[str, float]]:
    """Seconds of each in each round; every second round begins with the other."""
    orders = [list(runs), list(runs)[::-1]]
    return [{name: clock(runs[name], batches) for name in orders[i % 2]} for i in range(rounds)]


def peak(name: str, length: int) -> int:
    """In a fresh process: MB that a pass takes on top of the loaded model."""
    runs = runs_of(load("eager" if name == "eager" else "sdpa"))
    run = runs["body" if name == "eager" else name]
    with torch.no_grad():
        run(ids_of(1, SHORT))  # what is set up at the first pass stays
        return int(statistics.median(one_peak(run, ids_of(1, length)) for _ in range(PASSES[length])))


def one_peak(run: Run, ids: torch.Tensor) -> int:
    forget_peak()
    before = peak_memory()
    kept = run(ids)
    del kept
    return peak_memory() - before


def line(what: str, rounds: list[dict[str, float]]) -> str:
    ours, body = (statistics.median(r[name] for r in rounds) for name in ("ours", "body"))
    return f"{what:>22}  {ours:8.3f}  {body:8.3f}  {statistics.median(r['ours'] / r['body'] for r in rounds):9.3f}"


def main() -> None:
    if len(sys.argv) == 3:
        print(peak(sys.argv[1], int(sys.argv[2])))
        return
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"random model of SmolLM2-135M's shape, {where}")
    print("          MB beyond the weights:     ours      body  ours/body     eager")
    for length in LENGTHS:
        ours, body, eager = (
            int(in_fresh_process(__file__, name, length, returned=2**16)) for name in ("ours", "body", "eager")
        )
        print(f"{f'1 prompt, T = {length:,}':>30}  {ours:8}  {body:8}  {ours / body:9.3f}  {eager:8}")
    runs = runs_of(load())
    print("               seconds:     ours      body  ours/body")
    for name, n, length in (
        *((f"1 prompt, T = {t:,}", 1, t) for t in LENGTHS),
        (f"{N} prompts, T = {SHORT}", N, SHORT),
    ):
        batches = ids_of(n, length).split(BATCH)
        for run in runs.values():
            clock(run, (ids_of(1, SHORT),))
        print(line(name, take_turns(runs, batches, ROUNDS[length])))


if __name__ == "__main__":
    main()
