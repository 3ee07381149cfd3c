"""Time and peak memory of `record_attention`, against named alternatives in the same run: ``make bench``.

On a random model of GPT-2 small's shape and 100 prompts of 15 tokens:

    ours     record_attention(model, prompts), the END rows of all heads
    loop     one forward pass a prompt with ``run_with_cache`` (every activation), keeping the END rows
    body     the bare forward pass of the Hugging Face model's body on the same batches, keeping nothing

Times are medians over rounds in which the three take turns; ratios are medians of per-round ratios. Peak memory is
that of a whole fresh process that does one of the three.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import in_fresh_process, peak_memory, save_model, text_of
from transformers import GPT2Model

ROUNDS, PROMPTS, LENGTH, BATCH = 5, 100, 15, 32


def build(folder: Path) -> dict[str, Callable[[], object]]:
    """The three things to time, on one model."""
    from helpers import load_model, record_attention

    model = load_model(str(folder), device="cpu")
    body = GPT2Model.from_pretrained(folder).eval()
    texts = [text_of(LENGTH, i) for i in range(PROMPTS)]
    record = record_attention(model, texts, progress=False)
    ids = torch.tensor([prompt.ids for prompt in record.prompts])

    def ours() -> object:
        return record_attention(model, texts, batch_size=BATCH, progress=False)

    def loop() -> object:
        with torch.no_grad():
            caches = (model.run_with_cache(row[None])[1] for row in ids)
            return [[c[f"blocks.{layer}.attn.hook_pattern"][0, :, -1].clone() for layer in range(12)] for c in caches]

    def bare() -> object:
        with torch.no_grad():
            return [body(chunk) and None for chunk in ids.split(BATCH)]

    return {"ours": ours, "loop": loop, "body": bare}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_model(Path(scratch))
        if len(sys.argv) == 2:
            return one(sys.argv[1], folder)
        runs = build(folder)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
        peaks = {name: int(in_fresh_process(__file__, name)) for name in runs}
    report(times, peaks)


def one(name: str, folder: Path) -> None:
    """In a fresh process: do one of the three, print the peak memory of the process in MB."""
    build(folder)[name]()
    print(peak_memory())


def report(times: dict[str, list[float]], peaks: dict[str, int]) -> None:
    print(f"random GPT-2-small-shaped model, {PROMPTS} prompts of {LENGTH} tokens, {torch.get_num_threads()} threads")
    for name, seconds in times.items():
        print(f"{name:6} median {statistics.median(seconds):6.2f} s   peak memory of the process {peaks[name]:5} MB")
    for other, sentence in (
        ("loop", "ours is {:.1f} x faster than the loop"),
        ("body", "ours takes {:.2f} x the body"),
    ):
        ratios = [a / b for a, b in zip(times["ours"], times[other], strict=True)]
        ratio = statistics.median(ratios)
        print(sentence.format(1 / ratio if other == "loop" else ratio))


if __name__ == "__main__":
    main()
