"""Say where the repository is published: ``make badges REPO=OWNER/NAME``.

The one place that holds the address is the table ``[tool.published]`` of pyproject.toml. What follows from it is written with
it: the links at the top of README.md, the line with which a notebook installs the package in Colab, and CITATION.cff. The book
reads the table itself. While the address is empty, none of them names one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Where Binder starts.
LANDING = "binder/landing.md"
START, END = "<!-- badges -->", "<!-- /badges -->"
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
#: https://github.com/OWNER/NAME(.git), also with a user or as ssh:// or git://; git@github.com:OWNER/NAME(.git).
REMOTE = re.compile(
    rf"(?:(?:https|ssh|git)://(?:[^@/]+@)?github\.com(?::\d+)?/|[^@/:]+@github\.com:)(?P<owner>{NAME})/(?P<name>{NAME})/?"
)
#: What stands where the address is, each on a line of its own (in a notebook, as JSON has it).
TABLE = re.compile(r'(?m)^\[tool\.published\].*\nrepository = ".*".*\nbranch = ".*".*$')
SOURCE = re.compile(r'(?<=SOURCE = \\")[^"\\]*(?=\\")')
CODE = re.compile(r"(?m)^(?:repository-code: .*\n)?authors:$")


def address(root: Path = ROOT) -> tuple[str, str]:
    """OWNER/NAME, which is empty until it is known, and the branch."""
    table = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["published"]
    return table["repository"], table["branch"]


def repository(remote: str) -> str:
    """OWNER/NAME of a remote address on GitHub.

    >>> repository("git@github.com:ann/heads.git")
    'ann/heads'
    """
    if found := REMOTE.fullmatch(remote):
        return f"{found['owner']}/{found['name'].removesuffix('.git')}"
    shown = re.sub(r"//[^@/]+@", "//", remote)  # a password may stand there
    raise ValueError(f"expected an address on github.com, got {shown!r}; name it with REPO=OWNER/NAME")


def origin(folder: Path = ROOT) -> str:
    """The address that git has for origin."""
    done = subprocess.run(
        ["git", "-C", str(folder), "remote", "get-url", "origin"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"{folder} has no remote 'origin'; name the repository with REPO=OWNER/NAME")
    return done.stdout.strip()


def site(repo: str) -> str:
    """Where GitHub publishes the book.

    >>> site("Ann/heads")
    'https://ann.github.io/heads/'
    """
    owner, name = repo.split("/")
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def links(repo: str, branch: str, notebooks: list[str]) -> str:
    """One line of Markdown: Binder, each notebook in Colab (the first with a picture), the book."""
    first, *others = notebooks
    binder = f"https://mybinder.org/v2/gh/{repo}/{branch}?urlpath=lab/tree/{LANDING}"
    colab = f"https://colab.research.google.com/github/{repo}/blob/{branch}/notebooks"
    found = [
        f"[![Open the notebooks in Binder](https://mybinder.org/badge_logo.svg)]({binder})",
        f"[![Open notebook 01 in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}/{first})",
        *(f"[{name[:2]} in Colab]({colab}/{name})" for name in others),
        f"[Read as a book]({site(repo)})",
    ]
    return " ".join(found)


def between_markers(text: str, line: str) -> str:
    """The text with the line, and nothing else, between the two markers."""
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"expected {START} and, after it, {END}, once each")
    return text[: text.index(START) + len(START)] + "\n" + (f"{line}\n" if line else "") + text[text.index(END) :]


def once(pattern: re.Pattern[str], new: str, text: str, name: str) -> str:
    """The text with its one match of a pattern replaced."""
    changed, found = pattern.subn(lambda _: new, text)
    if found != 1:
        raise ValueError(f"{name}: expected one place for the address, got {found}")
    return changed


def with_address(root: Path, repo: str, branch: str) -> dict[Path, str]:
    """Every file that names the address, as it is with this one; without any address if it is empty."""
    notebooks = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
    readme, project, citation = (root / name for name in ("README.md", "pyproject.toml", "CITATION.cff"))
    text = {path: path.read_text("utf-8") for path in (readme, project, citation, *notebooks)}
    line = links(repo, branch, [path.name for path in notebooks]) if repo else ""
    table = f'[tool.published]\nrepository = "{repo}"\nbranch = "{branch}"'
    code = f'repository-code: "https://github.com/{repo}"\n' if repo else ""
    source = f"git+https://github.com/{repo}@{branch}" if repo else ""
    return {
        readme: between_markers(text[readme], line),
        project: once(TABLE, table, text[project], project.name),
        citation: once(CODE, f"{code}authors:", text[citation], citation.name),
        **{path: once(SOURCE, source, text[path], path.name) for path in notebooks},
    }


def write(root: Path, repo: str, branch: str) -> list[Path]:
    """Bring all of them up to date; the files that changed."""
    if repo and not re.fullmatch(f"{NAME}/{NAME}", repo):
        raise ValueError(f"expected OWNER/NAME, got {repo!r}")
    if not re.fullmatch(r"[\w./-]+", branch, re.ASCII):
        raise ValueError(f"expected the name of a branch, got {branch!r}")
    new = with_address(root, repo, branch)
    changed = [path for path, text in new.items() if text != path.read_text("utf-8")]
    for path in changed:
        path.write_text(new[path], "utf-8", newline="\n")
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Status 0, or 1 and one sentence that says what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", nargs="?", metavar="OWNER/NAME", help="default: from git's remote 'origin'")
    parser.add_argument("--branch", help="default: the one that pyproject.toml names")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of README.md; default: this repository")
    options = parser.parse_args(arguments)
    try:
        repo = options.repo or repository(origin(options.root))
        changed = write(options.root, repo, options.branch or address(options.root)[1])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"written: {path}" for path in changed) or "nothing to change")
    print(f"{site(repo)} is there once the repository's settings say: Pages, Source: GitHub Actions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
