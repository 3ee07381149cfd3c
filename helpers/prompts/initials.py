"""Three-letter acronyms but for their last letter: a contrast whose answer is a letter."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

from helpers.prompts.drawing import Pair, Sides, TooFew, check_pool, draw_pairs, make_pair
from helpers.prompts.words import APART, NOUNS

ACRONYM_FRAME = "The {C1}{rest1} {C2}{rest2} {C3}{rest3} ({A1}{A2}"


def acronyms(n: int = 50, *, nouns: Sequence[str] = NOUNS, apart: Mapping[str, str] = APART, seed: int = 0) -> Sides:
    """An acronym but for its last letter, against two letters that begin no word of it.

    "The Kitten Wagon Joke (KW" -> "J"; control: "The Kitten Wagon Joke (YB". The answer follows without a blank
    (`Prompt.glue`). Foil: a letter that is not in the acronym and could stand in the answer's place: answer
    and foil are drawn alike, so that a preference for one letter cancels in the mean.

    Every word is two tokens, the capital letter and the rest, and every letter of the acronym one: no two neighbours
    are a pair that the tokenizer merges: ``apart`` has the letters that each letter stays apart from. GPT-2 leaves few
    pairs, which makes Z, J and K frequent.

    Positions: C1, C2, C3 = the capitals; A1, A2 = the two letters in the parenthesis (A2 = END).

    Raises:
        ValueError: if nouns repeat, are not capitalised, have no usable initials, or make fewer than ``n`` prompts.

    Source: the prompts' form is that of García-Carrasco et al. 2024 (arXiv:2405.04156).
    """
    check_pool("nouns", nouns, least=4)
    by_initial = _by_initial(nouns)
    letters = _acronym_letters("".join(by_initial), apart)
    if not letters:
        message = f"nouns: expected initials that make an acronym of one-letter tokens, got {list(by_initial)}"
        raise TooFew(message, 0)

    def draw(rng: random.Random, number: int) -> Pair:
        # The middle letter first: of all possible acronyms every third has a Z there.
        middle = rng.choice(sorted({b for _, b, _, _ in letters}))
        *initials, foil = rng.choice([four for four in letters if four[1] == middle])
        words = [rng.choice(by_initial[initial]) for initial in initials]
        told = {f"C{i}": word[0] for i, word in enumerate(words, 1)}
        told |= {f"rest{i}": word[1:] for i, word in enumerate(words, 1)}
        pairs = (initials[:2], _two_letters(rng, apart, without={*initials, foil}))
        active, control = (told | {"A1": one, "A2": two} for one, two in pairs)
        named = ("C1", "C2", "C3", "A1", "A2")
        return make_pair(ACRONYM_FRAME, active, control, named, "acronym", answer=initials[2], foil=foil, glue="")

    size = {initial: len(words) for initial, words in by_initial.items()}
    exist = sum(size[a] * size[b] * size[c] for a, b, c in {four[:3] for four in letters})
    return draw_pairs(n, exist, draw, seed)


def _by_initial(nouns: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for noun in nouns:
        if not "A" <= noun[:1] <= "Z" or not noun[1:].isalpha():
            raise ValueError(f"nouns: expected capitalised words of two letters or more, got {noun!r}")
        found.setdefault(noun[0], []).append(noun)
    return found


def _acronym_letters(initials: str, apart: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """All (first, middle, answer, foil) of four different initials in which no neighbours merge."""
    return [
        (a, b, c, foil)
        for a, b in itertools.permutations(initials, 2)
        if b in apart.get(a, "")
        for c, foil in itertools.permutations([letter for letter in apart.get(b, "") if letter in initials], 2)
        if a not in (c, foil)
    ]


def _two_letters(rng: random.Random, apart: Mapping[str, str], without: set[str]) -> tuple[str, str]:
    """Two letters that stay apart, as a control's: none of them in the acronym or its foil."""
    free = {one: [two for two in after if two not in without] for one, after in apart.items() if one not in without}
    firsts = [one for one, after in free.items() if after]
    if not firsts:
        raise TooFew(f"apart: expected two letters for the control beside {', '.join(sorted(without))}, got none", 0)
    one = rng.choice(firsts)
    return one, rng.choice(free[one])
