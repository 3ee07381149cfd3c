"""Pure functions of numbers per prompt and head: shifts and tests, rankings, correlations between heads, screening."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
