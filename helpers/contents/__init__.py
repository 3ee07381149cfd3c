"""What heads write: their outputs at END, how these change between two runs, and the roles that follow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
