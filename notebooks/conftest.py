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


#: Peak memory in bytes of the process that evaluates it: on Linux of itself alone, not of what it was forked from.
PEAK = (
    "next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith('VmHWM'))"
    if sys.platform == "linux"
    else "__import__('resource').getrusage(__import__('resource').RUSAGE_SELF).ru_maxrss"
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any) -> Iterator[None]:
    """Fail the last cell of a notebook whose kernel took more."""
    yield
    if not hasattr(item, "cell_num"):
        return  # a doctest
    notebook = item.parent
    code_cells = [cell for cell in notebook.nb.cells if cell.cell_type == "code"]
    if item.cell_num == len(code_cells) - 1:
        room = LIMIT - (GPT2_ADDS if item.path.name.startswith(ANY_MODEL) else 0)
        reply = notebook.kernel.kc.execute(
            "", user_expressions={"peak": PEAK}, store_history=False, reply=True, timeout=60
        )
        used = int(reply["content"]["user_expressions"]["peak"]["data"]["text/plain"])
        assert 0.05e9 < used < room, f"the kernel took {used / 1e9:.2f} GB, expected less than {room / 1e9:.2f} GB"
