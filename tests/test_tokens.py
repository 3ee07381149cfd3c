"""Tokenised prompts: 15 GPT-2 tokens with one BOS, every named position, every refusal, batches of one length."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import toy_prompt

from helpers.demo.corpus import BOS, vocabulary
from helpers.prompts.ioi import abc_prompt, abc_prompts, ioi_prompt, ioi_prompts, minimal_pairs
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import bos_id, by_length, compare_notes, notes, tokenize

LONG_NAME = "Siobhan"  # three tokens, " Si", "ob" and "han", in GPT-2's vocabulary


# The published prompts in GPT-2's tokens


@pytest.mark.parametrize("make", [ioi_prompts, abc_prompts])
def test_published_prompts_are_fifteen_tokens_with_one_bos(
    make: Callable[[], list[Prompt]], gpt2_tokenizer: Any
) -> None:
    """50 prompts: 15 tokens each, BOS (id 50256) first and nowhere else; the rest decodes to the text."""
    for prompt, found in zip(make(), tokenize(make(), gpt2_tokenizer), strict=True):
        assert len(found) == len(found.ids) == len(found.tokens) == 15
        assert [i for i, token in enumerate(found.ids) if token == 50256] == [0]
        assert found.tokens[0] == "<|endoftext|>"
        assert "".join(found.tokens[1:]) == prompt.text
        assert found.prompt == prompt


@pytest.mark.parametrize("make", [ioi_prompts, abc_prompts])
def test_named_positions_point_at_their_tokens(make: Callable[[], list[Prompt]], gpt2_tokenizer: Any) -> None:
    """The token at each name's position is a space and that name; END is the last, " to"; S1+1 follows S1."""
    for found in tokenize(make(), gpt2_tokenizer):
        for name in found.prompt.spans:
            assert found.tokens[found.position(name)] == f" {found.prompt.name_at(name)}"
        assert found.position("BOS") == 0
        assert (found.position("END"), found.tokens[-1]) == (14, " to")
        assert ("S1+1" in found.positions) == (found.prompt.template != "ABC")
        if "S1" in found.positions:
            assert found.position("S1+1") == found.position("S1") + 1 < found.position("S2")


def test_positions_by_hand(gpt2_tokenizer: Any) -> None:
    """<BOS> When| Mary| and| John| went| to| the| store|,| John| gave| a| drink| to."""
    (found,) = tokenize([ioi_prompt("ABBA", 0, "Mary", "John")], gpt2_tokenizer)
    assert found.positions == {"BOS": 0, "IO": 2, "S1": 4, "S1+1": 5, "S2": 10, "END": 14}
    (found,) = tokenize([abc_prompt(0, "Mary", "John", "Kate")], gpt2_tokenizer, prepend_bos=False)
    assert found.positions == {"A": 1, "B": 3, "C": 9, "END": 13}


def test_minimal_pairs_differ_in_one_token(gpt2_tokenizer: Any) -> None:
    """The ids of a pair differ exactly at S2 = C."""
    active, control = (tokenize(side, gpt2_tokenizer) for side in minimal_pairs())
    for a, c in zip(active, control, strict=True):
        differ = [i for i, (x, y) in enumerate(zip(a.ids, c.ids, strict=True)) if x != y]
        assert differ == [a.position("S2")] == [c.position("C")]


def test_word_level_tokens(words: Any) -> None:
    """The demo tokenizer: one token a word or mark, so the same 15 tokens, without spaces in them."""
    (found,) = tokenize(["When Mary and John went to the store, John gave a drink to"], words)
    assert found.tokens == (
        BOS,
        *["When", "Mary", "and", "John", "went", "to", "the", "store", ",", "John", "gave", "a", "drink", "to"],
    )
    assert found.ids == tuple(vocabulary().index(token) for token in found.tokens)
    assert found.positions == {"BOS": 0, "END": 14}


