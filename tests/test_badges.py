"""`make badges`: Binder and Colab links of a repository whose address is only known once it is published."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qs, urlsplit

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
CELL = '"    %pip install --quiet git+https://github.com/OWNER/NAME\\n"'


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("badges", ROOT / "notebooks" / "badges.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """This README beside notebooks of the same names, of which the first installs the package."""
    (tmp_path / "README.md").write_bytes((ROOT / "README.md").read_bytes())
    (tmp_path / "notebooks").mkdir()
    for name in NOTEBOOKS:
        (tmp_path / "notebooks" / name).write_text(f"[{CELL}, π]" if name == NOTEBOOKS[0] else "{}", "utf-8")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def links(readme: str) -> list[str]:
    """Where the links between the markers lead (pictures are not links)."""
    block = readme[readme.index("<!-- badges -->") : readme.index("<!-- /badges -->")]
    return re.findall(r"(?<!svg)\]\((\S+?)\)(?=\s)", re.sub(r"!\[.*?\]\(.*?\)", "picture", block))


def without_block(readme: str) -> str:
    return re.sub(r"(?s)(<!-- badges -->).*(<!-- /badges -->)", r"\1\2", readme)


def test_markers_are_under_the_first_paragraph() -> None:
    """The README's third block is the pair of markers: after title and first paragraph."""
    third = (ROOT / "README.md").read_text().split("\n\n")[2]
    assert third.startswith("<!-- badges -->\n")
    assert third.endswith("\n<!-- /badges -->")


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/ann-b/heads.v2",
        "https://github.com/ann-b/heads.v2.git",
        "https://ann:secret@github.com/ann-b/heads.v2.git",
        "https://github.com/ann-b/heads.v2/",
        "git@github.com:ann-b/heads.v2.git",
        "ssh://git@github.com/ann-b/heads.v2.git",
        "ssh://git@github.com:22/ann-b/heads.v2",
    ],
)
def test_address_of_a_remote(script: ModuleType, address: str) -> None:
    """Each way in which git spells an address on GitHub gives OWNER/NAME, and no user or password."""
    assert script.repository(address) == "ann-b/heads.v2"


@pytest.mark.parametrize(
    "address",
    [
        "https://ann:secret@gitlab.com/ann/heads.git",
        "https://github.com.example.org/ann/heads",
        "git@notgithub.com:ann/heads.git",
        "https://github.com/ann",
        "https://github.com/ann/heads/tree/main",
        "/srv/git/heads",
        "",
    ],
)
def test_other_addresses_are_refused(script: ModuleType, address: str) -> None:
    """Colab opens GitHub only: anything else is refused, without repeating a password."""
    with pytest.raises(ValueError, match=r"expected an address on github\.com.*REPO=") as refused:
        script.repository(address)
    assert "secret" not in str(refused.value)


def test_binder_opens_jupyterlab_on_notebook_01(script: ModuleType, copy: Path) -> None:
    """The first link is Binder's, for this repository and branch, with lab/tree/ and a notebook that exists."""
    assert script.main(["ann/heads", "--root", str(copy)]) == 0
    binder = urlsplit(links((copy / "README.md").read_text())[0])
    assert (binder.netloc, binder.path) == ("mybinder.org", "/v2/gh/ann/heads/main")
    [target] = parse_qs(binder.query, strict_parsing=True)["urlpath"]
    assert target.startswith("lab/tree/notebooks/01_")
    assert (ROOT / target.removeprefix("lab/tree/")).is_file()


def test_colab_opens_each_notebook(script: ModuleType, copy: Path) -> None:
    """Every other link is Colab's, one for each notebook of the repository, in order."""
    assert script.main(["ann/heads", "--branch", "next", "--root", str(copy)]) == 0
    _, *colab = links((copy / "README.md").read_text())
    head = "https://colab.research.google.com/github/ann/heads/blob/next/notebooks/"
    assert colab == [head + name for name in NOTEBOOKS]


def test_twice_is_once(script: ModuleType, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run changes no byte and says so; another address replaces the first; nothing else is touched."""
    before = (copy / "README.md").read_text()
    script.main(["ann/heads", "--root", str(copy)])
    once = {path: path.read_bytes() for path in copy.rglob("*.*")}
    capsys.readouterr()
    assert script.main(["ann/heads", "--root", str(copy)]) == 0
    assert capsys.readouterr().out == "nothing to change\n"
    assert {path: path.read_bytes() for path in copy.rglob("*.*")} == once
    script.main(["eve/tails", "--root", str(copy)])
    after = (copy / "README.md").read_text()
    assert "eve/tails" in after
    assert "ann/heads" not in after
    assert without_block(after) == without_block(before)


def test_notebooks_install_from_the_same_address(script: ModuleType, copy: Path) -> None:
    """OWNER/NAME in a notebook's install line becomes the address, again and again; the rest of the file stays."""
    for repo in ("ann/heads", "eve/tails"):
        script.main([repo, "--root", str(copy)])
        first, *others = (copy / "notebooks" / name for name in NOTEBOOKS)
        assert first.read_text("utf-8") == f"[{CELL}, π]".replace("OWNER/NAME", repo)
        assert {path.read_text() for path in others} == {"{}"}


def test_default_is_the_remote_origin(script: ModuleType, copy: Path) -> None:
    """Without REPO the address is what `git remote get-url origin` says."""
    git(copy, "init")
    git(copy, "remote", "add", "origin", "git@github.com:ann/heads.git")
    assert script.main(["--root", str(copy)]) == 0
    assert "https://mybinder.org/v2/gh/ann/heads/" in (copy / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no remote 'origin'; name the repository with REPO=OWNER/NAME"),
        (["heads"], "expected OWNER/NAME, got 'heads'"),
        (["ann/heads/tree"], "expected OWNER/NAME"),
        (["https://github.com/ann/heads"], "expected OWNER/NAME"),
        (["ann/a b"], "expected OWNER/NAME"),
    ],
)
def test_without_an_address(
    script: ModuleType, copy: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """No remote, or a REPO that is none: status 1, one sentence, README as it was."""
    git(copy, "init")
    assert script.main([*arguments, "--root", str(copy)]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert (copy / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- badges -->",
        "<!-- /badges --> <!-- badges -->",
        "<!-- badges --><!-- badges --><!-- /badges -->",
    ],
)
def test_markers_must_be_a_pair(script: ModuleType, text: str) -> None:
    """Missing, single, reversed or repeated markers are an error, not a guess."""
    with pytest.raises(ValueError, match="once each"):
        script.between_markers(text, "line")
