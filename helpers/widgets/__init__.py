"""The playground: `playground` and `checker` hold plain functions, `Playground` is the ipywidgets around them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
