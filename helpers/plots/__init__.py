"""Figures: ``plot_…`` takes ``ax`` first, draws there and returns it, ``label_…`` does so with words; ``…_figure`` makes a whole figure."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
