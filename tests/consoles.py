"""``python consoles.py ENDS OUT ENDS OUT ...``: a replay of ``old`` for every way in which its streams may end.

Each is a process of its own with real file descriptors, which ends as Python does; but all are forks of this one, so that
what is imported is paid for once. What reaches the console goes to OUT.stdout and OUT.stderr; one line a run has its status.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from typing import TextIO

from matplotlib.figure import Figure

import helpers.results
from helpers.__main__ import main


def write_to(path: str, fd: int) -> None:
    """Let a file descriptor be a file."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT)
    if opened != fd:
        os.dup2(opened, fd)
        os.close(opened)


def redirect(ends: str) -> None:
    """What a shell does for ``>&-``, ``2> /dev/full``, ``2>&1``."""
    for number, to in re.findall(r"(\d?)> ?(\S+)", ends):
        fd = int(number or 1)
        if to == "&-":
            os.close(fd)
        elif to.startswith("&"):
            os.dup2(int(to[1:]), fd)
        else:
            write_to(to, fd)


def stream(fd: int) -> TextIO | None:
    """What Python makes of a file descriptor when it starts: None, if that is closed."""
    try:
        os.fstat(fd)
    except OSError:
        return None
    return open(fd, "w", encoding="utf-8", closefd=False)


def replay(ends: str, out: str) -> int:
    """The command, in a process whose streams are redirected."""
    for fd, name in ((1, "stdout"), (2, "stderr")):
        write_to(f"{out}.{name}", fd)
    redirect(ends)
    sys.stdout, sys.stderr = stream(1), stream(2)  # type: ignore[assignment]
    return main(["run", "--record", "old", "--out", out])


if __name__ == "__main__":
    gc.freeze()  # or each fork copies all memory as it ends, to look for garbage in what was imported
    helpers.results.all_figures = lambda experiment: {"empty": Figure(figsize=(1, 1))}
    for ends, out in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        if (child := os.fork()) == 0:
            sys.exit(replay(ends, out))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
