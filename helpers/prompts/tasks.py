"""Contrasts: a task that a circuit does, and prompt by prompt the same text with nothing in it to do.

Each function returns ``(active, control)``, two lists of ``n`` prompts. A pair has the same number of tokens and differs
only in the words that pose the task, so it serves as clean and corrupt run of activation patching. Both sides carry
the answer and foil of the active prompt and name the same positions; a position is a place, and at some of them the
control has another word.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from helpers.prompts.ioi import NAMES, minimal_pairs
from helpers.prompts.prompt import Prompt, fill

Pair = tuple[Prompt, Prompt]
Sides = tuple[list[Prompt], list[Prompt]]

#: Nouns that the demo model knows and that are one token of GPT-2, at the beginning of a text as well as after a blank.
WORDS: tuple[str, ...] = (
    "ring", "key", "cup", "book", "ball", "hat", "coat", "map", "coin", "box", "pen", "ticket", "letter", "clock",
    "knife", "chair", "table", "note", "menu", "message", "apple", "story",
)  # fmt: skip

#: Those that take "a": with "an", another thing in the same place would need another article.
THINGS: tuple[str, ...] = tuple(word for word in WORDS if word[0] not in "aeiou")

#: `helpers.prompts.ioi.NAMES` that are one token at the beginning of a text too, where "Emma" is two.
OWNERS: tuple[str, ...] = tuple(name for name in NAMES if name != "Emma")

#: What lasts from one year to another; each one token of GPT-2.
EVENTS: tuple[str, ...] = (
    "war", "siege", "strike", "voyage", "trial", "plague", "drought", "festival", "tour", "campaign", "rebellion",
    "feud", "truce", "marriage", "journey", "expedition", "occupation", "reign", "crisis", "revolt", "dispute",
    "conflict", "blockade", "exile", "alliance", "treaty", "contract", "partnership", "famine", "epidemic",
)  # fmt: skip

#: Centuries of the years, and those of their years 02-98 that GPT-2 doesn't split into [XX][YY].
CENTURIES = range(12, 18)
OTHERWISE_SPLIT = frozenset([1280, *range(1302, 1310), 1440, *range(1502, 1510)])

#: Capitalised nouns that are two tokens of GPT-2 after a blank: the capital letter, and the rest.
NOUNS: tuple[str, ...] = (
    "Aisle", "Aperture", "Aroma", "Bamboo", "Basket", "Burden", "Cabbage", "Cement", "Cottage", "Dancer", "Density",
    "Drought", "Ecosystem", "Eruption", "Famine", "Fence", "Fixture", "Gland", "Gossip", "Gown", "Hiatus", "Hinge",
    "Hose", "Jargon", "Joke", "Jumper", "Kettle", "Kitten", "Knee", "Laptop", "Lighthouse", "Locker", "Mango",
    "Mixture", "Mural", "Nerve", "Noun", "Oven", "Ozone", "Paddle", "Pavement", "Podium", "Ransom", "Rope", "Routine",
    "Sibling", "Sink", "Sock", "Tension", "Tissue", "Tribute", "Uprising", "Veto", "Vodka", "Wagon", "Widget", "Wrist",
    "Yacht", "Yarn", "Zipper",
)  # fmt: skip

#: Which letters stay tokens of their own after each letter; the other pairs ("CE") are one token of GPT-2.
APART: Mapping[str, str] = {
    "A": "JOQ", "B": "HJKQVXZ", "C": "JKQXYZ", "D": "GQUVYZ", "E": "IJKQZ", "F": "JQVZ", "G": "JKQXZ",
    "H": "GJNUVWXZ", "I": "HWY", "J": "EFGHIKLNQTUWXYZ", "K": "DFGHJLMPQUVWXZ", "L": "FHJKNQWXZ", "M": "VZ",
    "N": "QUX", "O": "IJQZ", "P": "JQVWXYZ", "Q": "ACDEFGHIJKMNOPRSTVWXYZ", "R": "JKQUVXZ", "S": "JQVXZ",
    "T": "JKQUZ", "U": "HJOQWYZ", "V": "FHJNQUXYZ", "W": "GJKLOQUVXYZ", "X": "ABCDEFGHIJKNOQRSUVWZ",
    "Y": "BFGHIJKMOQTUVWXZ", "Z": "BCDFGHJKLMNOPQRSTUVWY",
}  # fmt: skip

_LIST = "{1} {2} {A1} {B} {5} {6} {7} {8} {A2}"
_OWNERSHIP = {
    "asked first": "{OWNER} has a {THING1}. {OTHER} has a {THING}. the {THING2} belongs to",
    "asked second": "{OTHER} has a {THING}. {OWNER} has a {THING1}. the {THING2} belongs to",
}
_YEARS = "The {EVENT} lasted from the year {CENTURY}{YY} to the year {SAME}"
_ACRONYM = "The {C1}{rest1} {C2}{rest2} {C3}{rest3} ({A1}{A2}"


def ioi(n: int = 50, **options: Any) -> Sides:
    """`helpers.prompts.ioi.minimal_pairs` with the positions IO, S1 and S2 on both sides."""
    active, control = minimal_pairs(n, **options)
    return active, named_like_ioi(control)


def named_like_ioi(prompts: Iterable[Prompt]) -> list[Prompt]:
    """ABC prompts whose A, B, C are called IO, S1, S2, so that both sets name the same positions."""
    names = {"A": "IO", "B": "S1", "C": "S2"}
    return [replace(p, spans={names[n]: span for n, span in p.spans.items()}) for p in prompts]


def repeated_lists(n: int = 50, *, words: Sequence[str] = WORDS, seed: int = 0) -> Sides:
    """Six words and the first three again, against six words and three fresh ones. The task of induction heads.

    "ring key cup book ball hat ring key cup" -> "book"; in the control nothing repeats: "... hat map coin box".

    Positions: A1 = first mention of the last word, B = the word after it, which is the answer, A2 = the last word (=
    END). Foil: the fifth or the sixth word in turn. Like the answer it stands once on either side, but after another
    word; a head that copies words whatever stood before them favours neither, unless it has a preference for places.

    Raises:
        ValueError: if words repeat, are fewer than nine, or make fewer than ``n`` prompts.
    """
    _check_pool("words", words, least=9)

    def draw(rng: random.Random, number: int) -> Pair:
        drawn = rng.sample(list(words), 9)
        foil = drawn[4 + number % 2]
        lists = (drawn[:6] + drawn[:3], drawn)
        active, control = (dict(zip(("1", "2", "A1", "B", *"5678", "A2"), side, strict=True)) for side in lists)
        return _pair(_LIST, active, control, ("A1", "B", "A2"), "repeated list", answer=drawn[3], foil=foil)

    return _draw_pairs(n, math.perm(len(words), 6), draw, seed)


def ownership(n: int = 50, *, names: Sequence[str] = OWNERS, things: Sequence[str] = THINGS, seed: int = 0) -> Sides:
    """Who has what, against a thing that nobody has.

    "Mary has a ring. John has a key. the ring belongs to" -> "Mary", foil "John"; control: "... the cup belongs to".
    ("the" is lower case because the demo model was trained so.) In every other pair the second thing is asked for:
    ``template`` is "asked first" or "asked second".

    The halves differ: to the control the demo model says the second name, so that its answer has to change in the pairs
    "asked first" alone.

    Positions: OWNER and OTHER, THING1 = the owner's thing, THING2 = the thing that is asked for.

    Raises:
        ValueError: if names or things repeat, are fewer than two and three, make fewer than ``n`` prompts, or a thing
            takes "an".
    """
    _check_pool("names", names, least=2)
    _check_pool("things", things, least=3)
    for thing in things:
        if thing[:1].lower() in "aeiou":
            raise ValueError(f'things: expected nouns that take "a", got {thing!r}')

    def draw(rng: random.Random, number: int) -> Pair:
        (owner, other), (thing, others, nobodys) = rng.sample(list(names), 2), rng.sample(list(things), 3)
        template = tuple(_OWNERSHIP)[number % 2]
        told = {"OWNER": owner, "OTHER": other, "THING1": thing, "THING": others}
        active, control = (told | {"THING2": asked} for asked in (thing, nobodys))
        named = ("OWNER", "OTHER", "THING1", "THING2")
        return _pair(_OWNERSHIP[template], active, control, named, template, answer=owner, foil=other)

    # Two questions can be asked about each story, but with three things there is one control for both.
    exist = math.perm(len(names), 2) * math.perm(len(things), 2) * min(2, len(things) - 2)
    return _draw_pairs(n, exist, draw, seed)


def greater_than(n: int = 50, *, events: Sequence[str] = EVENTS, seed: int = 0) -> Sides:
    """A year that an end year must exceed, against one that excludes next to nothing.

    "The war lasted from the year 1732 to the year 17" -> "33" or more; control: "... from the year 1701 ...". Many
    answers are right, so answer and foil are None. The readout is not a logit difference but a sum over the two-digit
    tokens yy: P(yy > YY) - P(yy <= YY), with YY the active prompt's on both sides.

    YY is drawn from 02 to 98, the century from `CENTURIES`, without the years that GPT-2 splits otherwise. (The authors'
    script draws from all years 1000-1900 that are two tokens.) No two prompts share event and century, as their
    controls would be the same.

    Positions: CENTURY and YY, the two tokens of the first year; END is the century again.

    Raises:
        ValueError: if events repeat or make fewer than ``n`` prompts.

    Source: Hanna et al. 2023 (arXiv:2305.00586); the control is their corrupted run.
    """
    _check_pool("events", events, least=1)

    def draw(rng: random.Random, number: int) -> Pair:
        event, century = rng.choice(list(events)), rng.choice(CENTURIES)
        yy = rng.choice([yy for yy in range(2, 99) if 100 * century + yy not in OTHERWISE_SPLIT])
        told = {"EVENT": event, "CENTURY": str(century), "SAME": str(century)}
        active, control = (told | {"YY": f"{year:02}"} for year in (yy, 1))
        return _pair(_YEARS, active, control, ("CENTURY", "YY"), "greater than")

    return _draw_pairs(n, len(events) * len(CENTURIES), draw, seed)


def acronyms(n: int = 50, *, nouns: Sequence[str] = NOUNS, seed: int = 0) -> Sides:
    """An acronym but for its last letter, against two letters that begin no word of it.

    "The Kitten Wagon Joke (KW" -> "J"; control: "The Kitten Wagon Joke (YB". The answer follows without a blank
    (`Prompt.glue`). Foil: a letter that is not in the acronym and could stand in the answer's place: answer
    and foil are drawn alike, so that a preference for one letter cancels in the mean.

    Every word is two tokens, the capital letter and the rest, and every letter of the acronym one: no two neighbours
    are a pair that GPT-2 merges (see `APART`). This leaves few pairs and makes Z, J and K frequent.

    Positions: C1, C2, C3 = the capitals; A1, A2 = the two letters in the parenthesis (A2 = END).

    Raises:
        ValueError: if nouns repeat, are not capitalised, have no usable initials, or make fewer than ``n`` prompts.

    Source: the prompts' form is that of García-Carrasco et al. 2024 (arXiv:2405.04156).
    """
    _check_pool("nouns", nouns, least=4)
    by_initial = _by_initial(nouns)
    letters = _acronym_letters("".join(by_initial))
    if not letters:
        raise ValueError(f"nouns: expected initials that make an acronym of one-letter tokens, got {list(by_initial)}")

    def draw(rng: random.Random, number: int) -> Pair:
        # The middle letter first: of all possible acronyms every third has a Z there.
        middle = rng.choice(sorted({b for _, b, _, _ in letters}))
        *initials, foil = rng.choice([four for four in letters if four[1] == middle])
        words = [rng.choice(by_initial[initial]) for initial in initials]
        told = {f"C{i}": word[0] for i, word in enumerate(words, 1)}
        told |= {f"rest{i}": word[1:] for i, word in enumerate(words, 1)}
        pairs = (initials[:2], _two_letters(rng, without={*initials, foil}))
        active, control = (told | {"A1": one, "A2": two} for one, two in pairs)
        named = ("C1", "C2", "C3", "A1", "A2")
        return _pair(_ACRONYM, active, control, named, "acronym", answer=initials[2], foil=foil, glue="")

    size = {initial: len(words) for initial, words in by_initial.items()}
    exist = sum(size[a] * size[b] * size[c] for a, b, c in {four[:3] for four in letters})
    return _draw_pairs(n, exist, draw, seed)


#: The contrasts that the pipeline knows, by name. A new one is a function like these: ``(n, *, seed)`` -> two lists of
#: ``n`` prompts, paired in order.
TASKS: dict[str, Callable[..., Sides]] = {
    "IOI": ioi,
    "repeated lists": repeated_lists,
    "ownership": ownership,
    "greater-than": greater_than,
    "acronyms": acronyms,
}


def _by_initial(nouns: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for noun in nouns:
        if noun[:1] not in APART or not noun[1:].isalpha():
            raise ValueError(f"nouns: expected capitalised words of two letters or more, got {noun!r}")
        found.setdefault(noun[0], []).append(noun)
    return found


def _acronym_letters(initials: str) -> list[tuple[str, str, str, str]]:
    """All (first, middle, answer, foil) of four different initials in which no neighbours merge."""
    return [
        (a, b, c, foil)
        for a, b in itertools.permutations(initials, 2)
        if b in APART[a]
        for c, foil in itertools.permutations([letter for letter in APART[b] if letter in initials], 2)
        if a not in (c, foil)
    ]


def _two_letters(rng: random.Random, without: set[str]) -> tuple[str, str]:
    """Two letters that stay apart, as a control's: none of them in the acronym or its foil."""
    free = {one: [two for two in after if two not in without] for one, after in APART.items() if one not in without}
    one = rng.choice([one for one, after in free.items() if after])
    return one, rng.choice(free[one])


