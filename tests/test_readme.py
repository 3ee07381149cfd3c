"""Following the README works: its Python runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The example prints a report with its note about lengths."""
    exec(block, {})
    said = capsys.readouterr().out
    assert "Heads that shift most" in said
    assert "differ in length" in said


def test_make_targets_exist() -> None:
    """Every `make target` that the README names is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z0-9-]+)", README)) <= targets


def test_local_links_lead_somewhere() -> None:
    """Every relative link and picture is a file of the repository."""
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
