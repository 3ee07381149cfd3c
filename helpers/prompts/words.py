"""The words that contrasts are made of, chosen for GPT-2's tokens; `helpers.prompts.fit` sifts them for other tokenizers."""

from __future__ import annotations

from collections.abc import Mapping

from helpers.prompts.ioi import NAMES

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

#: All of these years that are [XX][YY] in GPT-2.
YEARS: tuple[int, ...] = tuple(
    100 * century + yy for century in CENTURIES for yy in range(2, 99) if 100 * century + yy not in OTHERWISE_SPLIT
)

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

#: Things that one can see, singular and plural; each one token of GPT-2 and of SmolLM2 after a blank.
COUNTABLE: tuple[tuple[str, str], ...] = tuple(
    (noun, f"{noun}es" if noun == "box" else f"{noun}s")
    for noun in (
        "key", "cup", "book", "ball", "hat", "coat", "map", "coin", "box", "pen", "letter", "clock", "chair", "table",
        "note", "picture", "toy", "bag", "card", "flower", "bottle", "ring", "lamp", "bird", "dog", "cat", "horse", "boy",
        "girl", "student", "teacher", "doctor", "painting", "statue", "plant", "tree", "car", "photo", "ticket", "shirt",
        "machine", "window", "phone", "computer", "artist",
    )
)  # fmt: skip

#: Where they are; each one token of GPT-2 and of SmolLM2 after a blank.
SCENES: tuple[str, ...] = (
    "cabinet", "kitchen", "garden", "room", "office", "store", "park", "library", "museum", "station", "market",
    "school", "hotel", "shop", "house", "garage", "basement", "hall", "village", "forest",
)  # fmt: skip
