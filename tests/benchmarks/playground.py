"""How long a reader waits after a click on a head, in a real browser: part of ``make bench``.

SmolLM2's shipped rows (270 heads, 32 pairs) in JupyterLab; a click on 20 heads in turn, each timed from the click to the frame in
which the strips of that head stand beside the grid. Goal: a median below 0.3 s.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lab import CHROMIUM, jupyterlab, ran_notebook

GOAL = 0.3
APP = 'from helpers.widgets import Playground\n\nPlayground("smollm2").view'
#: Milliseconds from a click on a head to the frame that shows its strips.
CLICK = """head => new Promise(resolve => {
    const start = performance.now();
    const shown = () => [...document.querySelectorAll('.ahd-strip')].some(
        strip => strip.getAttribute('aria-label').startsWith(`head ${head.join('.')},`));
    const look = () => shown() ? resolve(performance.now() - start) : requestAnimationFrame(look);
    document.querySelector(`.ahd-cell[data-at="${head.join(',')}"]`).click();
    look();
})"""


def main() -> None:
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        return print("clicks: no chromium or no playwright here, not measured")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        seconds = clicks(Path(folder))
    median, slowest = statistics.median(seconds), max(seconds)
    print(
        f"head click to picture, {len(seconds)} clicks: median {median:.3f} s, slowest {slowest:.3f} s (goal {GOAL} s)"
    )


def clicks(folder: Path, n: int = 20) -> list[float]:
    """Seconds of each of n clicks, every time on another head."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(APP)])
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    (folder / "lab").mkdir()
    nbformat.write(notebook, folder / "clicks.ipynb")
    size = {"width": 1300, "height": 1000}
    with (
        jupyterlab(folder / "clicks.ipynb", folder / "lab") as address,
        ran_notebook(address, "clicks.ipynb", folder / "profile", size) as page,
    ):
        page.locator(".ahd-cell").nth(269).wait_for()
        return [page.evaluate(CLICK, [i, i % 9]) / 1000 for i in range(n)]


if __name__ == "__main__":
    main()
