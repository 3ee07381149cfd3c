"""A prompt set as a model sees it: token ids, token strings, and the position of every name. Checked before use."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.prompts.characters import seen_end, trim, unseen_end
from helpers.prompts.prompt import Prompt
from helpers.prompts.reading import as_prompts


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt, its tokens, and where its named positions are.

    Attributes:
        prompt: what was tokenised.
        ids: token ids, BOS first if it was prepended.
        tokens: the same as readable strings, e.g. ``" Mary"``.
        positions: index of each named token: ``BOS`` (if any), the names (``IO``, ``S1``, ``S2`` or ``A``, ``B``,
            ``C``), ``S1+1`` (the token after S1, where one exists) and ``END``, the last token.
        right, wrong: ids of the next tokens that count as right and as wrong, where they were asked for (`helpers.prompts.answers`).
    """

    prompt: Prompt
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    positions: Mapping[str, int]
    right: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def position(self, name: str) -> int:
        """Index of a named position.

        Raises:
            ValueError: naming the positions that there are.
        """
        if name not in self.positions:
            raise ValueError(f"position: expected one of {', '.join(self.positions)}, got {name!r}")
        return self.positions[name]


def tokenize(
    prompts: Iterable[Prompt | str],
    tokenizer: Any,
    *,
    prepend_bos: bool = True,
    bos: str | int | None = None,
    max_length: int | None = None,
    vocabulary: int | None = None,
) -> list[TokenizedPrompt]:
    """Tokenise a prompt set and refuse it if anything is wrong with it.

    Args:
        prompts: `Prompt` objects or bare texts (whose only named position is END, and BOS), in any ordered collection.
        tokenizer: a Hugging Face fast tokenizer.
        prepend_bos: put exactly one BOS token in front; with False, no BOS may be there at all.
        bos: the token (as the vocabulary spells it) or id to put there instead of the tokenizer's own BOS.
        max_length: the model's context length, if it has one.
        vocabulary: number of tokens that the model has an embedding for, if that is known.

    Raises:
        ValueError: one sentence with the prompt's number (from 1): no prompts, an empty prompt, no BOS or two, a
            word the tokenizer does not know, a name that is not one token, longer than the context, a token of white
            space at the end, where END would be read (but in a chat template); or if prompts are no list of them
            (`as_prompts`), or bos is no token of this vocabulary.
    """
    first = bos_id(tokenizer, prepend_bos, bos)
    given = as_prompts(prompts)
    if not given:
        raise ValueError("prompts: expected at least one prompt, got none")
    found = []
    for number, prompt in enumerate(given, 1):
        try:
            found.append(_tokenize_one(prompt, tokenizer, first, max_length))
            _check_ids(found[-1], vocabulary)
        except ValueError as error:
            raise ValueError(f"prompt {number}: {error}") from None
    return found


def bos_id(tokenizer: Any, prepend_bos: bool = True, bos: str | int | None = None) -> int | None:
    """Id of the token that is put in front of every prompt, None if there is none; see `tokenize`."""
    if bos is None:
        if prepend_bos and tokenizer.bos_token_id is None:
            raise ValueError("prepend_bos: this tokenizer has no BOS token; pass prepend_bos=False")
        return tokenizer.bos_token_id if prepend_bos else None
    if not prepend_bos:
        raise ValueError(f"bos: expected None with prepend_bos=False, got {bos!r}")
    index = tokenizer.convert_tokens_to_ids(bos) if isinstance(bos, str) else bos
    known = type(index) is int and 0 <= index < len(tokenizer)
    if not known or (isinstance(bos, str) and tokenizer.convert_ids_to_tokens(index) != bos):
        raise ValueError(f"bos: expected a token or id of this model's vocabulary, got {bos!r}")
    return index


def _tokenize_one(prompt: Prompt, tokenizer: Any, bos: int | None, max_length: int | None) -> TokenizedPrompt:
    if not prompt.text.strip():
        raise ValueError("expected a text, got an empty prompt")
    encoded = tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    if not ids:
        raise ValueError(f"the tokenizer makes no token of {prompt.text!r}")
    _check_spelling(prompt.text, offsets)
    own = bos is None and ids[0] == tokenizer.bos_token_id  # a chat prompt that brings its own
    if not own:
        _check_special_tokens(prompt.text, ids, offsets, tokenizer, bos)
    shift = 0 if bos is None else 1
    ids = ids if bos is None else [bos, *ids]
    if max_length is not None and len(ids) > max_length:
        raise ValueError(f"expected at most {max_length} tokens (the model's context), got {len(ids)}")
    positions = {"BOS": 0} if own or bos is not None else {}
    for name, span in prompt.spans.items():
        positions[name] = shift + _token_at(prompt, name, span, offsets)
    if "S1" in positions and positions["S1"] + 1 < len(ids):
        positions["S1+1"] = positions["S1"] + 1
    _check_end(prompt.text, offsets, tokenizer)
    positions["END"] = len(ids) - 1
    return TokenizedPrompt(prompt, tuple(ids), tuple(readable(tokenizer, i) for i in ids), positions)


