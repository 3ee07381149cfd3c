"""Turning the knob of a head: its inverse temperature beta, in a running model, and what the model says to it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
