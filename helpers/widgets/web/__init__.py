"""What the playground draws in the browser: components whose data are plain traits, and a page that keeps them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
