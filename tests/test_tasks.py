"""Contrasts other than IOI: pairs that differ where the task is posed, positions, tokens, and who can do them."""

from __future__ import annotations

import itertools
import math
import random
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers import load_model, minimal_pairs
from helpers.attention.capture import tokenize_for
from helpers.demo.corpus import vocabulary
from helpers.prompts.answers import readout_ids
from helpers.prompts.prompt import Prompt
from helpers.prompts.tasks import (
    AGREEMENT_FRAMES,
    TASKS,
    acronyms,
    agreement,
    greater_than,
    ioi_pairs,
    named_like_ioi,
    ownership,
    repeated_lists,
)
from helpers.prompts.tokens import tokenize
from helpers.prompts.words import (
    APART,
    CENTURIES,
    COUNTABLE,
    EVENTS,
    NOUNS,
    OTHERWISE_SPLIT,
    OWNERS,
    SCENES,
    THINGS,
    WORDS,
)

pytestmark = pytest.mark.slow

Task = Callable[..., tuple[list[Prompt], list[Prompt]]]

#: What the demo model knows the words of, with the tokens of a prompt (BOS included).
DEMO_TASKS = {"IOI": 15, "repeated lists": 10, "ownership": 15}
GPT2_TASKS = DEMO_TASKS | {"agreement": 10, "greater-than": 13, "acronyms": 11}

#: Where the words of a pair differ: named positions, and indices from the end where a place has no name.
DIFFERENT: dict[str, tuple[str | int, ...]] = {
    "IOI": ("S2",),
    "repeated lists": (-3, -2, "A2"),
    "ownership": ("THING2",),
    "agreement": ("NOUN",),
    "greater-than": ("YY",),
    "acronyms": ("A1", "A2"),
}


