"""Build the web site: ``make book``.

The sources are put together in a folder of their own, as they lie in the repository, so that a relative link in a
notebook, a card or the README leads from page to page; then Sphinx makes HTML of them, and a warning is an error.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
sys.path[:0] = [str(BOOK), str(ROOT)]


def build(out: Path, root: Path = ROOT, processes: int = 2) -> int:
    """Write the site to ``out``; the status is 0 if nothing was missing and Sphinx had nothing to warn of."""
    from sphinx.cmd.build import build_main
    from stage import stage

    sources, doctrees = (out.with_name(f".{out.name}-{kind}") for kind in ("sources", "doctrees"))
    if (out / ".buildinfo").exists():  # an earlier site, whose pages may not exist any more
        shutil.rmtree(out)
    stage(root, sources)
    options = ["--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "--jobs", str(processes)]
    return build_main([*options, "--conf-dir", str(BOOK), "--doctree-dir", str(doctrees), str(sources), str(out)])


def main() -> int:
    """Status 0, or 1 and what Sphinx said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book", help="default: build/book")
    out = parser.parse_args().out.resolve()
    status = build(out)
    print(f"open {out / 'index.html'}" if status == 0 else f"{out}: not finished", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
