"""Diagnostics of attention heads: two numbers per head from one forward pass, and what they are worth.

Data flows one way:

    prompts ─┐
    model  ──┴→ attention record → diagnostics → statistics → figures, tables, widgets

The public names are in the stub beside this file, ``__init__.pyi``, where editors and type checkers find them too; each
is imported when it is first used, so that ``import helpers`` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