def _check_spelling(text: str, offsets: Sequence[tuple[int, int]]) -> None:
    """Refuse a text with characters, other than blanks, that no token stands for: the model would not see them."""
    spelled = [False] * len(text)
    for start, end in offsets:
        spelled[start:end] = [True] * (end - start)
    lost = sum(not seen and not character.isspace() for seen, character in zip(spelled, text, strict=True))
    if lost:
        raise ValueError(
            f"expected tokens that spell the text, but the tokenizer has none for {lost} of the characters of {text!r}: the model "
            "would not see them"
        )


def _check_end(text: str, offsets: Sequence[tuple[int, int]], tokenizer: Any) -> None:
    """Refuse a text whose last token is white space: END would be there. A chat template, which has markers, may end so."""
    if seen_end(text) > offsets[-1][0] or any(
        t.special and t.content in text for t in tokenizer.added_tokens_decoder.values()
    ):
        return
    raise ValueError(
        f"expected a text without white space at its end, where END is read, got {unseen_end(text)} after {text[:-1]!r}"
    )


def _check_ids(prompt: TokenizedPrompt, vocabulary: int | None) -> None:
    for index, token in zip(prompt.ids, prompt.tokens, strict=True):
        if vocabulary is not None and index >= vocabulary:
            raise ValueError(
                f"expected tokens that the model has an embedding for, ids below {vocabulary}, got {token!r} ({index})"
            )


def _check_special_tokens(
    text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]], tokenizer: Any, bos: int | None
) -> None:
    forbidden = tokenizer.bos_token_id if bos is None else bos
    if forbidden is not None and forbidden in ids:
        rule = "no BOS token in the text (one is prepended)" if bos is not None else "no BOS token (prepend_bos=False)"
        raise ValueError(f"expected {rule}, got {tokenizer.convert_ids_to_tokens(forbidden)!r} in {text!r}")
    for index, (start, end) in zip(ids, offsets, strict=True):
        if index == tokenizer.unk_token_id and text[start:end] != tokenizer.unk_token:
            raise ValueError(f"the word {text[start:end]!r} is not in this model's vocabulary ({text!r})")


def _token_at(prompt: Prompt, name: str, span: tuple[int, int], offsets: Sequence[tuple[int, int]]) -> int:
    at = covering(span, offsets)
    if len(at) != 1:
        raise ValueError(
            f"expected a name that is one token at {name}, got {prompt.name_at(name)!r}, which is {len(at)} tokens"
        )
    return at[0]


def covering(span: tuple[int, int], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Indices of the tokens that a span of characters is in, from the characters of each token."""
    start, end = span
    return [i for i, (left, right) in enumerate(offsets) if left < end and right > start]


def readable(tokenizer: Any, token_id: int) -> str:
    """One token as a person reads it."""
    return str(tokenizer.decode([token_id]))


def notes(prompts: Sequence[TokenizedPrompt]) -> list[str]:
    """What is allowed but should be known before any number is read, one sentence each.

    Different lengths: n, the number of visible keys, then differs between prompts and is a confound of KL and chi.
    Repeated prompts: they are counted as if they were independent. White space at the end, as chat templates have it.
    """
    lengths = Counter(len(p) for p in prompts)
    found = []
    if len(lengths) > 1:
        counts = ", ".join(f"{count} of {length}" for length, count in sorted(lengths.items()))
        found.append(f"The prompts differ in length ({counts} tokens): n differs with them and confounds KL and chi.")
    repeated = len(prompts) - len({p.ids for p in prompts})
    if repeated:
        found.append(f"{repeated} of the {len(prompts)} prompts repeat an earlier one and are counted again.")
    ends = [end for p in prompts if not trim(p.tokens[-1]) and (end := unseen_end(p.prompt.text))]
    if ends:
        kinds = " and ".join(sorted(set(ends)))
        found.append(
            f"{len(ends)} of the {len(prompts)} prompts end in white space ({kinds}): its token is what END reads."
        )
    return found


def compare_notes(active: Sequence[TokenizedPrompt], control: Sequence[TokenizedPrompt]) -> list[str]:
    """`notes` of two sets that will be compared, the difference between their lengths included."""
    said = [f"{name} set: {note}" for name, side in (("Active", active), ("Control", control)) for note in notes(side)]
    lengths = [{len(p) for p in side} for side in (active, control)]
    if lengths[0] != lengths[1] and len(lengths[0]) == len(lengths[1]) == 1:
        said.append(
            f"Active prompts have {len(active[0])} tokens and control prompts {len(control[0])}: n differs between "
            "the sets and confounds KL and chi."
        )
    return said


def by_length(prompts: Sequence[TokenizedPrompt], batch_size: int) -> list[list[int]]:
    """Indices of the prompts in batches of one length each (so that nothing is ever padded)."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batches = []
    for _, group in itertools.groupby(order, key=lambda i: len(prompts[i])):
        same = list(group)
        batches += [same[i : i + batch_size] for i in range(0, len(same), batch_size)]
    return batches
