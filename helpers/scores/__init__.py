"""Many scores of a head under one protocol: what each says, what it costs, and which heads it finds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
