"""The demo model's corpus: what is held out never occurs, every word is known, open answers come in pairs."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest

from helpers.demo import acceptance
from helpers.demo.corpus import (
    ALL_NAMES,
    BOS,
    FEMALE,
    MALE,
    MIXTURE,
    UNK,
    Sentence,
    abc,
    article,
    documents,
    held_out,
    ioi,
    split_words,
    vocabulary,
)
from helpers.prompts.ioi import FRAMES, NAMES, abc_prompts, ioi_prompts

pytestmark = pytest.mark.slow

KINDS = list(MIXTURE)


def sample(kind: Callable[[random.Random], Sentence], n: int, seed: int = 1) -> list[Sentence]:
    """``n`` sentences of a kind, from a seed that building the vocabulary does not use."""
    rng = random.Random(seed)
    return [kind(rng) for _ in range(n)]


def places(text: str) -> set[tuple[str, frozenset[str]]]:
    """(frame, first two names) of every sentence in a text that has one of the post's frames, read by its words."""
    found = set()
    for frame in FRAMES:
        pattern = re.escape(frame)
        for slot in ("X", "Y", "GIVER"):
            pattern = pattern.replace(re.escape("{%s}" % slot), rf"(?P<{slot}>\w+)")  # noqa: UP031
        found |= {(frame, frozenset((m["X"], m["Y"]))) for m in re.finditer(pattern, text)}
    return found


# Held-out combinations


def test_held_out_combinations_never_occur() -> None:
    """3,000 IOI and 3,000 ABC sentences: none has a frame of the post with a held-out pair; thousands have such a frame."""
    seen = [place for kind in (ioi, abc) for s in sample(kind, 3000) for place in places(s.text)]
    assert not set(seen) & held_out()
    assert not {place for text in documents(random.Random(2), 2000, 3) for place in places(text)} & held_out()
    assert len(seen) > 2000
    of_the_posts_names = [place for place in seen if place[1] <= set(NAMES)]
    assert len(of_the_posts_names) > 10


@pytest.mark.parametrize("make", [ioi_prompts, abc_prompts])
def test_the_posts_prompts_are_held_out(make: Callable[[], list[Any]]) -> None:
    """The frame and the first two names of each of the 50 prompts, read from its text."""
    for prompt in make():
        (place,) = places(prompt.text)
        assert place in held_out()


def test_a_fifth_of_the_other_combinations_is_held_out() -> None:
    """7 frames x 66 pairs = 462; those of the post's prompts, and a fifth of the rest; each frame has some left to train on."""
    pairs = {(frame, frozenset(pair)) for frame in FRAMES for pair in combinations(NAMES, 2)}
    post = {place for prompt in ioi_prompts() + abc_prompts() for place in places(prompt.text)}
    assert len(pairs) == 462
    assert held_out() <= pairs
    assert len(held_out()) == len(post) + (462 - len(post)) // 5
    assert all(sum((frame, frozenset(p)) not in held_out() for p in combinations(NAMES, 2)) > 10 for frame in FRAMES)


def test_examination_uses_held_out_combinations_only() -> None:
    """Every prompt that the acceptance rule asks is one that training cannot contain; both names of a pair are IO once."""
    asked = [*acceptance.held_out_ioi("ABBA"), *acceptance.held_out_ioi("BABA"), *acceptance.held_out_abc(300)]
    assert all(places(prompt.text) <= held_out() and places(prompt.text) for prompt in asked)
    for template in ("ABBA", "BABA"):
        prompts = acceptance.held_out_ioi(template)
        assert len(prompts) == len({p.text for p in prompts}) == 2 * len(held_out())
        assert {p.template for p in prompts} == {template}


# Words


def test_names() -> None:
    """120 distinct names, each of one sex, the post's twelve among them."""
    assert len(ALL_NAMES) == len(set(ALL_NAMES)) == 120
    assert not set(FEMALE) & set(MALE)
    assert set(NAMES) <= set(ALL_NAMES)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_word_is_in_the_vocabulary(kind: Callable[[random.Random], Sentence]) -> None:
    """2,000 sentences of every kind: no unknown word, and no BOS or <unk> in the text."""
    known = set(vocabulary()) - {BOS, UNK}
    assert not {word for s in sample(kind, 2000) for word in split_words(s.text)} - known


def test_vocabulary() -> None:
    """BOS is 0 and <unk> 1; no word twice; the post's prompts are in it."""
    assert vocabulary()[:2] == (BOS, UNK)
    assert len(set(vocabulary())) == len(vocabulary())
    assert {w for p in ioi_prompts() + abc_prompts() for w in split_words(p.text)} <= set(vocabulary())


def test_tokenizer_splits_as_the_corpus_does(words: Any) -> None:
    """The tokenizer's tokens of any document are split_words of it."""
    for text in documents(random.Random(3), 100, 3):
        assert words.convert_ids_to_tokens(words(text, add_special_tokens=False)["input_ids"]) == split_words(text)


@pytest.mark.parametrize(("noun", "expected"), [("apple", "an"), ("ring", "a"), ("office", "an"), ("key", "a")])
def test_article(noun: str, expected: str) -> None:
    """ "an" before a vowel."""
    assert article(noun) == expected