def test_last_word_may_be_a_name(words: Any) -> None:
    """S1 at the very end has no token after it, so no S1+1 points past the prompt."""
    prompt = Prompt("Mary saw John", spans={"S1": (9, 13)})
    (found,) = tokenize([prompt], words)
    assert found.position("S1") == found.position("END") == 3
    assert all(0 <= index < len(found) for index in found.positions.values())


def test_unknown_position_names_those_there_are(words: Any) -> None:
    """A position that the prompt lacks is refused with the list of its positions."""
    (found,) = tokenize(["Mary saw"], words)
    with pytest.raises(ValueError, match=r"position: expected one of BOS, END, got 'S2'"):
        found.position("S2")


# Refusals, each with the prompt's number

GOOD = "When Mary and John went to"
REFUSED = {
    "empty": ("", "expected a text, got an empty prompt"),
    "blank": (" \n", "expected a text, got an empty prompt"),
    "BOS": (f"{BOS}{GOOD}", r"expected no BOS token in the text \(one is prepended\), got '<\|endoftext\|>' in"),
    "unknown word": ("When Zebulon went to", "the word 'Zebulon' is not in this model's vocabulary"),
    "too long": ("Mary " * 64, r"expected at most 64 tokens \(the model's context\), got 65"),
}


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("number", [1, 3])
def test_refuses_a_prompt_by_its_number(number: int, text: str, sentence: str, words: Any) -> None:
    """One bad prompt among good ones is refused by one sentence that starts with its number, counted from 1."""
    prompts = [GOOD] * 3
    prompts[number - 1] = text
    with pytest.raises(ValueError, match=f"^prompt {number}: {sentence}") as refusal:
        tokenize(prompts, words, max_length=64)
    assert "\n" not in str(refusal.value)


def test_refuses_a_name_of_several_tokens(gpt2_tokenizer: Any) -> None:
    """A name that GPT-2 splits is refused, naming the position, the name and the number of its tokens."""
    assert len(gpt2_tokenizer(f" {LONG_NAME}")["input_ids"]) == 3
    prompts = [ioi_prompt("ABBA", 0, "Mary", "John"), ioi_prompt("ABBA", 0, "Mary", LONG_NAME)]
    with pytest.raises(
        ValueError, match=r"^prompt 2: expected a name that is one token at S1, got 'Siobhan', which is 3 tokens"
    ):
        tokenize(prompts, gpt2_tokenizer)


def test_bos_is_refused_in_the_text_without_prepending_too(gpt2_tokenizer: Any) -> None:
    """prepend_bos=False: no BOS at all, or the text's own at its beginning, which is then named."""
    with pytest.raises(ValueError, match=r"^prompt 1: expected no BOS token \(prepend_bos=False\), got '<\|endoftext"):
        tokenize([f"{GOOD}<|endoftext|>{GOOD}"], gpt2_tokenizer, prepend_bos=False)
    (found,) = tokenize([GOOD], gpt2_tokenizer, prepend_bos=False)
    assert found.positions == {"END": len(found) - 1}
    assert 50256 not in found.ids
    (own,) = tokenize([f"<|endoftext|>{GOOD}"], gpt2_tokenizer, prepend_bos=False)
    assert own.ids == tokenize([GOOD], gpt2_tokenizer)[0].ids
    assert own.positions == {"BOS": 0, "END": len(own) - 1}


