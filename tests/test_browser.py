"""The playground in JupyterLab in a real browser: typed into, clicked on and looked at.

Needs Debian's chromium and the Python package playwright (which downloads no browser here).
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOK = "04_try_your_own_prompts.ipynb"
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian: apt install chromium)"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no playwright (pip install playwright)"),
]

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


def wait_for_server(url: str, server: subprocess.Popen[bytes], seconds: float = 180) -> None:
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The notebook's copy, alone in a folder."""
    (tmp_path / "notebooks").mkdir()
    shutil.copy(REPOSITORY / "notebooks" / NOTEBOOK, tmp_path / "notebooks")
    return tmp_path / "notebooks"


@pytest.fixture
def lab(folder: Path, tmp_path: Path) -> Iterator[str]:
    """A JupyterLab of its own, without the user's settings; yields the address of the notebook."""
    token = secrets.token_hex(8)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    own = {f"JUPYTER_{name}": str(tmp_path / name) for name in names}
    own |= {f"JUPYTERLAB_{name}": str(tmp_path / name) for name in ("SETTINGS_DIR", "WORKSPACES_DIR")}
    news = tmp_path / "SETTINGS_DIR" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')  # no pop-up over the app
    options = [
        "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", "--allow-root",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser",
    ]  # fmt: skip
    with (tmp_path / "lab.log").open("wb") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | own | {"OMP_NUM_THREADS": "1"})
    try:
        wait_for_server(f"http://127.0.0.1:{port}/api/status?token={token}", server)
        yield f"http://127.0.0.1:{port}/doc/tree/{NOTEBOOK}?token={token}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def page(lab: str, tmp_path: Path) -> Iterator[Any]:
    """The notebook, open and run from top to bottom."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=CHROMIUM, args=FLAGS, viewport={"width": 1300, "height": 1600}
        )
        context.set_default_timeout(180_000)
        page = context.pages[0]
        page.goto(lab, wait_until="domcontentloaded")
        page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget")
        page.wait_for_function(READY, arg=NOTEBOOK, timeout=180_000)
        page.evaluate(RUN_ALL)
        page.wait_for_function("() => window.allRan !== undefined", timeout=300_000)
        assert page.evaluate("() => window.allRan") is True
        yield page
        context.close()


def button(page: Any, name: str) -> Any:
    return page.locator(".jupyter-button").filter(has_text=name).first


def colours(page: Any) -> list[str]:
    """Background of each cell of the grid."""
    return page.locator(".widget-gridbox .jupyter-button").evaluate_all(
        "cells => cells.map(cell => getComputedStyle(cell).backgroundColor)"
    )


def picture(page: Any, name: str) -> str:
    """Where a picture of the app comes from; a new picture has a new address."""
    return page.locator(f"img.playground-{name}").get_attribute("src")


def run_and_wait(page: Any) -> None:
    """Press Run and wait until it can be pressed again."""
    button(page, "Run").click()
    page.wait_for_function(
        """() => [...document.querySelectorAll('.jupyter-button')].some(
            b => b.textContent.trim() === 'Run' && !b.disabled)""",
        timeout=180_000,
    )


def press_run_until(page: Any, done: Any, seconds: float = 180) -> None:
    """Press Run, again if a press fell into a run that was still going on, until ``done()``."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "the grid did not change"
        if button(page, "Run").is_enabled():
            button(page, "Run").click()
        time.sleep(2)


def changed(read: Any, before: Any, seconds: float = 180) -> Any:
    """What ``read()`` gives once it no longer gives ``before``."""
    end = time.monotonic() + seconds
    while (now := read()) == before:
        assert time.monotonic() < end, f"still {str(before)[:200]}"
        time.sleep(0.1)
    return now


def test_playground(page: Any, folder: Path) -> None:
    """Run an example; type a prompt and see the grid change; open a head; export; a bad prompt gets its sentence; stop."""
    shots = REPOSITORY / "build" / "browser"
    shots.mkdir(parents=True, exist_ok=True)
    active = page.locator(".jupyter-widgets textarea[rows='9']").first  # the other is for one's own frames
    active.evaluate("area => area.scrollIntoView()")
    active.wait_for()

    button(page, "Run").click()
    page.locator(".widget-gridbox .jupyter-button").nth(47).wait_for(timeout=180_000)
    page.wait_for_function("() => document.querySelector('.widget-gridbox button').title.includes('shift of KL')")
    run_and_wait(page)
    first = colours(page)
    assert len(first) == 48
    assert len(set(first)) > 5

    active.fill(active.input_value() + "\nMary Mary Mary red red red cup cup cup box box old old key")
    press_run_until(page, lambda: colours(page) != first)
    page.get_by_text("active   13 prompts of 15 tokens").wait_for()

    plane, rows = picture(page, "plane"), picture(page, "rows")
    cell = page.locator(".widget-gridbox .jupyter-button").filter(has_text="3.4")
    cell.scroll_into_view_if_needed()
    cell.focus()
    page.keyboard.press("Space")
    changed(lambda: picture(page, "plane"), plane)
    rows = changed(lambda: picture(page, "rows"), rows)
    page.locator(".widget-gridbox .jupyter-button").filter(has_text="5.0").click()
    changed(lambda: picture(page, "rows"), rows)
    page.locator(".jupyter-widgets.widget-vbox").first.screenshot(path=shots / "playground.png")

    button(page, "Save table").click()
    page.get_by_text("Saved: results-playground/heads.csv").wait_for()
    table = pd.read_csv(folder / "results-playground" / "heads.csv")
    assert len(table) == 48
    tooltip = page.locator(".widget-gridbox .jupyter-button").filter(has_text="5.0").get_attribute("title")
    value = table.query("layer == 5 and head == 0").d_kl.item()
    assert float(tooltip.rsplit(": ", 1)[1]) == pytest.approx(value, abs=0.00051), json.dumps(tooltip)

    good = colours(page)
    active.fill("Mary saw a zeppelin\n" + active.input_value())
    page.keyboard.press("Tab")
    page.get_by_text("Active prompt 1: the word 'zeppelin' is not in this model's vocabulary").wait_for()
    run_and_wait(page)
    page.get_by_text("Active prompt 1: the word 'zeppelin' is not in this model's vocabulary").wait_for()
    assert colours(page) == good
    page.locator(".jupyter-widgets.widget-vbox").first.screenshot(path=shots / "bad_prompt.png")

    active.fill("\n".join(["Mary has a ring"] * 2000))
    page.keyboard.press("Tab")
    button(page, "Run").click()
    stop = button(page, "Stop")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.jupyter-button')].some(b => b.textContent.trim() === 'Stop' && !b.disabled)"
    )
    stop.click()
    page.get_by_text("Stopped after ").wait_for()
    assert colours(page) == good