# Sentences


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_answers_are_one_word(kind: Callable[[random.Random], Sentence]) -> None:
    """The answer is one known word that follows the prompt; every kind is a pure function of its generator."""
    for s in sample(kind, 200):
        assert s.answer == "" or split_words(s.answer) == [s.answer]
        assert s.text.startswith(f"{s.prompt} {s.answer}".strip())
        assert s.text.endswith(".")
    assert sample(kind, 20) == sample(kind, 20) != sample(kind, 20, seed=9)


def test_ioi_answers() -> None:
    """The giver was named before, and the answer is the other of the two first names; it never repeats."""
    for s in sample(ioi, 500):
        names = [word for word in split_words(s.prompt) if word in ALL_NAMES]
        assert len(names) == 3
        assert len(set(names)) == 2
        assert names[2] in names[:2]
        assert {s.answer} == set(names[:2]) - {names[2]}
        assert s.is_determined


def test_abc_answers() -> None:
    """Three different names; half of the answers "them", else one of the first two with the other as good."""
    sentences = sample(abc, 2000)
    for s in sentences:
        names = [word for word in split_words(s.prompt) if word in ALL_NAMES]
        assert len(names) == len(set(names)) == 3
        assert s.answer == "them" or {s.answer, s.other} == set(names[:2])
    assert sum(s.answer == "them" for s in sentences) / 2000 == pytest.approx(0.5, abs=0.05)


def test_other_determined_answers() -> None:
    """Owner of the thing asked for; place of the person asked for; the word that followed before; the next in order."""
    by_name = {kind.__name__: sample(kind, 300) for kind in KINDS}
    for s in by_name["ownership"]:
        (a, mine), (b, yours) = re.findall(r"(\w+) has an? (\w+)", s.prompt)
        asked = re.search(r"the (\w+) belongs to$", s.prompt)[1]
        owners = {owner for owner, thing in ((a, mine), (b, yours)) if thing == asked}
        assert {s.answer, s.other} - {""} == owners
    for s in by_name["whereabouts"]:
        said = dict(re.findall(r"(\w+) is in the (\w+)\.", s.prompt))
        assert s.answer == said[re.search(r"(\w+) is in the$", s.prompt)[1]]
    for s in by_name["repeated_list"]:
        words = s.prompt.split()
        period = words.index(words[0], 1)
        assert words[period:] == words[: len(words) - period]
        assert s.answer == words[len(words) - period]
    for s in by_name["pronoun"]:
        assert s.answer == ("she" if s.prompt.split()[0] in FEMALE else "he")


def test_kinds_in_one_sentence_each() -> None:
    """Shares of the mixture sum to 1."""
    assert sum(MIXTURE.values()) == pytest.approx(1)
    assert all(share > 0 for share in MIXTURE.values())


# Documents


def test_mirror_images() -> None:
    """The mirror image has the other answer, and its mirror image is the sentence; a determined sentence is its own."""
    s = Sentence("Mary and John saw", "Mary", other="John")
    assert s.mirrored == Sentence("Mary and John saw", "John", other="Mary")
    assert s.mirrored.mirrored == s
    plain = Sentence("Mary saw", "John")
    assert plain.mirrored == plain
    assert (s.is_determined, plain.is_determined, Sentence("Mary saw").is_determined) == (False, True, False)


@pytest.mark.parametrize("count", [1, 7, 64])
def test_as_many_documents_as_asked(count: int) -> None:
    """Exactly ``count``, of ``n_sentences`` full stops at least each; a pure function of the generator."""
    texts = documents(random.Random(0), count, 2)
    assert len(texts) == count
    assert all(text.count(".") >= 2 for text in texts)
    assert texts == documents(random.Random(0), count, 2)


def test_open_answers_come_in_pairs() -> None:
    """In 1,000 one-sentence documents each open ABC text with answer A is followed by the same with B: the names tie."""
    texts = documents(random.Random(0), 1000, 1)
    answers: Counter[str] = Counter()
    stems: Counter[str] = Counter()
    for text in texts[:-1]:
        words = [word for word in split_words(text) if word in ALL_NAMES]
        if (
            places_of_any_frame(text)
            and len(words) == 4
            and len(set(words)) == 3
            and words[3] in words[:2]
            and words[2] not in words[:2]
        ):
            answers["first" if words[3] == words[0] else "second"] += 1
            stems[text.rsplit(" ", 2)[0]] += 1
    assert answers["first"] > 20
    assert abs(answers["first"] - answers["second"]) <= 1
    assert sum(count % 2 for count in stems.values()) <= 1


def places_of_any_frame(text: str) -> bool:
    """Whether a text is of the form of an IOI or ABC sentence."""
    return bool(re.match(r"(When|After|While) \w+ and \w+ ", text))


def test_mixture_shares() -> None:
    """Kinds are drawn by their shares: of 4,000 one-sentence documents about 25 % are IOI."""
    texts = documents(random.Random(5), 4000, 1)
    repeats = 0
    for text in texts:
        names = [word for word in split_words(text) if word in ALL_NAMES]
        repeats += places_of_any_frame(text) and len(names) == 4 and names[2] in names[:2]
    assert 0.19 < repeats / 4000 < 0.29
