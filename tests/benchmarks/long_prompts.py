"""Time and memory of `record_attention` on one long prompt, against named alternatives: part of ``make bench``.

On a random model of GPT-2 small's shape and a prompt of T tokens:

    ours     record_attention(model, [prompt], query="END"), the END rows of all heads
    cache    run_with_cache, keeping the full patterns of all layers (T x T weights a head)
    bridge   the forward pass itself: the body as TransformerLens wraps it, keeping nothing
    body     the bare forward pass of the Hugging Face model's body (eager attention), keeping nothing

Times are medians over rounds in which they take turns; ratios are medians of per-round ratios. Peak memory is that of
one pass in a fresh process, after loading, minus what the process held before the pass; "extra" is what is beyond the
bridge's forward pass.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import forget_peak, in_fresh_process, peak_memory, save_model, text_of

LENGTHS, ROUNDS = (128, 256, 512, 1024), 3
NAMES = ("ours", "cache", "bridge", "body")
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

    if name == "bridge":
        return lambda length: model.original_model.transformer(torch.arange(length, device=DEVICE)[None] % 100)

    def cache(length: int) -> object:
        ids = torch.tensor([tokenize_for(model, [text_of(length)])[0].ids], device=DEVICE)
        return model.run_with_cache(ids, names_filter=lambda hook: hook.endswith("attn.hook_pattern"))

    return cache


def clock(run: Callable[[int], object], length: int) -> float:
    """Seconds of one pass."""
    start = time.perf_counter()
    with torch.no_grad():
        run(length)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(name: str, length: int, folder: str) -> int:
    """In a fresh process: MB that one pass takes on top of the loaded model."""
    run = build(name, folder)
    with torch.no_grad():
        run(16)  # what is set up at the first pass stays
        forget_peak()
        before = peak_memory()
        kept = run(length)
        del kept
    return peak_memory() - before


def main() -> None:
    if len(sys.argv) == 4:
        print(peak(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
        return
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        peaks = {n: [int(in_fresh_process(__file__, n, length, folder)) for length in LENGTHS] for n in NAMES}
        runs = {name: build(name, folder) for name in NAMES}
        for run in runs.values():
            clock(run, 16)
        rounds = [[{n: clock(run, length) for n, run in runs.items()} for _ in range(ROUNDS)] for length in LENGTHS]
    report(rounds, peaks)
    draw({n: [statistics.median(r[n] for r in some) for some in rounds] for n in NAMES}, peaks)


def report(rounds: list[list[dict[str, float]]], peaks: dict[str, list[int]]) -> None:
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"random GPT-2-small-shaped model, one prompt of T tokens, {where}")
    print(
        "   T  "
        + "".join(f"{name + ' s':>10}" for name in NAMES)
        + "  ours/bridge  cache/ours  bridge MB  extra MB: ours  cache"
    )
    for i, (length, some) in enumerate(zip(LENGTHS, rounds, strict=True)):
        seconds = "".join(f"{statistics.median(r[name] for r in some):10.3f}" for name in NAMES)
        to_bridge = statistics.median(r["ours"] / r["bridge"] for r in some)
        to_ours = statistics.median(r["cache"] / r["ours"] for r in some)
        ours, cache, bridge, _ = (peaks[name][i] for name in NAMES)
        extra = f"{bridge:9}  {ours - bridge:14}  {cache - bridge:5}"
        print(f"{length:4}  {seconds}  {to_bridge:11.2f}  {to_ours:10.2f}  {extra}")


def draw(times: dict[str, list[float]], peaks: dict[str, list[int]]) -> None:
    """Seconds and memory over T."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from helpers.plots.style import BLACK, BLUE, GREY, VERMILION, use_style

    use_style()
    colours = dict(zip(NAMES, (VERMILION, BLUE, BLACK, GREY), strict=True))
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.6))
    for ax, lines, title in (
        (left, times, "seconds a prompt"),
        (right, peaks, "peak memory beyond the loaded model, MB"),
    ):
        for name, values in lines.items():
            ax.plot(LENGTHS, values, "o-", color=colours[name], label=name)
        ax.set(title=title, xlabel="tokens in the prompt, T", xticks=LENGTHS, ylim=(0, None))
        ax.legend()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT)
    print(f"plot written to {PLOT.relative_to(Path.cwd()) if PLOT.is_relative_to(Path.cwd()) else PLOT}")


if __name__ == "__main__":
    main()
