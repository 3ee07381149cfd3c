"""The tokens that are read at END: where a prompt's answers and foils would follow it, in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import TokenizedPrompt


def with_answers(prompts: Sequence[TokenizedPrompt], tokenizer: Any) -> list[TokenizedPrompt]:
    """The prompts with their next tokens that count as right and as wrong; a side that a prompt doesn't name stays empty.

    Raises:
        ValueError: with the prompt's number, as `readout_ids`.
    """
    found = []
    for number, prompt in enumerate(prompts, 1):
        try:
            right, wrong = _sides(tokenizer, prompt.prompt)
        except ValueError as error:
            raise ValueError(f"prompt {number}: {error}") from None
        found.append(replace(prompt, right=right, wrong=wrong))
    return found


def _sides(tokenizer: Any, prompt: Prompt) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`readout_ids` of a prompt that may name one side alone, or none."""
    if (prompt.answers and prompt.foils) or None not in (prompt.answer, prompt.foil):
        return readout_ids(tokenizer, prompt)
    alone = (("answer", prompt.answer, prompt.answers), ("foil", prompt.foil, prompt.foils))
    right, wrong = (
        _next_tokens(tokenizer, prompt, name, several or (one,)) if several or one is not None else ()
        for name, one, several in alone
    )
    return right, wrong


def readout_ids(tokenizer: Any, prompt: Prompt) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the next tokens that count as right, and of those that count as wrong.

    One answer and one foil: the first token of each, so that logit(answer) - logit(foil) is the readout. Sets of them
    (`Prompt.answers`, `Prompt.foils`): the first tokens that begin answers alone, and those that begin foils alone, so
    that P(answers) - P(foils) is the readout. Where digits are tokens, "32" begins with its tens digit: of the years
    after 1732 those of the thirties are not told from the earlier ones, and "3" is dropped from both sides. A word of a
    set that the tokenizer joins to the end of the prompt ("17" and "00" in GPT-2) can't follow it, and is dropped too.

    The token is found in its place: it is the first one of text + glue + word that the text alone does not have.

    Args:
        tokenizer: a Hugging Face tokenizer.
        prompt: a prompt with an answer and a foil, or with answers and foils.

    Returns:
        (right, wrong): token ids in the order of the words, each once.

    Raises:
        ValueError: if a side names no word or none is left, a word begins with a blank, is not in the vocabulary or
            is joined to the end of the prompt, or answer and foil begin with the same token.
    """
    sets = bool(prompt.answers or prompt.foils)
    names = ("answers", "foils") if sets else ("answer", "foil")
    sides = (prompt.answers, prompt.foils) if sets else ((prompt.answer,), (prompt.foil,))
    if not all(sides) or (None,) in sides:
        raise ValueError("prompt: expected a prompt with an answer and a foil, got one without")
    right, wrong = (_next_tokens(tokenizer, prompt, name, side) for name, side in zip(names, sides, strict=True))
    if not sets and right == wrong:
        raise ValueError(
            f"foil: expected another first token than the answer's, got {prompt.foil!r} ({prompt.answer!r})"
        )
    kept = tuple(i for i in right if i not in wrong), tuple(i for i in wrong if i not in right)
    for name, ids in zip(names, kept, strict=True):
        if not ids:
            raise ValueError(
                f"{name}: expected words with a first token that the other side lacks, got none after {prompt.text!r}"
            )
    return kept


def _next_tokens(tokenizer: Any, prompt: Prompt, name: str, words: Sequence[str | None]) -> tuple[int, ...]:
    """First tokens of words as they would follow the prompt, of those that can."""
    given = [(word or "").removeprefix(prompt.glue) for word in words]  # " Mary" is "Mary" after a blank
    for word, said in zip(given, words, strict=True):
        if not word or word != word.lstrip():
            raise ValueError(f"{name}: expected a word without a blank before it (see Prompt.glue), got {said!r}")
    texts = [prompt.text, *(f"{prompt.text}{prompt.glue}{word}" for word in given)]
    before, *longer = tokenizer(texts, add_special_tokens=False)["input_ids"]
    found = [ids[len(before)] for ids in longer if ids[: len(before)] == before and len(ids) > len(before)]
    if not found:
        raise ValueError(f"{name}: expected a word that adds a token to {prompt.text!r}, got {words[0]!r}")
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in found:
        raise ValueError(f"{name}: expected words of this model's vocabulary, got {', '.join(map(repr, words))}")
    return tuple(dict.fromkeys(found))
