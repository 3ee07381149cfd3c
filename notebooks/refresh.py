"""Re-execute notebooks in place, each from a cleared copy in a fresh kernel: ``make notebooks``.

What differs from run to run is left out (timestamps, widget state); each figure gets the alternative text that its cell
keeps in ``metadata.alt``. A notebook is replaced only if every cell ran.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

WIDGET = "application/vnd.jupyter.widget-view+json"


def refresh(path: Path, timeout: int = 600) -> None:
    """Execute one notebook and write it back, whole or not at all."""
    notebook = nbformat.read(path, as_version=4)
    clear(notebook)
    client = NotebookClient(
        notebook, timeout=timeout, record_timing=False, resources={"metadata": {"path": path.parent}},
        iopub_timeout=60, raise_on_iopub_timeout=True,
    )  # fmt: skip
    client.execute()
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if counts != list(range(1, len(counts) + 1)):
        raise RuntimeError(f"{path}: expected cells run from 1 to {len(counts)}, got {counts}; it is left as it was")
    tidy(notebook)
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    part.replace(path)


def clear(notebook: NotebookNode) -> None:
    """Forget every earlier output and all metadata but the kernel's name."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def tidy(notebook: NotebookNode) -> None:
    """Drop widget views and kernel details; describe the figures."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}) and "alt" in cell.metadata:
                    output.metadata["image/png"] = {"alt": cell.metadata.alt}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of this folder")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for path in parser.parse_args().notebooks or sorted(Path(__file__).parent.glob("*.ipynb")):
        print(path, flush=True)
        refresh(path)


if __name__ == "__main__":
    main()
