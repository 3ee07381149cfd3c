"""The synthetic English that the demo model is trained on.

Nine kinds of sentences over a closed vocabulary. A document is BOS and one to three sentences. IOI and ABC are two
of the kinds; the others give every head something else to do, without which none has an idle state to leave.
All randomness comes from the ``random.Random`` that is passed in.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from helpers.prompts.ioi import FRAMES, NAMES, abc_prompt, abc_prompts, ioi_prompt, ioi_prompts

BOS, UNK = "<|endoftext|>", "<unk>"

FEMALE = (
    "Mary", "Alice", "Sarah", "Emma", "Lisa", "Kate", "Anna", "Laura", "Julia", "Ruth", "Nina", "Clara",
    "Diana", "Eva", "Fiona", "Grace", "Hannah", "Irene", "Jane", "Karen", "Linda", "Maria", "Nancy", "Olivia",
    "Paula", "Rachel", "Sophie", "Tina", "Ursula", "Vera", "Wendy", "Amy", "Betty", "Carol", "Donna", "Ellen",
    "Flora", "Gina", "Helen", "Ida", "Judy", "Kelly", "Lucy", "Molly", "Nora", "Olga", "Pamela", "Rita",
    "Susan", "Tara", "Ivy", "Zoe", "Alma", "Bella", "Cora", "Dora", "Edith", "Faith", "Gloria", "Hilda",
)  # fmt: skip
MALE = (
    "John", "Bob", "Tom", "James", "David", "Mark", "Peter", "Paul", "Simon", "Henry", "Oscar", "Frank", "Adam",
    "Brian", "Carl", "Daniel", "Eric", "Fred", "George", "Harry", "Ivan", "Jack", "Kevin", "Leo", "Martin",
    "Nick", "Oliver", "Patrick", "Robert", "Steve", "Thomas", "Victor", "Walter", "Alan", "Ben", "Chris",
    "Dennis", "Edward", "Felix", "Gary", "Hugo", "Isaac", "Jacob", "Karl", "Louis", "Max", "Neil", "Otto",
    "Philip", "Ralph", "Samuel", "Tim", "Vincent", "William", "Arthur", "Bruno", "Colin", "Derek", "Evan",
    "Greg",
)  # fmt: skip
ALL_NAMES = FEMALE + MALE

EXTRA_FRAMES = (
    "When {X} and {Y} came to the school, {GIVER} lent a pencil to",
    "When {X} and {Y} walked to the beach, {GIVER} threw a ball to",
    "When {X} and {Y} sat down in the garden, {GIVER} offered an apple to",
    "After {X} and {Y} met at the station, {GIVER} sold a ticket to",
    "After {X} and {Y} went to the market, {GIVER} handed a coin to",
    "While {X} and {Y} waited in the library, {GIVER} read a story to",
    "While {X} and {Y} worked at the farm, {GIVER} brought a lamp to",
)
ALL_FRAMES = FRAMES + EXTRA_FRAMES

OBJECTS = (
    "ring", "key", "cup", "lamp", "book", "ball", "hat", "coat", "map", "coin", "box", "pen", "pencil", "ticket",
    "letter", "clock", "knife", "spoon", "bottle", "basket", "chair", "table", "mirror", "candle", "drink", "note",
    "menu", "message", "gift", "apple", "story",
)  # fmt: skip
PLACES = (
    "store", "park", "office", "restaurant", "room", "cafe", "school", "beach", "garden", "station", "market",
    "library", "farm", "kitchen", "museum", "forest",
)  # fmt: skip
ADJECTIVES = ("red", "blue", "green", "old", "new", "small", "big", "white", "black", "round")
SEQUENCES = (
    ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
)
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("old", "new"), ("up", "down"), ("day", "night"), ("black", "white"),
    ("fast", "slow"), ("open", "closed"), ("rich", "poor"), ("long", "short"), ("happy", "sad"), ("wet", "dry"),
)  # fmt: skip
KINDS_OF_THING = {
    "animal": ("dog", "cat", "horse", "cow", "bear"),
    "fruit": ("apple", "pear", "plum", "peach", "grape"),
    "tool": ("hammer", "saw", "knife", "spoon", "pen"),
    "plant": ("rose", "tulip", "oak", "fern", "pine"),
}


@dataclass(frozen=True)
class Sentence:
    """A sentence split where the model is asked: ``prompt`` -> ``answer``, then ``rest``.

    ``answer`` is empty where nothing determines a next word. ``other`` is a second answer that is exactly as good; such
    a sentence always enters training with both, so that no order of names can be preferred by accident.
    """

    prompt: str
    answer: str = ""
    rest: str = "."
    other: str = ""

    @property
    def text(self) -> str:
        return " ".join(part for part in (self.prompt, self.answer, self.rest) if part)

    @property
    def mirrored(self) -> Sentence:
        """The same sentence with the other answer, if it has one."""
        return replace(self, answer=self.other, other=self.answer) if self.other else self

    @property
    def is_determined(self) -> bool:
        """Whether there is one right next word."""
        return bool(self.answer) and not self.other


@cache
def held_out() -> frozenset[tuple[str, frozenset[str]]]:
    """(frame, name pair) combinations that never occur in training, neither as IOI nor as ABC.

    They are those of the post's 100 prompts, and a fifth of the others, over the post's frames and names.
    """
    post = {
        (FRAMES[p.frame], frozenset((p.answer, p.foil)))
        for p in ioi_prompts() + abc_prompts()
        if p.frame is not None and p.answer and p.foil
    }
    others = [
        (frame, frozenset(pair))
        for frame in FRAMES
        for pair in itertools.combinations(NAMES, 2)
        if (frame, frozenset(pair)) not in post
    ]
    random.Random(0).shuffle(others)
    return frozenset(post) | frozenset(others[: len(others) // 5])


def _frame_and_names(rng: random.Random, n_names: int) -> tuple[int, list[str]]:
    while True:
        frame, names = rng.randrange(len(ALL_FRAMES)), rng.sample(ALL_NAMES, n_names)
        if (ALL_FRAMES[frame], frozenset(names[:2])) not in held_out():
            return frame, names


def ioi(rng: random.Random) -> Sentence:
    """When Mary and John went to the store, John gave a drink to -> Mary"""
    frame, (io, s) = _frame_and_names(rng, 2)
    return Sentence(ioi_prompt(rng.choice(("ABBA", "BABA")), frame, io, s, frames=ALL_FRAMES).text, io)


def abc(rng: random.Random) -> Sentence:
    """When Mary and John went to the store, Kate gave a drink to -> them; or Mary; or John

    Half of the time "them". Without it the answer could be had without noticing a repetition (weigh the names of the
    first clause, subtract the giver), and nothing would have to switch on when a name repeats.
    """
    frame, (a, b, c) = _frame_and_names(rng, 3)
    prompt = abc_prompt(frame, a, b, c, frames=ALL_FRAMES).text
    return Sentence(prompt, "them") if rng.random() < 0.5 else Sentence(prompt, a, other=b)


def repeated_list(rng: random.Random) -> Sentence:
    """red cup Mary lamp red cup -> Mary"""
    words = rng.sample(OBJECTS + PLACES + ADJECTIVES + ALL_NAMES, rng.randint(4, 9))
    cut = rng.randint(1, len(words) - 1)
    return Sentence(" ".join(words + words[:cut]), words[cut], " ".join([*words[cut + 1 :], "."]))


def distinct_list(rng: random.Random) -> Sentence:
    """red cup Mary lamp park ring (nothing repeats, nothing can be predicted)"""
    words = rng.sample(OBJECTS + PLACES + ADJECTIVES + ALL_NAMES, rng.randint(6, 18))
    return Sentence(" ".join(words))


def ownership(rng: random.Random) -> Sentence:
    """Mary has a ring. John has a key. the ring belongs to -> Mary (in one of five both have it: a fair coin)"""
    a, b = rng.sample(ALL_NAMES, 2)
    mine, yours = rng.sample(OBJECTS, 2)
    if rng.random() < 0.2:
        return Sentence(ownership_text(a, b, mine, mine, mine), a, other=b)
    owner, thing = rng.choice(((a, mine), (b, yours)))
    return Sentence(ownership_text(a, b, mine, yours, thing), owner)


def ownership_text(a: str, b: str, mine: str, yours: str, asked: str) -> str:
    return f"{a} has {article(mine)} {mine}. {b} has {article(yours)} {yours}. the {asked} belongs to"


def whereabouts(rng: random.Random) -> Sentence:
    """Mary is in the park. John is in the office. Mary is in the -> park"""
    names, places = rng.sample(ALL_NAMES, 2), rng.sample(PLACES, 2)
    asked = rng.randrange(2)
    story = " ".join(f"{name} is in the {place}." for name, place in zip(names, places, strict=True))
    return Sentence(f"{story} {names[asked]} is in the", places[asked])


def counting(rng: random.Random) -> Sentence:
    """two three four -> five"""
    sequence = rng.choice(SEQUENCES)
    length = rng.randint(3, 6)
    start = rng.randint(0, len(sequence) - length)
    words = sequence[start : start + length]
    return Sentence(" ".join(words[:-1]), words[-1])


def pronoun(rng: random.Random) -> Sentence:
    """Mary went to the park because -> she"""
    name, place = rng.choice(ALL_NAMES), rng.choice(PLACES)
    reason = rng.choice(("was tired", "was hungry", "had time", "lost a " + rng.choice(OBJECTS[:6])))
    return Sentence(f"{name} went to the {place} because", "she" if name in FEMALE else "he", f"{reason}.")


def fact(rng: random.Random) -> Sentence:
    """the opposite of hot is -> cold; a dog is an -> animal"""
    if rng.random() < 0.5:
        pair = rng.choice(OPPOSITES)
        asked, answer = rng.choice((pair, pair[::-1]))
        return Sentence(f"the opposite of {asked} is", answer)
    kind = rng.choice(list(KINDS_OF_THING))
    thing = rng.choice(KINDS_OF_THING[kind])
    return Sentence(f"{article(thing)} {thing} is {article(kind)}", kind)


def story(rng: random.Random) -> Sentence:
    """Mary found a red cup in the kitchen and took it to the park (words are free, grammar is not)"""
    thing = f"{rng.choice(ADJECTIVES)} {rng.choice(OBJECTS)}"
    start, end = rng.sample(PLACES, 2)
    verb = rng.choice(("found", "bought", "saw", "left"))
    return Sentence(f"{rng.choice(ALL_NAMES)} {verb} {article(thing)} {thing} in the {start} and took it to the {end}")


def article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


MIXTURE: dict[Callable[[random.Random], Sentence], float] = {
    ioi: 0.25,
    abc: 0.12,
    repeated_list: 0.15,
    distinct_list: 0.03,
    ownership: 0.14,
    whereabouts: 0.10,
    counting: 0.05,
    pronoun: 0.05,
    fact: 0.04,
    story: 0.07,
}


def documents(rng: random.Random, count: int, n_sentences: int) -> list[str]:
    """``count`` documents of ``n_sentences`` independent sentences of kinds drawn from `MIXTURE`.

    A document with an open answer is followed by its mirror image, which gives the other answer.
    """
    found: list[str] = []
    while len(found) < count:
        kinds = rng.choices(list(MIXTURE), weights=list(MIXTURE.values()), k=n_sentences)
        sentences = [kind(rng) for kind in kinds]
        one, other = (" ".join(s.text for s in side) for side in (sentences, [s.mirrored for s in sentences]))
        found += [one] if one == other else [one, other]
    return found[:count]


def split_words(text: str) -> list[str]:
    """Words and punctuation marks, as the demo model's tokenizer splits them."""
    return re.findall(r"\w+|[^\w\s]", text)


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word of the corpus: BOS, the unknown word, then the rest in alphabetical order."""
    fixed = (
        *ALL_NAMES, *OBJECTS, *PLACES, *ADJECTIVES, *itertools.chain(*SEQUENCES, *OPPOSITES),
        *KINDS_OF_THING, *itertools.chain(*KINDS_OF_THING.values()),
    )  # fmt: skip
    frames = itertools.chain(*(split_words(re.sub(r"{\w+}", "", frame)) for frame in ALL_FRAMES))
    rng = random.Random(0)
    grammar = itertools.chain(*(split_words(kind(rng).text) for kind in MIXTURE for _ in range(300)))
    return (BOS, UNK, *sorted({*fixed, *frames, *grammar}))