def pieces(tokenizer: Any, text: str) -> list[str]:
    """Tokens of a text as strings."""
    return [tokenizer.decode([i]) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


# What every contrast promises


@pytest.mark.parametrize(
    ("task", "tokenizer", "length"),
    [(t, "words", n) for t, n in DEMO_TASKS.items()] + [(t, "gpt2_tokenizer", n) for t, n in GPT2_TASKS.items()],
)
def test_pairs_differ_where_the_task_is_posed(
    task: str, tokenizer: str, length: int, request: pytest.FixtureRequest
) -> None:
    """All prompts have one length; a pair has the same tokens but at the places that pose the task, and there others."""
    sides = [tokenize(side, request.getfixturevalue(tokenizer)) for side in TASKS[task](100)]
    for active, control in zip(*sides, strict=True):
        assert len(active) == len(control) == length
        wanted = {active.position(p) if isinstance(p, str) else length + p for p in DIFFERENT[task]}
        assert {i for i in range(length) if active.ids[i] != control.ids[i]} == wanted


@pytest.mark.parametrize("task", TASKS)
def test_both_sides_name_the_same_places(task: str) -> None:
    """A position has the same name and word number on either side, and the same word unless the task is posed there."""
    for active, control in zip(*TASKS[task](50), strict=True):
        assert set(active.spans) == set(control.spans)
        assert (active.answer, active.foil) == (control.answer, control.foil)
        for position in active.spans:
            places = [side.text[: side.spans[position][0]].count(" ") for side in (active, control)]
            assert places[0] == places[1]
            assert (active.name_at(position) != control.name_at(position)) == (position in DIFFERENT[task])


@pytest.mark.parametrize("task", TASKS)
def test_deterministic_and_distinct(task: str) -> None:
    """The same seed gives the same prompts, another others; fewer are a prefix; no active prompt comes twice."""
    make = TASKS[task]
    active, control = make(60)
    assert make(60) == (active, control)
    assert len(active) == len(control) == len({p.text for p in active}) == 60
    assert make(60, seed=7)[0] != active
    if make is not ioi_pairs:  # draws its controls after all active prompts
        assert make(20) == (active[:20], control[:20])
        assert len({p.text for p in active + control}) == 120


def test_standard_library_alone() -> None:
    """Importing the contrasts loads no numerical library and nothing of helpers but prompts."""
    probe = "import sys, helpers.prompts.tasks; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not {"numpy", "torch", "pandas", "transformers"} & loaded
    assert {name.split(".")[1] for name in loaded if name.startswith("helpers.")} == {"prompts"}


# IOI


def test_ioi_is_minimal_pairs_with_other_names_of_places() -> None:
    """The same texts, answers and foils; the control's A, B, C stand under IO, S1, S2; options are passed on."""
    for active, control, *pair in zip(*ioi_pairs(20, seed=3), *minimal_pairs(20, seed=3), strict=True):
        assert (active, control.text) == (pair[0], pair[1].text)
        assert [control.spans[p] for p in ("IO", "S1", "S2")] == [pair[1].spans[p] for p in "ABC"]
        assert active.spans["S2"][0] == control.spans["S2"][0]
        assert control.name_at("S2") != active.name_at("S2")
    renamed = named_like_ioi([Prompt("Ann", spans={"B": (0, 3)})])
    assert renamed == [Prompt("Ann", spans={"S1": (0, 3)})]


# Repeated lists


def test_lists_by_position() -> None:
    """The last three words are the first three again; the answer followed A1; the foil stands once, after another word."""
    foil_places = Counter()
    for active, control in zip(*repeated_lists(50), strict=True):
        words, fresh = active.text.split(), control.text.split()
        assert words[6:] == words[:3]
        assert words[:6] == fresh[:6]
        assert len(set(fresh)) == len(fresh) == 9
        assert [active.name_at(p) for p in ("A1", "B", "A2")] == [words[2], active.answer, words[2]]
        assert [control.name_at(p) for p in ("A1", "B", "A2")] == [words[2], active.answer, fresh[8]]
        starts = [active.text[: active.spans[p][0]].count(" ") for p in ("A1", "B", "A2")]
        assert starts == [2, 3, 8]
        assert words.count(active.foil) == fresh.count(active.foil) == fresh.count(active.answer) == 1
        foil_places[words.index(active.foil)] += 1
    assert foil_places == {4: 25, 5: 25}


def test_default_lists_are_those_of_six_and_three() -> None:
    """Nine words are drawn at once: six, then the first three of them or the last three; and the first pair as text."""
    rng, sides = random.Random(0), repeated_lists(30)
    for clean, control in zip(*sides, strict=True):
        drawn = rng.sample(WORDS, 9)
        assert clean.text.split() == drawn[:6] + drawn[:3]
        assert control.text.split() == drawn
    assert [side[0].text for side in sides] == [
        "letter clock key coin table chair letter clock key",
        "letter clock key coin table chair story knife note",
    ]


@pytest.mark.parametrize(("length", "shown", "copies"), [(8, 4, 2), (3, 1, 1), (5, 2, 3), (10, 8, 1)])
def test_lists_of_any_form_by_position(length: int, shown: int, copies: int) -> None:
    """The list ``copies`` times, its first words or fresh ones; A1 and B in the last copy; every foil after the answer."""
    foils = set()
    options = {"length": length, "shown": shown, "copies": copies}
    for active, control in zip(*repeated_lists(40, **options), strict=True):
        words, fresh = active.text.split(), control.text.split()
        assert words == words[:length] * copies + words[:shown]
        assert fresh[:-shown] == words[:-shown]
        assert len({*words, *fresh}) == length + shown
        places = [active.text[: active.spans[p][0]].count(" ") for p in ("A1", "B", "A2")]
        last = (copies - 1) * length
        assert places == [last + shown - 1, last + shown, copies * length + shown - 1]
        assert active.answer == words[shown] == active.name_at("B") == control.name_at("B")
        assert active.name_at("A1") == active.name_at("A2") == control.name_at("A1") != control.name_at("A2")
        foils.add(words.index(active.foil))
    assert foils == set(range(shown + 1, length))


# Agreement


def test_agreement_by_position() -> None:
    """The verb's number is the active subject's, half of them plural; the control has the subject's other number."""
    numbers, frames = Counter(), set()
    other = {form: pair[1 - i] for pair in COUNTABLE for i, form in enumerate(pair)}
    plural = {many for _, many in COUNTABLE}
    for active, control in zip(*agreement(101), strict=True):
        noun, scene = active.name_at("NOUN"), active.name_at("ATTRACTOR")
        assert (active.answer, active.foil) == (("were", "was") if noun in plural else ("was", "were"))
        assert active.template == ("plural" if noun in plural else "singular")
        assert control.text == active.text.replace(f"The {noun} ", f"The {other[noun]} ")
        assert control.name_at("NOUN") == other[noun]
        assert scene in SCENES
        frames.add(active.text.replace(f"The {noun}", "The {NOUN}").replace(f"the {scene}", "the {ATTRACTOR}"))
        numbers[active.template] += 1
    assert numbers == {"plural": 51, "singular": 50}
    assert frames == set(AGREEMENT_FRAMES)


def test_agreement_words_are_single_tokens(gpt2_tokenizer: Any, smollm2: Any) -> None:
    """Both numbers of every noun, every scene and both verbs, after a blank, in GPT-2 and in SmolLM2."""
    for tokenizer in (gpt2_tokenizer, smollm2.tokenizer):
        for word in [*itertools.chain(*COUNTABLE), *SCENES, "was", "were"]:
            assert len(pieces(tokenizer, " " + word)) == 1, word


@pytest.mark.parametrize("frame", AGREEMENT_FRAMES)
def test_smollm2_agrees_in_every_frame(frame: str, smollm2: Any) -> None:
    """What the frames were chosen by: the right verb is its first choice in at least 95 % (here of 40)."""
    right, difference = asked(smollm2, agreement(40, frames=[frame])[0])
    assert right >= 0.95
    assert (difference > 0).mean() >= 0.95


# Ownership


def test_ownership_by_position() -> None:
    """The answer is who has the asked thing; half ask for the first; in the control nobody has it."""
    templates = Counter()
    for active, control in zip(*ownership(51), strict=True):
        has = dict(part.split(" has a ")[::-1] for part in active.text.split(". ")[:2])
        asked, nobodys = active.name_at("THING2"), control.name_at("THING2")
        assert active.text.endswith(f". the {asked} belongs to")
        assert has[asked] == active.answer == active.name_at("OWNER") == control.name_at("OWNER")
        assert set(has.values()) == {active.answer, active.foil}
        assert active.name_at("OTHER") == active.foil
        assert active.name_at("THING1") == control.name_at("THING1") == asked
        assert active.spans["THING1"] < active.spans["THING2"]
        assert nobodys not in has
        assert (active.spans["OWNER"][0] == 0) == (active.template == "asked first")
        templates[active.template] += 1
    assert templates == {"asked first": 26, "asked second": 25}


# Greater-than


def test_years_by_position() -> None:
    """The control has 01 for YY; the end year is of the same century; there is no one right answer."""
    drawn = set()
    for active, control in zip(*greater_than(180), strict=True):
        century, yy = active.name_at("CENTURY"), active.name_at("YY")
        assert f"lasted from the year {century}{yy} to the year {century}" in active.text
        assert active.text.endswith(f" {century}")
        assert control.text == active.text.replace(century + yy, century + "01")
        assert (active.answer, active.foil, active.glue) == (None, None, "")
        assert active.answers == tuple(f"{end:02}" for end in range(100) if end > int(yy))
        assert active.foils == tuple(f"{end:02}" for end in range(100) if end <= int(yy))
        assert 2 <= int(yy) <= 98
        assert int(century + yy) not in OTHERWISE_SPLIT
        drawn.add(int(century))
    assert drawn == set(CENTURIES)


def test_years_digit_by_digit() -> None:
    """With ``digits`` the same prompts name four digits instead of two halves."""
    for side, by_digit in zip(greater_than(30), greater_than(30, digits=True), strict=True):
        for halves, digits in zip(side, by_digit, strict=True):
            assert replace(halves, spans={}) == replace(digits, spans={})
            assert [*digits.spans] == ["C1", "C2", "Y1", "Y2"]
            assert "".join(map(digits.name_at, digits.spans)) == halves.name_at("CENTURY") + halves.name_at("YY")
            assert digits.spans["C1"][0] == halves.spans["CENTURY"][0]


def test_given_years_are_drawn() -> None:
    """Of the given years every one, and no other."""
    years = [1745, 1746, 1850]
    drawn = {prompt.name_at("CENTURY") + prompt.name_at("YY") for prompt in greater_than(40, years=years)[0]}
    assert drawn == {str(year) for year in years}


def test_every_year_is_two_tokens(gpt2_tokenizer: Any) -> None:
    """Of all years 02-98 of all centuries, exactly the excluded ones are not [XX][YY]; every XX01 is."""
    split = {
        (century, yy)
        for century, yy in itertools.product(CENTURIES, range(1, 99))
        if pieces(gpt2_tokenizer, f"year {century}{yy:02}")[1:] == [f" {century}", f"{yy:02}"]
    }
    assert {(y // 100, y % 100) for y in OTHERWISE_SPLIT} == {*itertools.product(CENTURIES, range(1, 99))} - split
    assert split >= {(century, 1) for century in CENTURIES}
    assert all(len(gpt2_tokenizer.encode(f"{yy:02}")) == 1 for yy in range(100))


# Acronyms


def test_acronyms_by_position() -> None:
    """A1 and A2 are the first two initials, the answer the third; control letters and foil are in no word's initials."""
    for active, control in zip(*acronyms(100), strict=True):
        initials = [word[0] for word in active.text.split()[1:4]]
        assert [active.name_at(p) for p in ("C1", "C2", "C3")] == initials
        assert [active.name_at(p) for p in ("A1", "A2")] == initials[:2]
        assert active.text.endswith(f" ({initials[0]}{initials[1]}")
        letters = {*initials, active.foil, *(control.name_at(p) for p in ("A1", "A2"))}
        assert len(letters) == 6
        assert initials[2] == active.answer


def test_acronym_tokens(gpt2_tokenizer: Any) -> None:
    """Capitals and letters are tokens of their own; the text with the answer or the foil has exactly that token more."""
    for side in acronyms(100):
        for prompt in tokenize(side, gpt2_tokenizer, prepend_bos=False):
            for position in ("C1", "C2", "C3"):
                letter = prompt.prompt.name_at(position)
                assert prompt.tokens[prompt.position(position)] == f" {letter}"
            assert prompt.tokens[-3] == " ("
            assert list(prompt.tokens[-2:]) == [prompt.prompt.name_at(p) for p in ("A1", "A2")]
    for prompt in acronyms(100)[0]:
        for letter in (prompt.answer, prompt.foil):
            assert pieces(gpt2_tokenizer, prompt.text + letter) == [*pieces(gpt2_tokenizer, prompt.text), letter]


def test_letters_that_stay_apart(gpt2_tokenizer: Any) -> None:
    """`APART` has every pair of different letters that GPT-2 keeps apart after " (", and no other."""
    for one in string.ascii_uppercase:
        kept = [two for two in string.ascii_uppercase if pieces(gpt2_tokenizer, f" ({one}{two}") == [" (", one, two]]
        assert list(APART[one]) == [two for two in kept if two != one]


def test_no_letter_is_most_of_the_middle() -> None:
    """Z could be the middle letter of every third acronym; it is of less than every fifth."""
    middles = Counter(prompt.name_at("C2") for prompt in acronyms(300)[0])
    assert len(middles) > 10
    assert max(middles.values()) < 300 / 5


# Words


def test_words_are_single_tokens(gpt2_tokenizer: Any) -> None:
    """Words and owners at the beginning and after a blank, events after a blank, nouns as capital and rest."""
    for word in (*WORDS, *OWNERS):
        assert len(pieces(gpt2_tokenizer, word)) == len(pieces(gpt2_tokenizer, " " + word)) == 1
    assert all(len(pieces(gpt2_tokenizer, " " + event)) == 1 for event in EVENTS)
    assert all(pieces(gpt2_tokenizer, " " + noun) == [f" {noun[0]}", noun[1:]] for noun in NOUNS)
    assert pieces(gpt2_tokenizer, "Emma") == ["Em", "ma"]


def test_pools() -> None:
    """Large enough, distinct, and known to the demo model where it is asked."""
    pools = ((WORDS, 15), (THINGS, 15), (EVENTS, 20), (NOUNS, 20), (OWNERS, 11), (COUNTABLE, 40), (SCENES, 20))
    for pool, least in pools:
        assert len(set(pool)) == len(pool) >= least
    assert {*WORDS, *THINGS, *OWNERS, "belongs"} <= set(vocabulary())
    assert set(WORDS) - set(THINGS) == {"apple"}


def test_the_demo_model_refuses_words_it_does_not_know(words: Any) -> None:
    """Years, verbs in the past and acronyms are not in its vocabulary, and that is said."""
    for task in ("agreement", "greater-than", "acronyms"):
        with pytest.raises(ValueError, match="is not in this model's vocabulary"):
            tokenize(TASKS[task](2)[0], words)


FOUR = ("Kettle", "Wagon", "Joke", "Uprising")


@pytest.mark.parametrize(
    ("make", "pools", "exist"),
    [
        (ownership, {"names": OWNERS[:2], "things": THINGS[:3]}, 2 * 6 * 1),
        (ownership, {"names": OWNERS[:3], "things": THINGS[:4]}, 6 * 12 * 2),
        (greater_than, {"events": EVENTS[:2]}, 2 * 6),
        (greater_than, {"events": EVENTS[:2], "years": [1745, 1746, 1850]}, 2 * 2),
        (agreement, {"nouns": COUNTABLE[:3], "scenes": SCENES[:2], "frames": AGREEMENT_FRAMES[:2]}, 3 * 2 * 2),
        (acronyms, {"nouns": FOUR}, 4 + 6 + 6 + 2),
        (acronyms, {"nouns": (*FOUR, "Knee")}, 2 * 14 + 4),
    ],
)
def test_every_prompt_can_be_drawn_and_no_more(make: Task, pools: dict[str, Any], exist: int) -> None:
    """All that exist are drawn, each side without repetition; one more is refused.

    Of K, W, J, U these pairs stay apart: K before J, U, W; W before J, K, U; J before K, U, W; U before J, W. With the
    other two letters as answer and foil the middle can be K (after J, W), W or J (after all), or U (after K): each
    counts twice. Of these 18 acronyms 14 have a K: JWU, UWJ, WJU and UJW have none.
    """
    active, control = make(exist, **pools)
    assert len({p.text for p in active}) == len({p.text for p in control}) == exist
    with pytest.raises(ValueError, match=rf"n: expected 1 to {exist} prompts, .*, got {exist + 1}"):
        make(exist + 1, **pools)


def test_lists_that_exist() -> None:
    """Nine words make 9!/3! lists of six; one more is refused before anything is drawn."""
    with pytest.raises(ValueError, match=rf"n: expected 1 to {math.perm(9, 6)} prompts, .*, got 60481"):
        repeated_lists(60481, words=WORDS[:9])
    assert len(repeated_lists(40, words=WORDS[:9])[0]) == 40


BAD = {
    "n = 0": (repeated_lists, {"n": 0}, "n: expected 1 to .* got 0"),
    "n negative": (acronyms, {"n": -2}, "n: expected 1 to .* got -2"),
    "n as text": (agreement, {"n": "3"}, "n: expected 1 to .* got '3'$"),
    "n = None": (ownership, {"n": None}, "n: expected 1 to .* got None$"),
    "word twice": (repeated_lists, {"words": [*WORDS, "key"]}, "words: expected distinct words, got 'key' more than once"),
    "eight words": (repeated_lists, {"words": WORDS[:8]}, "words: expected at least 9 words, got 8"),
    "no copies": (repeated_lists, {"copies": 0}, "copies: expected at least 1, got 0"),
    "nothing shown": (repeated_lists, {"shown": 0}, "shown: expected 1 to 4 of 6 words, got 0"),
    "no foil": (repeated_lists, {"length": 4}, "shown: expected 1 to 2 of 4 words, got 3"),
    "long list": (repeated_lists, {"length": 20}, "words: expected at least 23 words, got 22"),
    "no scenes": (agreement, {"scenes": []}, "scenes: expected at least 1 scenes, got 0"),
    "noun twice": (agreement, {"nouns": [("key", "keys")] * 2}, "nouns: expected distinct nouns, got .'key', 'keys'."),
    "no slot": (agreement, {"frames": ["The {NOUN}"]}, "frames: expected {NOUN} and {ATTRACTOR} once each, got 'The"),
    "early year": (greater_than, {"years": [1701]}, "years: expected four digits of which the last two are 02 to 98"),
    "five digits": (greater_than, {"years": [17320]}, "years: expected four digits .* got 17320"),
    "no years": (greater_than, {"years": []}, "years: expected at least 1 years, got 0"),
    "nothing apart": (acronyms, {"apart": {}}, r"nouns: expected initials that make an acronym"),
    "one name": (ownership, {"names": ["Ann"]}, "names: expected at least 2 names, got 1"),
    "two things": (ownership, {"things": ["cup", "key"]}, "things: expected at least 3 things, got 2"),
    "a vowel": (ownership, {"things": WORDS}, "things: expected nouns that take \"a\", got 'apple'"),
    "name twice": (ownership, {"names": ["Ann", "Ann"]}, "names: expected distinct names, got 'Ann' more than once"),
    "no events": (greater_than, {"events": []}, "events: expected at least 1 events, got 0"),
    "event twice": (greater_than, {"events": ["war", "war"]}, "events: expected distinct events, got 'war'"),
    "small letter": (acronyms, {"nouns": [*FOUR, "yarn"]}, "nouns: expected capitalised words .* got 'yarn'"),
    "no rest": (acronyms, {"nouns": [*FOUR, "Y"]}, "nouns: expected capitalised words .* got 'Y'"),
    "no noun": (acronyms, {"nouns": [*FOUR, ""]}, "nouns: expected capitalised words .* got ''"),
    "three nouns": (acronyms, {"nouns": FOUR[:3]}, "nouns: expected at least 4 nouns, got 3"),
    "all merge": (acronyms, {"nouns": ["Aisle", "Burden", "Cement", "Dancer"]}, r"nouns: expected initials .* got \['A'"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "given", "words"), BAD.values(), ids=BAD)
def test_refusals(make: Task, given: dict[str, Any], words: str) -> None:
    """One sentence with the argument, what was expected and what came."""
    with pytest.raises(ValueError, match=words) as refused:
        make(**{"n": 1} | given)
    assert "\n" not in str(refused.value)


# What the demo model makes of them


@pytest.fixture(scope="module")
def demo() -> Any:
    return load_model("demo", device="cpu")


def asked(model: Any, prompts: Sequence[Prompt]) -> tuple[float, np.ndarray]:
    """Share of prompts to which the model's first word is the answer; logit(answer) - logit(foil) of each."""
    tokens = tokenize_for(model, prompts)
    with torch.no_grad():
        logits = model.hf(torch.tensor([p.ids for p in tokens]), logits_to_keep=1).logits[:, -1].numpy()
    right, wrong = zip(*([ids[0] for ids in readout_ids(model.tokenizer, p)] for p in prompts), strict=True)
    rows = np.arange(len(prompts))
    return float((logits.argmax(1) == right).mean()), logits[rows, right] - logits[rows, wrong]


def test_the_demo_model_continues_lists(demo: Any) -> None:
    """200 pairs: right in 99.5 %, logit difference 8.8 against 1.0 where nothing repeats."""
    (right, active), (by_chance, control) = (asked(demo, side) for side in repeated_lists(200))
    assert right > 0.96
    assert by_chance < 0.1
    assert active.mean() > 7
    assert abs(control.mean()) < 2
    assert (active > control).mean() > 0.97


def test_the_demo_model_knows_who_has_what(demo: Any) -> None:
    """200 pairs: right in all, logit difference 5.4 against 0.0 in the mean of the control."""
    prompts, controls = ownership(200)
    (right, active), (_, control) = (asked(demo, side) for side in (prompts, controls))
    assert right > 0.98
    assert active.mean() > 4
    assert abs(control.mean()) < 1
    first = np.array([p.template == "asked first" for p in prompts])
    # As the docstring says: without an owner it says the second name, which is OTHER where the first is asked for.
    assert control[first].mean() < -3
    assert control[~first].mean() > 3
    assert (active > control)[first].all()
