"""The playground: what a reader can do with prompts and heads without writing code.

Data flow one way: `inputs`, `examples` and `checker` (prompts), `playground` and `looking` (measuring), `state` and
`transitions` (what is known, what can happen), `screen`, `words` and `display` (a state as data of widgets), `session` (actions,
threads, the model in memory), `panel` and `app` (widgets), `export` (what leaves).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