def test_chat_prompts_bring_their_own_bos() -> None:
    """ChatML, with <|im_start|> as BOS: every turn's token is kept, and none is put in front."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {c: i for i, c in enumerate("Ġabcdefghijklmnopqrstuvwxyz")}
    inside = Tokenizer(models.BPE(letters, []))
    inside.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    chat = PreTrainedTokenizerFast(
        tokenizer_object=inside, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>"
    )
    text = "<|im_start|>user<|im_end|><|im_start|>hi"
    (found,) = tokenize([text], chat, prepend_bos=False)
    assert [t for t in found.tokens if t.startswith("<|")] == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    assert found.positions == {"BOS": 0, "END": len(found) - 1}
    with pytest.raises(ValueError, match=r"no BOS token in the text \(one is prepended\), got '<\|im_start\|>'"):
        tokenize([text], chat)
    (named,) = tokenize(["hi<|endoftext|>hi"], chat)  # the unk token by its own name is no unknown word
    assert "<|endoftext|>" in named.tokens


def test_refuses_characters_that_no_token_stands_for() -> None:
    """A BPE without an unknown token drops what it doesn't know: how many characters is said; blanks may go."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inside = Tokenizer(models.BPE({c: i for i, c in enumerate("abc")}, []))
    inside.pre_tokenizer = pre_tokenizers.Whitespace()
    lossy = PreTrainedTokenizerFast(tokenizer_object=inside)
    assert tokenize(["ab c"], lossy, prepend_bos=False)[0].tokens == ("a", "b", "c")
    with pytest.raises(
        ValueError, match=r"^prompt 1: expected tokens that spell the text, .* for 2 of the .* of 'ab xxc':"
    ):
        tokenize(["ab xxc"], lossy, prepend_bos=False)


def test_tokenizer_without_bos(words: Any) -> None:
    """A tokenizer that has no BOS token is refused before any prompt is read, and works with prepend_bos=False."""
    import copy

    plain = copy.deepcopy(words)
    plain.bos_token = None
    with pytest.raises(ValueError, match=r"^prepend_bos: this tokenizer has no BOS token; pass prepend_bos=False$"):
        tokenize([""], plain)
    (found,) = tokenize(["Mary saw"], plain, prepend_bos=False)
    assert found.tokens == ("Mary", "saw")


@pytest.mark.parametrize("bos", ["Mary", 7])
def test_another_bos(bos: str | int, words: Any) -> None:
    """A token, or its id, stands in front once instead of the tokenizer's own BOS; the rest is unchanged."""
    index = words.convert_tokens_to_ids("Mary") if bos == "Mary" else 7
    (own,), (found,) = tokenize(["John saw"], words), tokenize(["John saw"], words, bos=bos)
    assert found.ids == (index, *own.ids[1:])
    assert found.positions == own.positions == {"BOS": 0, "END": 2}
    assert found.tokens[0] == words.convert_ids_to_tokens(index)
    assert bos_id(words, bos=bos) == index != bos_id(words) == words.bos_token_id


def test_another_bos_is_the_one_that_may_not_be_in_the_text(words: Any) -> None:
    """The token put in front is refused in the text; the tokenizer's own BOS is then a token like others."""
    with pytest.raises(
        ValueError, match=r"^prompt 1: expected no BOS token in the text \(one is prepended\), got 'Mary'"
    ):
        tokenize(["John saw Mary"], words, bos="Mary")
    (found,) = tokenize([f"{BOS} John"], words, bos="Mary")
    assert [found.tokens[0], found.ids[1]] == ["Mary", words.bos_token_id]


@pytest.mark.parametrize("bos", ["Zebulon", "", "<|nothing|>", -1, 10**6, True, 1.0])
def test_refuses_unknown_bos(bos: Any, words: Any) -> None:
    """What is no token and no id of the vocabulary is refused before any prompt is read."""
    sentence = f"bos: expected a token or id of this model's vocabulary, got {bos!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        tokenize([""], words, bos=bos)


def test_bos_without_prepending(words: Any) -> None:
    """A BOS that is not to be put in front is a contradiction."""
    with pytest.raises(ValueError, match=r"^bos: expected None with prepend_bos=False, got 'Mary'$"):
        tokenize(["John"], words, prepend_bos=False, bos="Mary")


def test_bos_for_a_tokenizer_without_one(words: Any) -> None:
    """A tokenizer that has no BOS of its own can be given one."""
    import copy

    plain = copy.deepcopy(words)
    plain.bos_token = None
    (found,) = tokenize(["Mary saw"], plain, bos=BOS)
    assert found.ids == tokenize(["Mary saw"], words)[0].ids


