"""Write the Binder and Colab links into README.md: ``make badges`` (REPO=OWNER/NAME).

Both need the repository's own address on GitHub, so they are made from ``git remote get-url origin`` and stand between
two marker comments. A notebook that installs the package in Colab does it from the same address.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- badges -->", "<!-- /badges -->"
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
#: https://github.com/OWNER/NAME(.git), also with a user or as ssh:// or git://; git@github.com:OWNER/NAME(.git).
ADDRESS = re.compile(
    rf"(?:(?:https|ssh|git)://(?:[^@/]+@)?github\.com(?::\d+)?/|[^@/:]+@github\.com:)(?P<owner>{NAME})/(?P<name>{NAME})/?"
)
INSTALL = re.compile(rf"git\+https://github\.com/{NAME}/{NAME}")


def repository(remote: str) -> str:
    """OWNER/NAME of a remote address on GitHub.

    >>> repository("git@github.com:ann/heads.git")
    'ann/heads'
    """
    if found := ADDRESS.fullmatch(remote):
        return f"{found['owner']}/{found['name'].removesuffix('.git')}"
    address = re.sub(r"//[^@/]+@", "//", remote)  # a password may stand there
    raise ValueError(f"expected an address on github.com, got {address!r}; name it with REPO=OWNER/NAME")


def origin(folder: Path = ROOT) -> str:
    """The address that git has for origin."""
    done = subprocess.run(
        ["git", "-C", str(folder), "remote", "get-url", "origin"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"{folder} has no remote 'origin'; name the repository with REPO=OWNER/NAME")
    return done.stdout.strip()


def badges(repo: str, branch: str, notebooks: list[str]) -> str:
    """One line of Markdown: Binder on the first notebook, Colab on each."""
    first, *others = notebooks
    binder = f"https://mybinder.org/v2/gh/{repo}/{branch}?urlpath=lab/tree/notebooks/{first}"
    colab = f"https://colab.research.google.com/github/{repo}/blob/{branch}/notebooks"
    links = [
        f"[![Open notebook 01 in Binder](https://mybinder.org/badge_logo.svg)]({binder})",
        f"[![Open notebook 01 in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}/{first})",
        *(f"[{name[:2]} in Colab]({colab}/{name})" for name in others),
    ]
    return " ".join(links)


def between_markers(text: str, line: str) -> str:
    """The text with the line, and nothing else, between the two markers."""
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"expected {START} and, after it, {END}, once each")
    return text[: text.index(START) + len(START)] + f"\n{line}\n" + text[text.index(END) :]


def write(root: Path, repo: str, branch: str = "main") -> list[Path]:
    """Bring README.md and the notebooks' install lines up to date; the files that changed."""
    if not re.fullmatch(f"{NAME}/{NAME}", repo):
        raise ValueError(f"expected OWNER/NAME, got {repo!r}")
    notebooks = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
    readme = root / "README.md"
    new = {readme: between_markers(readme.read_text("utf-8"), badges(repo, branch, [n.name for n in notebooks]))}
    for path in notebooks:
        new[path] = INSTALL.sub(f"git+https://github.com/{repo}", path.read_text("utf-8"))
    changed = [path for path, text in new.items() if text != path.read_text("utf-8")]
    for path in changed:
        path.write_text(new[path], "utf-8", newline="\n")
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Status 0, or 1 and one sentence that says what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", nargs="?", metavar="OWNER/NAME", help="default: from git's remote 'origin'")
    parser.add_argument("--branch", default="main", help="default: %(default)s")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of README.md; default: this repository")
    options = parser.parse_args(arguments)
    try:
        changed = write(options.root, options.repo or repository(origin(options.root)), options.branch)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"written: {path}" for path in changed) or "nothing to change")
    return 0


if __name__ == "__main__":
    sys.exit(main())
