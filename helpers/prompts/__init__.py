"""Prompts: the IOI and ABC sets of the post, minimal pairs, and what a tokenizer makes of them."""