def test_tokenizer_that_knows_nothing() -> None:
    """A text of which no token is left (as with a tokenizer without its vocabulary) is refused, not read as BOS alone."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({BOS: 0}, [])), bos_token=BOS)
    assert empty(GOOD)["input_ids"] == []
    with pytest.raises(ValueError, match=r"^prompt 1: "):
        tokenize([GOOD], empty)


def test_no_prompts(words: Any) -> None:
    """An empty list is refused."""
    with pytest.raises(ValueError, match=r"^prompts: expected at least one prompt, got none$"):
        tokenize([], words)


def test_context_length_is_allowed_to_the_last_token(words: Any) -> None:
    """BOS + 63 words fill a context of 64."""
    (found,) = tokenize(["Mary " * 63], words, max_length=64)
    assert len(found) == 64


# What is allowed, but said


def test_equal_lengths_need_no_note(gpt2_tokenizer: Any) -> None:
    """The published sets: one length, all distinct, nothing to say."""
    active, control = tokenize(ioi_prompts(), gpt2_tokenizer), tokenize(abc_prompts(), gpt2_tokenizer)
    assert notes(active) == compare_notes(active, control) == []


def test_notes_count_lengths_and_repeats() -> None:
    """Lengths 5, 7, 5, one prompt twice: both are counted."""
    prompts = [toy_prompt(5), toy_prompt(7, 1), toy_prompt(5)]
    length, repeat = notes(prompts)
    assert "(2 of 5, 1 of 7 tokens)" in length
    assert repeat.startswith("1 of the 3 prompts repeat")


@pytest.mark.parametrize(
    ("active", "control", "expected"),
    [
        ((5, 5), (5, 5), ""),
        ((5, 7), (5, 5), "Active set: The prompts differ in length (1 of 5, 1 of 7 tokens)"),
        ((5, 5), (5, 7), "Control set: The prompts differ in length (1 of 5, 1 of 7 tokens)"),
        ((5, 5), (7, 7), "Active prompts have 5 tokens and control prompts 7"),
    ],
)
def test_notes_of_two_sets(active: tuple[int, ...], control: tuple[int, ...], expected: str) -> None:
    """Different lengths inside a set, and between sets of one length each, are said once."""
    sides = [[toy_prompt(length, i) for i, length in enumerate(side)] for side in (active, control)]
    said = compare_notes(*sides)
    assert len(said) == bool(expected)
    assert expected in "".join(said)


def test_sets_of_different_length_are_noted_beside_repeats() -> None:
    """A repeated prompt in one set does not hide that the sets' lengths differ."""
    active, control = [toy_prompt(5), toy_prompt(5)], [toy_prompt(7), toy_prompt(7, 1)]
    said = " ".join(compare_notes(active, control))
    assert "repeat" in said
    assert "Active prompts have 5 tokens and control prompts 7" in said


@given(st.lists(st.integers(2, 6), min_size=1, max_size=40), st.integers(1, 9))
def test_batches_hold_one_length_each(lengths: list[int], size: int) -> None:
    """Every prompt is in exactly one batch; a batch has one length and at most ``size`` prompts; no needless batch."""
    batches = by_length([toy_prompt(length) for length in lengths], size)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len({lengths[i] for i in batch}) == 1 and len(batch) <= size for batch in batches)
    assert len(batches) == sum(-(-lengths.count(length) // size) for length in set(lengths))


def test_prompt_equality_survives_tokenising(words: Any) -> None:
    """Tokenising is a pure function: equal prompts give equal tokens, whatever stands around them."""
    prompt = ioi_prompt("BABA", 2, "Alice", "Tom")
    alone, *_ = tokenize([prompt], words)
    _, among = tokenize([GOOD, replace(prompt)], words)
    assert alone == among
