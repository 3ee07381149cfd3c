"""Which heads and paths cause an answer: activation patching, path patching, attribution patching, whole circuits."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
