"""Settings of the book.

Why these: Sphinx reads the docstrings of the package and checks every cross-reference; myst-nb reads the notebooks as they are
committed, without running them; sphinx-book-theme is made for pages with code, figures and margins, has launch buttons for Binder
and Colab, a dark theme and a search, and asks nothing of other hosts (its fonts and icons are its own). The three are what
Jupyter Book 1 is made of. Jupyter Book 2 (MyST's own engine) has no autodoc and its pages don't open from disk; Quarto and mkdocs
would need a second tool for the reference.
"""

from __future__ import annotations

import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
sys.path[:0] = [str(BOOK), str(ROOT)]

from hooks import source_of  # noqa: E402
from stage import published  # noqa: E402

project = "Attention heads in two numbers"
author = "the contributors; MIT licence"
html_show_copyright = False
html_title = project
html_short_title = project
language = "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.linkcode",
    "sphinx_design",
    "sphinx_copybutton",
    "hooks",
]
exclude_patterns: list[str] = []

# Where the repository is published: one place says it, and until then no page names an address.
REPOSITORY, BRANCH = published(ROOT).address(ROOT)
repository_root = str(ROOT)
repository_address = f"https://github.com/{REPOSITORY}/blob/{BRANCH}" if REPOSITORY else ""


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Where the code of a name is shown."""
    return source_of(domain, info, repository_address, ROOT)


def setup(app) -> None:  # type: ignore[no-untyped-def]
    """The two settings of our own."""
    app.add_config_value("repository_root", "", "env", types=frozenset({str}))
    app.add_config_value("repository_address", "", "env", types=frozenset({str}))


# Notebooks as they are committed
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
nb_merge_streams = True

# Text
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
mathjax_path = "mathjax/es5/tex-svg.js"
mathjax3_config = {"svg": {"fontCache": "global"}, "options": {"enableMenu": False}}

# Reference
default_role = "py:obj"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Source", "notes_style"), ("Symbols", "notes_style")]

# Pages
html_context = {"default_mode": "auto"}
html_theme = "sphinx_book_theme"
html_static_path = [str(BOOK / "_static")]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_copy_source = False
html_show_sourcelink = False
html_domain_indices = False
html_theme_options = {
    "repository_url": f"https://github.com/{REPOSITORY}" if REPOSITORY else "",
    "repository_branch": BRANCH,
    "path_to_docs": "",
    "use_repository_button": bool(REPOSITORY),
    "launch_buttons": {
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
        "notebook_interface": "jupyterlab",
    }
    if REPOSITORY
    else {},
    "navbar_persistent": [],
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
