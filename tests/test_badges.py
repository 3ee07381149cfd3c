"""`make badges`: the address of the repository, which is only known once it is published, in one place and what follows from it."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
#: Every file that names the address or could.
FILES = ("README.md", "pyproject.toml", "CITATION.cff", *(f"notebooks/{name}" for name in NOTEBOOKS))


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
    """The files that name the address."""
    (tmp_path / "notebooks").mkdir()
    for name in FILES:
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def install_cell(path: Path) -> str:
    """The cell that installs the package in Colab: the first code cell."""
    return next(str(cell.source) for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


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


# What is committed, and the way there and back


def test_what_is_committed_agrees_with_the_one_place(script: ModuleType, copy: Path) -> None:
    """Writing the address that pyproject.toml has changes no file: none names another one, and none a part of it."""
    assert script.write(copy, *script.address(ROOT)) == []
    assert contents(copy) == contents(ROOT)


def test_there_and_back(script: ModuleType, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Set, set again, set to another, taken away: each file is as it was, and is only touched where the address stands."""
    script.write(copy, "", "main")
    without = contents(copy)
    assert not re.search(rb"mybinder\.org/v2|colab\.research|git\+https|OWNER/NAME\)", b"".join(without.values()))
    assert script.main(["ann/heads", "--root", str(copy)]) == 0
    once = contents(copy)
    assert {name for name in FILES if once[name] != without[name]} == set(FILES)
    assert script.address(copy) == ("ann/heads", "main")
    capsys.readouterr()
    assert script.main(["ann/heads", "--root", str(copy)]) == 0
    assert capsys.readouterr().out.startswith("nothing to change\nhttps://ann.github.io/heads/ ")
    assert contents(copy) == once
    script.main(["eve/tails", "--branch", "next", "--root", str(copy)])
    other = contents(copy)
    assert [name for name in FILES if b"ann" in other[name] and b"ann/heads" in other[name]] == []
    assert without_block(other["README.md"].decode()) == without_block(without["README.md"].decode())
    script.write(copy, "", "main")
    assert contents(copy) == without


def test_the_branch_stays(script: ModuleType, copy: Path) -> None:
    """A branch that was named once is that of the next address, too."""
    script.main(["ann/heads", "--branch", "next", "--root", str(copy)])
    assert script.main(["eve/tails", "--root", str(copy)]) == 0
    assert script.address(copy) == ("eve/tails", "next")
    assert all("/next" in link for link in links((copy / "README.md").read_text())[:-1])


# Where the links lead


def test_binder_opens_the_landing_page(script: ModuleType, copy: Path) -> None:
    """The first link is Binder's, for this repository and branch, with lab/tree/ and a page that exists."""
    assert script.main(["ann/heads", "--branch", "main", "--root", str(copy)]) == 0
    binder = urlsplit(links((copy / "README.md").read_text())[0])
    assert (binder.netloc, binder.path) == ("mybinder.org", "/v2/gh/ann/heads/main")
    [target] = parse_qs(binder.query, strict_parsing=True)["urlpath"]
    assert target == f"lab/tree/{script.LANDING}"
    assert (ROOT / script.LANDING).is_file()


def test_colab_opens_each_notebook(script: ModuleType, copy: Path) -> None:
    """Then one link to Colab for each notebook of the repository, in order; the last is the book's."""
    assert script.main(["ann/heads", "--branch", "next", "--root", str(copy)]) == 0
    _, *colab, book = links((copy / "README.md").read_text())
    head = "https://colab.research.google.com/github/ann/heads/blob/next/notebooks/"
    assert colab == [head + name for name in NOTEBOOKS]
    assert book == "https://ann.github.io/heads/"
    assert script.site("Ann/ann.github.io") == "https://ann.github.io/"


def test_how_to_cite(script: ModuleType, copy: Path) -> None:
    """CITATION.cff has the repository's address on a line of its own, once."""
    script.main(["ann/heads", "--root", str(copy)])
    lines = (copy / "CITATION.cff").read_text().splitlines()
    assert [line for line in lines if "ann/heads" in line] == ['repository-code: "https://github.com/ann/heads"']


# The cell that installs the package

#: Run the cell in IPython as Colab would: the package is there or not, pip (a stub) installs it or fails.
IPYTHON = """
import importlib.util, json, sys, types
from IPython.core.interactiveshell import InteractiveShell
source, cases = json.load(sys.stdin)
shell, said = InteractiveShell.instance(), []
for there, colab, network in cases:
    state, asked = {"there": there}, []
    importlib.util.find_spec = lambda name: state["there"] or None
    def pip(line):
        asked.append(line)
        state["there"] = network
    shell.register_magic_function(pip, "line", "pip")
    sys.modules.pop("google.colab", None)
    if colab:
        sys.modules["google.colab"] = types.ModuleType("google.colab")
    shell.showtraceback = lambda *args, **kwargs: None
    error = shell.run_cell(source).error_in_exec
    said.append([asked, error and f"{type(error).__name__}: {error}"])
print(json.dumps(said))
"""
INSTALL = ["install --quiet git+https://github.com/ann/heads@main"]
MISSING = "RuntimeError: No package helpers here: get the repository and run `make lab` there."


@pytest.mark.parametrize(
    ("repo", "expected"),
    [
        ("", [([], None), ([], None), ([], MISSING), ([], MISSING), ([], MISSING)]),
        ("ann/heads", [([], None), ([], None), (INSTALL, None), (INSTALL, MISSING), ([], MISSING)]),
    ],
    ids=["no address", "with an address"],
)
def test_the_cell_that_installs(
    script: ModuleType, copy: Path, repo: str, expected: list[tuple[list[str], str | None]]
) -> None:
    """Nothing where the package is; pip in Colab if the address is known; else, or if pip fails, one sentence, and no pip."""
    script.write(copy, repo, "main")
    [source] = {install_cell(copy / "notebooks" / name) for name in NOTEBOOKS}
    cases = [(True, False, True), (True, True, True), (False, True, True), (False, True, False), (False, False, True)]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(IPYTHON)], input=json.dumps([source, cases]), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [tuple(case) for case in json.loads(done.stdout)] == expected


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
        (["ann/heads", "--branch", 'a"b'], "expected the name of a branch, got 'a\"b'"),
    ],
)
def test_without_an_address(
    script: ModuleType, copy: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """No remote, or a REPO or BRANCH that is none: status 1, one sentence, all files as they were."""
    git(copy, "init")
    assert script.main([*arguments, "--root", str(copy)]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert contents(copy) == contents(ROOT)


@pytest.mark.parametrize("name", FILES)
def test_one_place_that_is_lost_stops_all(
    script: ModuleType, copy: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A file in which the address has no place: status 1, its name or the markers, and no other file is written."""
    (copy / name).write_text(
        "{}" if name.endswith(".ipynb") else "[tool.published]\nbranch = 'main'\nrepository = ''\n"
    )
    before = contents(copy)
    assert script.main(["ann/heads", "--root", str(copy)]) == 1
    said = capsys.readouterr().err
    assert "once each" in said if name == "README.md" else f"{Path(name).name}: expected one place" in said
    assert contents(copy) == before


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
