"""Time and memory of `record_attention` on one long prompt, against named alternatives: part of ``make bench``.

On a random model of GPT-2 small's shape and a prompt of T tokens:

    ours     record_attention(model, [prompt], query="END"), the END rows of all heads
    cache    run_with_cache, keeping the full patterns of all layers (T x T weights a head)
    body     the bare forward pass of the Hugging Face model's body (eager attention), keeping nothing

Each number is from a fresh process: the median time of some rounds, and the peak memory of one round after loading.
Weights and libraries are in all three peaks; "extra" is what is beyond the body's.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import forget_peak, in_fresh_process, peak_memory, save_model, text_of

LENGTHS, ROUNDS = (128, 256, 512, 1024), 3
NAMES = ("ours", "cache", "body")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PLOT = Path(__file__).parents[2] / "build" / "long_prompts.png"


def build(name: str, folder: str) -> Callable[[int], object]:
    """One of the three, as a function of the prompt's length."""
    from helpers import load_model, record_attention
    from helpers.attention.capture import tokenize_for

    if name == "body":
        from transformers import GPT2Model

        body = GPT2Model.from_pretrained(folder, attn_implementation="eager").eval().to(DEVICE)
        return lambda length: body(torch.arange(length, device=DEVICE)[None] % 100, use_cache=False)
    model = load_model(folder, device=DEVICE)
    if name == "ours":
        return lambda length: record_attention(model, [text_of(length)], query="END", progress=False)

    def cache(length: int) -> object:
        ids = torch.tensor([tokenize_for(model, [text_of(length)])[0].ids], device=DEVICE)
        return model.run_with_cache(ids, names_filter=lambda hook: hook.endswith("attn.hook_pattern"))

    return cache


def measure(name: str, length: int, folder: str) -> dict[str, float]:
    """Median seconds and peak MB of one of the three, in this process."""
    run, seconds = build(name, folder), []
    with torch.no_grad():
        run(16)  # what is set up at the first pass is not timed
        forget_peak()
        for _ in range(ROUNDS):
            start = time.perf_counter()
            kept = run(length)
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
            del kept
    return {"seconds": statistics.median(seconds), "peak": peak_memory()}


def main() -> None:
    if len(sys.argv) == 4:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
        return
    with tempfile.TemporaryDirectory() as scratch:
        save_model(Path(scratch))
        found = {
            name: [json.loads(in_fresh_process(__file__, name, length, scratch)) for length in LENGTHS]
            for name in NAMES
        }
    times = {name: [one["seconds"] for one in found[name]] for name in NAMES}
    extra = {
        name: [one["peak"] - body["peak"] for one, body in zip(found[name], found["body"], strict=True)]
        for name in NAMES[:2]
    }
    report(times, extra, [one["peak"] for one in found["body"]])
    draw(times, extra)


def report(times: dict[str, list[float]], extra: dict[str, list[float]], body: list[float]) -> None:
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"random GPT-2-small-shaped model, one prompt of T tokens, {where}; memory in MB beyond the body's peak")
    print("   T   ours s  cache s   body s   ours/body  cache/ours   body peak  ours extra  cache extra")
    for i, length in enumerate(LENGTHS):
        ours, cache, bare = (times[name][i] for name in NAMES)
        print(
            f"{length:4}  {ours:7.3f}  {cache:7.3f}  {bare:7.3f}   {ours / bare:9.2f}  {cache / ours:10.2f}   "
            f"{body[i]:9}  {extra['ours'][i]:10}  {extra['cache'][i]:11}"
        )


def draw(times: dict[str, list[float]], extra: dict[str, list[float]]) -> None:
    """Seconds and extra memory over T."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from helpers.plots.style import BLUE, GREY, VERMILION, use_style

    use_style()
    colours = dict(zip(NAMES, (VERMILION, BLUE, GREY), strict=True))
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.6))
    for ax, lines, title in ((left, times, "seconds a prompt"), (right, extra, "memory beyond the bare pass, MB")):
        for name, values in lines.items():
            ax.plot(LENGTHS, values, "o-", color=colours[name], label=name)
        ax.set(title=title, xlabel="tokens in the prompt, T", xticks=LENGTHS, ylim=(min(0, *lines["ours"]), None))
        ax.legend()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT)
    print(f"plot written to {PLOT.relative_to(Path.cwd()) if PLOT.is_relative_to(Path.cwd()) else PLOT}")


if __name__ == "__main__":
    main()
