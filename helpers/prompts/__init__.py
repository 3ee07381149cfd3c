"""Prompts: the IOI and ABC sets of the post, further contrasts as minimal pairs, and what a tokenizer makes of them."""
