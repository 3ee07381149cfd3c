"""While nbval runs a notebook, so that none is run twice: its tasks and all folded code, and the peak of its memory.

After a task's cell the folded solution is tried in its place, and answers that are wrong; after any cell, the code folded below
it. All of it runs on copies of the names that the notebook has there. After the last cell the kernel's peak memory is read: it
fits into Binder. (That holds of torch's build for processors, which Binder has: the one for CUDA takes 0.4 GB more for itself.)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from cells import trials

#: What a kernel may take of Binder's 2 GB: JupyterLab needs 0.12 GB, and a kernel above 2 GB is restarted.
LIMIT = 1.6e9
#: What GPT-2 small takes on top of the demo model, with which notebooks run here; tests/test_binder.py measures it.
GPT2_ADDS = 0.75e9
#: Notebooks that a reader can run on GPT-2 small: `MODEL` is read from the environment.
ANY_MODEL = ("03", "04", "05", "07")


#: Peak memory in bytes of the process that evaluates it: on Linux of itself alone, not of what it was forked from.
PEAK = (
    "next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith('VmHWM'))"
    if sys.platform == "linux"
    else "__import__('resource').getrusage(__import__('resource').RUSAGE_SELF).ru_maxrss"
)

#: Which CUDA the torch of the process that evaluates it was built for: None for processors alone.
CUDA = "__import__('torch').version.cuda"


#: Defined in the kernel for a moment: what comes of some code on a copy of the names.
TRY = """
def _try(source):
    import contextlib, io
    import matplotlib.pyplot as plt
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, "folded", "exec"), dict(globals()))
        return ""
    except (AssertionError, TypeError) as error:
        return f"protests: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        plt.close("all")
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any) -> Iterator[None]:
    """Fail a cell whose folded code does not do what it should, and the last one if the kernel took too much memory."""
    yield
    if not hasattr(item, "cell_num"):
        return  # a doctest
    cells = item.parent.nb.cells
    code_cells = [number for number, cell in enumerate(cells) if cell.cell_type == "code"]
    _try_folded_code(item.parent.kernel, cells, code_cells[item.cell_num])
    if item.cell_num == len(code_cells) - 1:
        room = LIMIT - (GPT2_ADDS if item.path.name.startswith(ANY_MODEL) else 0)
        found = _evaluate(item.parent.kernel, {"peak": PEAK, "cuda": CUDA})
        used = int(found["peak"])
        assert used > 0.05e9
        if found["cuda"] == "None":
            assert used < room, f"the kernel took {used / 1e9:.2f} GB, expected less than {room / 1e9:.2f} GB"


def _try_folded_code(kernel: Any, cells: list[Any], number: int) -> None:
    tried = trials(cells, number)
    if not tried:
        return
    said = _evaluate(kernel, {str(k): f"_try({source!r})" for k, (source, _) in enumerate(tried)}, TRY)
    for (source, passes), error in zip(tried, said.values(), strict=True):
        if passes:
            assert error == "''", f"folded code fails with {error}:\n{source}"
        else:
            assert "protests: " in error, f"{error or 'passes'}:\n{source}"


def _evaluate(kernel: Any, expressions: dict[str, str], code: str = "") -> dict[str, str]:
    """Values of expressions in the kernel, as Python writes them."""
    reply = kernel.kc.execute(code, user_expressions=expressions, store_history=False, reply=True, timeout=240)
    found = reply["content"]["user_expressions"]
    return {name: found[name]["data"]["text/plain"] for name in expressions}
