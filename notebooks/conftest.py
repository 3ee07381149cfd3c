"""While nbval runs a notebook: the peak of its kernel's memory, read after its last cell, fits into Binder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

#: What a kernel may take of Binder's 2 GB: JupyterLab needs 0.12 GB, and a kernel above 2 GB is restarted.
LIMIT = 1.6e9
#: What GPT-2 small takes on top of the demo model, with which notebooks run here; tests/test_binder.py measures it.
GPT2_ADDS = 0.75e9
#: Notebooks that a reader can run on GPT-2 small: `MODEL` is read from the environment.
ANY_MODEL = ("03", "04")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any) -> Iterator[None]:
    """Fail the last cell of a notebook whose kernel took more."""
    yield
    notebook = item.parent
    code_cells = [cell for cell in notebook.nb.cells if cell.cell_type == "code"]
    if item.cell_num == len(code_cells) - 1:
        room = LIMIT - (GPT2_ADDS if item.path.name.startswith(ANY_MODEL) else 0)
        used = peak(notebook.kernel.kc)
        assert 0.05e9 < used < room, f"the kernel took {used / 1e9:.2f} GB, expected less than {room / 1e9:.2f} GB"


def peak(client: Any) -> int:
    """Peak memory of a kernel in bytes, by its own account."""
    ask = {"peak": "__import__('resource').getrusage(__import__('resource').RUSAGE_SELF).ru_maxrss"}
    reply = client.execute("", user_expressions=ask, store_history=False, reply=True, timeout=60)
    unit = 1 if sys.platform == "darwin" else 1024
    return int(reply["content"]["user_expressions"]["peak"]["data"]["text/plain"]) * unit
