"""Pure functions of attention rows: entropy, KL selectivity, susceptibility chi, and their geometry."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
