"""Contrasts: a task that a circuit does, and prompt by prompt the same text with nothing in it to do.

Each function returns ``(active, control)``, two lists of ``n`` prompts. A pair has the same number of tokens and differs
only in the words that pose the task, so it serves as clean and corrupt run of activation patching. Both sides carry
the answer and foil of the active prompt and name the same positions; a position is a place, and at some of them the
control has another word.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from helpers.prompts.drawing import Pair, Sides, check_frames, check_pool, draw_pairs, make_pair
from helpers.prompts.initials import acronyms
from helpers.prompts.ioi import minimal_pairs
from helpers.prompts.prompt import Prompt
from helpers.prompts.words import COUNTABLE, EVENTS, OWNERS, SCENES, THINGS, WORDS, YEARS

OWNERSHIP_FRAMES = {
    "asked first": "{OWNER} has a {THING1}. {OTHER} has a {THING}. the {THING2} belongs to",
    "asked second": "{OTHER} has a {THING}. {OWNER} has a {THING1}. the {THING2} belongs to",
}
YEAR_FRAME = "The {EVENT} lasted from the year {CENTURY}{YY} to the year {SAME}"
DIGIT_FRAME = YEAR_FRAME.replace("{CENTURY}{YY}", "{C1}{C2}{Y1}{Y2}")
AGREEMENT_FRAMES: tuple[str, ...] = (
    "The {NOUN} we saw in the {ATTRACTOR} last week",
    "The {NOUN} they found in the {ATTRACTOR} last year",
    "The {NOUN} he saw at the {ATTRACTOR} last night",
    "The {NOUN} she saw behind the {ATTRACTOR} last month",
    "The {NOUN} they saw near the {ATTRACTOR} last summer",
)


def ioi_pairs(n: int = 50, **options: Any) -> Sides:
    """`helpers.prompts.ioi.minimal_pairs` with the positions IO, S1 and S2 on both sides."""
    active, control = minimal_pairs(n, **options)
    return active, named_like_ioi(control)


def named_like_ioi(prompts: Iterable[Prompt]) -> list[Prompt]:
    """ABC prompts whose A, B, C are called IO, S1, S2, so that both sets name the same positions."""
    names = {"A": "IO", "B": "S1", "C": "S2"}
    return [replace(p, spans={names[n]: span for n, span in p.spans.items()}) for p in prompts]


def repeated_lists(
    n: int = 50, *, words: Sequence[str] = WORDS, length: int = 6, shown: int = 3, copies: int = 1, seed: int = 0
) -> Sides:
    """A list of words and its first few again, against the list and as many fresh words. The task of induction heads.

    "ring key cup book ball hat ring key cup" -> "book"; in the control nothing repeats: "... hat map coin box". With
    ``copies`` > 1 both sides say the whole list more than once before that, and the control leaves it at the same place.

    Positions: A1 = the last word's mention in the last whole list, B = the word after it, which is the answer, A2 = the
    last word (= END). Foil: in turn one of the list's words after the answer. Like the answer it stands once a copy on
    either side, but after another word; a head that copies words whatever stood before them favours neither, unless it
    has a preference for places.

    Args:
        length: words of the list.
        shown: how many of them are said again at the end, from 1 to length - 2.
        copies: how often the whole list is said before that.

    Raises:
        ValueError: if length, shown or copies are out of range, or words repeat, are fewer than length + shown, or make
            fewer than ``n`` prompts.
    """
    if copies < 1:
        raise ValueError(f"copies: expected at least 1, got {copies}")
    if not 1 <= shown <= length - 2:
        raise ValueError(f"shown: expected 1 to {length - 2} of {length} words, got {shown}")
    check_pool("words", words, least=length + shown)
    slots = [f"word{place}" for place in range(copies * length + shown)]
    slots[(copies - 1) * length + shown - 1], slots[(copies - 1) * length + shown], slots[-1] = "A1", "B", "A2"
    frame = " ".join(f"{{{slot}}}" for slot in slots)

    def draw(rng: random.Random, number: int) -> Pair:
        drawn = rng.sample(list(words), length + shown)
        said, fresh = drawn[:length], drawn[length:]
        foil = said[shown + 1 + number % (length - shown - 1)]
        active, control = (dict(zip(slots, said * copies + end, strict=True)) for end in (said[:shown], fresh))
        return make_pair(frame, active, control, ("A1", "B", "A2"), "repeated list", answer=said[shown], foil=foil)

    return draw_pairs(n, math.perm(len(words), length), draw, seed)


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
    check_pool("names", names, least=2)
    check_pool("things", things, least=3)
    for thing in things:
        if thing[:1].lower() in "aeiou":
            raise ValueError(f'things: expected nouns that take "a", got {thing!r}')

    def draw(rng: random.Random, number: int) -> Pair:
        (owner, other), (thing, others, nobodys) = rng.sample(list(names), 2), rng.sample(list(things), 3)
        template = tuple(OWNERSHIP_FRAMES)[number % 2]
        told = {"OWNER": owner, "OTHER": other, "THING1": thing, "THING": others}
        active, control = (told | {"THING2": asked} for asked in (thing, nobodys))
        named = ("OWNER", "OTHER", "THING1", "THING2")
        return make_pair(OWNERSHIP_FRAMES[template], active, control, named, template, answer=owner, foil=other)

    # Two questions can be asked about each story, but with three things there is one control for both.
    exist = math.perm(len(names), 2) * math.perm(len(things), 2) * min(2, len(things) - 2)
    return draw_pairs(n, exist, draw, seed)


def agreement(
    n: int = 50,
    *,
    nouns: Sequence[tuple[str, str]] = COUNTABLE,
    scenes: Sequence[str] = SCENES,
    frames: Sequence[str] = AGREEMENT_FRAMES,
    seed: int = 0,
) -> Sides:
    """Subject-verb agreement across a noun, against a subject of the other number.

    "The keys we saw in the cabinet last week" -> "were", foil "was"; control: "The key we saw ...". In every other pair
    the active subject is plural: ``template`` is "plural" or "singular". The noun between is always singular.

    The frames were chosen by accuracy alone: SmolLM2-135M-Instruct, with BOS ``<|endoftext|>``, was asked 192 prompts of
    each of 17 frames, half of them plural. The right verb was its first choice in at least 95 % of nine frames, and in
    at least 99 % of each of these five.

    Positions: NOUN = the subject, ATTRACTOR = the noun between.

    Args:
        nouns: (singular, plural) of each subject.
        scenes: the nouns between.
        frames: sentences with {NOUN} and {ATTRACTOR} up to the verb.

    Raises:
        ValueError: if nouns, scenes or frames repeat or make fewer than ``n`` prompts.

    Source: the task is that of Linzen et al. 2016 (arXiv:1611.01368).
    """
    for what, pool in (("nouns", nouns), ("scenes", scenes), ("frames", frames)):
        check_pool(what, pool, least=1)
    check_frames(frames, ("NOUN", "ATTRACTOR"))

    def draw(rng: random.Random, number: int) -> Pair:
        frame, scene, (one, many) = rng.choice(list(frames)), rng.choice(list(scenes)), rng.choice(list(nouns))
        template = ("plural", "singular")[number % 2]
        subjects, verbs = ((many, one), ("were", "was")) if template == "plural" else ((one, many), ("was", "were"))
        active, control = ({"NOUN": noun, "ATTRACTOR": scene} for noun in subjects)
        answer, foil = verbs
        return make_pair(frame, active, control, ("NOUN", "ATTRACTOR"), template, answer=answer, foil=foil)

    return draw_pairs(n, len(nouns) * len(scenes) * len(frames), draw, seed)


def greater_than(
    n: int = 50,
    *,
    events: Sequence[str] = EVENTS,
    years: Sequence[int] = YEARS,
    digits: bool = False,
    seed: int = 0,
) -> Sides:
    """A year that an end year must exceed, against one that excludes next to nothing.

    "The war lasted from the year 1732 to the year 17" -> "33" or more; control: "... from the year 1701 ...". Many
    answers are right, so answer and foil are None: ``answers`` are the two digits yy > YY and ``foils`` yy <= YY, with YY
    the active prompt's on both sides. The readout is P(answers) - P(foils), over first tokens (see `readout_ids`).

    YY is drawn from 02 to 98, the century from 12 to 17, without the years that GPT-2 splits otherwise. (The authors'
    script draws from all years 1000-1900 that are two tokens.) No two prompts share event and century, as their
    controls would be the same.

    Positions: CENTURY and YY, the two tokens of the first year; END is the century again. With ``digits``, for tokenizers
    of which each digit is a token: C1, C2, Y1, Y2, the four digits of the first year; END is C2 again.

    Args:
        events: what lasted.
        years: four-digit first years, YY from 02 to 98.
        digits: name each digit.

    Raises:
        ValueError: if events or years repeat, a year is out of range, or they make fewer than ``n`` prompts.

    Source: Hanna et al. 2023 (arXiv:2305.00586); the control is their corrupted run.
    """
    check_pool("events", events, least=1)
    check_pool("years", years, least=1)
    for year in years:
        if not (1000 <= year <= 9999 and 2 <= year % 100 <= 98):
            raise ValueError(f"years: expected four digits of which the last two are 02 to 98, got {year}")
    centuries = sorted({year // 100 for year in years})

    def draw(rng: random.Random, number: int) -> Pair:
        event, century = rng.choice(list(events)), rng.choice(centuries)
        yy = rng.choice([year % 100 for year in years if year // 100 == century])
        active, control = (year_words(event, 100 * century + end) for end in (yy, 1))
        named = ("C1", "C2", "Y1", "Y2") if digits else ("CENTURY", "YY")
        ends = tuple(f"{end:02}" for end in range(100))
        readout = {"glue": "", "answers": ends[yy + 1 :], "foils": ends[: yy + 1]}
        return make_pair(DIGIT_FRAME if digits else YEAR_FRAME, active, control, named, "greater than", **readout)

    return draw_pairs(n, len(events) * len(centuries), draw, seed)


def year_words(event: str, year: int) -> dict[str, str]:
    """What fills the slots of `YEAR_FRAME` and `DIGIT_FRAME`."""
    text = str(year)
    halves = {"CENTURY": text[:2], "YY": text[2:], "SAME": text[:2]}
    return {"EVENT": event} | halves | dict(zip(("C1", "C2", "Y1", "Y2"), text, strict=True))


#: The contrasts that the pipeline knows, by name. A new one is a function like these: ``(n, *, seed)`` -> two lists of
#: ``n`` prompts, paired in order.
TASKS: dict[str, Callable[..., Sides]] = {
    "IOI": ioi_pairs,
    "repeated lists": repeated_lists,
    "ownership": ownership,
    "agreement": agreement,
    "greater-than": greater_than,
    "acronyms": acronyms,
}