def _pair(
    frame: str,
    active: Mapping[str, str],
    control: Mapping[str, str],
    positions: Sequence[str],
    template: str,
    answer: str | None = None,
    foil: str | None = None,
    glue: str = " ",
) -> Pair:
    """One frame filled twice, with the named slots as positions."""

    def prompt(words: Mapping[str, str]) -> Prompt:
        text, spans = fill(frame, words)
        return Prompt(text, template, spans={p: spans[p] for p in positions}, answer=answer, foil=foil, glue=glue)

    return prompt(active), prompt(control)


def _draw_pairs(n: int, exist: int, draw: Callable[[random.Random, int], Pair], seed: int) -> Sides:
    """Pairs until there are ``n``, each with an active and a control prompt that did not occur before."""
    if not 1 <= n <= exist:
        raise ValueError(f"n: expected 1 to {exist} prompts, as many as these words make, got {n}")
    rng = random.Random(seed)
    pairs: list[Pair] = []
    seen: set[str] = set()
    while len(pairs) < n:
        pair = draw(rng, len(pairs))
        texts = {prompt.text for prompt in pair}
        if not texts & seen:
            seen |= texts
            pairs.append(pair)
    return [active for active, _ in pairs], [control for _, control in pairs]


def _check_pool(what: str, pool: Sequence[str], *, least: int) -> None:
    for item in pool:
        if list(pool).count(item) > 1:
            raise ValueError(f"{what}: expected distinct {what}, got {item!r} more than once")
    if len(pool) < least:
        raise ValueError(f"{what}: expected at least {least} {what}, got {len(pool)}")
