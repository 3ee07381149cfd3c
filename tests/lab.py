"""A notebook in JupyterLab in a real browser, for the test of the playground and the benchmark of its clicks.

Needs Debian's chromium and the Python package playwright (which downloads no browser here).
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

#: Resolves once the notebook's document is open and its kernel idle and connected.
READY = """name => {
    const widget = window.jupyterapp.shell.currentWidget;
    const session = widget?.context?.sessionContext;
    return widget?.context?.path === name && session?.isReady && session.session?.kernel?.status === 'idle'
        && session.session.kernel.connectionStatus === 'connected';
}"""

#: Runs every cell; the promise's result is true only if none failed.
RUN_ALL = """async () => {
    await window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs');
    window.allRan = undefined;
    window.jupyterapp.commands.execute('notebook:run-all-cells').then(
        ok => { window.allRan = ok === true; }, error => { window.allRan = String(error); });
}"""


@contextmanager
def jupyterlab(notebook: Path, scratch: Path) -> Iterator[str]:
    """A JupyterLab of its own, without the user's settings, on the folder of a notebook; yields the address of that.

    Args:
        notebook: the file.
        scratch: an empty folder for all that JupyterLab keeps.
    """
    token = secrets.token_hex(8)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{name}": str(scratch / name) for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")}
    own |= {f"JUPYTERLAB_{name}": str(scratch / name) for name in ("SETTINGS_DIR", "WORKSPACES_DIR")}
    news = scratch / "SETTINGS_DIR" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')  # no pop-up over the app
    options = [
        "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", "--allow-root",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={notebook.parent}", "--expose-app-in-browser",
    ]  # fmt: skip
    with (scratch / "lab.log").open("wb") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | own | {"OMP_NUM_THREADS": "1"})
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server)
        yield f"http://127.0.0.1:{port}/doc/tree/{notebook.name}?token={token}"
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(url: str, server: subprocess.Popen[bytes], seconds: float = 180) -> None:
    """Until the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, "JupyterLab ended"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)


@contextmanager
def ran_notebook(address: str, name: str, profile: Path, size: Any) -> Iterator[Any]:
    """The page of a notebook that was run from top to bottom; ``page.errors`` gathers what the browser complains of."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=CHROMIUM, args=FLAGS, viewport=size
        )
        context.set_default_timeout(60_000)
        page: Any = context.pages[0]
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
        page.goto(address, wait_until="domcontentloaded")
        page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget")
        page.wait_for_function(READY, arg=name, timeout=180_000)
        page.evaluate(RUN_ALL)
        page.wait_for_function("() => window.allRan !== undefined", timeout=300_000)
        assert page.evaluate("() => window.allRan") is True
        yield page
        context.close()
