"""Time and memory of `record_attention`, against named alternatives in the same run: part of ``make bench``.

On a random model of SmolLM2-135M's shape (30 layers x 9 heads, 3 key/value heads, d_model 576):

    ours     record_attention(model, texts): the END rows of all heads
    body     the forward pass of the model's body on fused attention (sdpa), keeping nothing
    eager    the same pass on eager attention, with (T, T) weights
    cache    TransformerLens's run_with_cache of the attention patterns, (T, T) weights of every head

on one prompt of T tokens (eager and cache up to T = 1,024: at 4,096 the cache would be 18 GB), and on 100 prompts of 15
tokens. Times are medians over rounds in which they take turns;
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
from common import forget_peak, in_fresh_process, peak_memory, text_of

from helpers import record_attention
from helpers.demo.train import build_tokenizer
from helpers.models.model import LanguageModel

LENGTHS = (1024, 4096)
N, SHORT, BATCH = 100, 15, 32
ROUNDS = {1024: 5, 4096: 3, SHORT: 15}
PASSES = {1024: 5, 4096: 1}  # for memory
NAMES = ("ours", "body", "eager", "cache")
LEAN, SQUARE = NAMES[:2], 1024  # those that make no (T, T) matrix, and the longest prompt for the others
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = {
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576,
    "intermediate_size": 1536, "vocab_size": 49_152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip

Run = Callable[[list[str]], object]


def load() -> LanguageModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, attn_implementation="eager")).to(DEVICE)
    return LanguageModel(model, build_tokenizer(), "SmolLM2-135M's shape")


def runs_of(model: LanguageModel) -> dict[str, Run]:
    """What is compared, as functions of texts of one length."""

    def batches(texts: list[str]) -> tuple[torch.Tensor, ...]:
        ids = [[model.tokenizer.bos_token_id, *model.tokenizer(text)["input_ids"]] for text in texts]
        return torch.tensor(ids, device=DEVICE).split(BATCH)

    def body(implementation: str) -> Run:
        def run(texts: list[str]) -> None:
            model.hf.set_attn_implementation(implementation)
            for ids in batches(texts):
                model.hf.model(ids, use_cache=False)
            model.hf.set_attn_implementation("eager")

        return run

    def cache(texts: list[str]) -> Any:
        def patterns(hook: str) -> bool:
            return hook.endswith("attn.hook_pattern")

        return [model.lens.run_with_cache(ids, names_filter=patterns) for ids in batches(texts)]

    return {
        "ours": lambda texts: record_attention(model, texts, batch_size=BATCH, progress=False),
        "body": body("sdpa"),
        "eager": body("eager"),
        "cache": cache,
    }


def clock(run: Run, texts: list[str]) -> float:
    """Seconds of one pass over some texts."""
    start = time.perf_counter()
    with torch.no_grad():
        run(texts)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - start


def take_turns(runs: dict[str, Run], texts: list[str], rounds: int) -> list[dict[str, float]]:
    """Seconds of each in each round; every second round begins with the other."""
    orders = [list(runs), list(runs)[::-1]]
    return [{name: clock(runs[name], texts) for name in orders[i % 2]} for i in range(rounds)]


def peak(name: str, length: int) -> float:
    """In a fresh process: MB that a pass takes on top of the loaded model."""
    run = runs_of(load())[name]
    with torch.no_grad():
        run([text_of(SHORT)])  # what is set up at the first pass stays
        return statistics.median(one_peak(run, [text_of(length)]) for _ in range(PASSES[length]))


def one_peak(run: Run, texts: list[str]) -> float:
    forget_peak()
    before = peak_memory()
    kept = run(texts)
    del kept
    return peak_memory() - before


def line(what: str, rounds: list[dict[str, float]]) -> str:
    """Medians of seconds, and of ratios to the body."""
    seconds = [statistics.median(r[name] for r in rounds) for name in rounds[0]]
    ratio = statistics.median(r["ours"] / r["body"] for r in rounds)
    return f"{what:>22}" + "".join(f"  {s:8.3f}" for s in seconds) + blank(len(seconds)) + f"  {ratio:9.3f}"


def blank(filled: int) -> str:
    """Space for those that are left out."""
    return " " * 10 * (len(NAMES) - filled)


def names_at(length: int) -> tuple[str, ...]:
    return NAMES if length <= SQUARE else LEAN


def main() -> None:
    if len(sys.argv) == 3:
        print(peak(sys.argv[1], int(sys.argv[2])))
        return
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"random model of SmolLM2-135M's shape, {where}")
    header = "".join(f"  {name:>8}" for name in NAMES) + "  ours/body"
    print(f"{'MB beyond the weights:':>22}{header}")
    for length in LENGTHS:
        found = {name: float(in_fresh_process(__file__, name, length, returned=2**16)) for name in names_at(length)}
        sizes = "".join(f"  {size:8.2f}" for size in found.values()) + blank(len(found))
        print(f"{f'1 prompt, T = {length:,}':>22}{sizes}  {found['ours'] / found['body']:9.3f}")
    runs = runs_of(load())
    print(f"{'seconds:':>22}{header}")
    for name, n, length in (
        *((f"1 prompt, T = {t:,}", 1, t) for t in LENGTHS),
        (f"{N} prompts, T = {SHORT}", N, SHORT),
    ):
        texts = [text_of(length, i) for i in range(n)]
        some = {key: runs[key] for key in names_at(length)}
        for run in some.values():
            clock(run, [text_of(SHORT)])
        print(line(name, take_turns(some, texts, ROUNDS[length])), flush=True)


if __name__ == "__main__":
    main()
