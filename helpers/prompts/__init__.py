"""Prompts: the IOI and ABC sets of the post, further contrasts as minimal pairs, and what a tokenizer makes of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
