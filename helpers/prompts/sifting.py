"""Which words and frames a tokenizer leaves whole, and one sentence for each reason to leave others out."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from helpers.prompts.drawing import TooFew
from helpers.prompts.prompt import fill
from helpers.prompts.tokens import covering

Span = tuple[int, int]
UNKNOWN = "not in this tokenizer's vocabulary"


@dataclass
class Sieve:
    """A tokenizer, and what was left out for it so far.

    Attributes:
        tokenizer: a Hugging Face fast tokenizer.
        extra: number of tokens that stand in front of every text (1 for a BOS).
        left_out: one sentence for each reason, with the list of what it holds for.
    """

    tokenizer: Any
    extra: int = 0
    left_out: list[str] = field(default_factory=list)

    def words(self, what: str, pool: Sequence[Any], frames: Iterable[str], slots: Sequence[str]) -> list[Any]:
        """The words that are one token in each of these slots; of a tuple of words, as the forms of a noun, all must be."""
        wanted = list(frames)
        reasons: dict[str, dict[Any, int]] = {}
        for item in pool:
            forms = (item,) if isinstance(item, str) else item
            split = next((s for word in forms for frame in wanted if (s := self._split(frame, word, slots))), None)
            if split:
                where, count = split
                reasons.setdefault(where, {})[item] = count
        for where, found in reasons.items():
            self._tell(what, found, f"is {{}} {where}", f"are {'' if where == UNKNOWN else 'several tokens '}{where}")
        return [item for item in pool if not any(item in found for found in reasons.values())]

    def frames(self, pool: Sequence[str], example: str) -> list[str]:
        """The frames of the most frequent length, a token for each slot; of equally frequent lengths the shorter."""
        lengths = {frame: self._length(frame, example) for frame in pool}
        unknown = {frame: 0 for frame, length in lengths.items() if not length}
        wanted = most_frequent([length for length in lengths.values() if length])
        others = {frame: length for frame, length in lengths.items() if length and length != wanted}
        self._tell("frame", unknown, f"has words that are {UNKNOWN}", f"have words that are {UNKNOWN}")
        self._tell("frame", others, f"makes {{}}, not {wanted}", f"make another length than {wanted} tokens")
        if pool and wanted is None:
            raise TooFew("frames: expected some in this tokenizer's vocabulary, got none", 0)
        return [frame for frame in pool if lengths[frame] == wanted]

    def only(self, what: str, pool: Sequence[Any], kept: Sequence[Any], one: str, many: str) -> list[Any]:
        """The items that are kept; of another ``one`` is said, or ``many`` of several."""
        self._tell(what, {item: 0 for item in pool if item not in kept}, one, many)
        return [item for item in pool if item in kept]

    def apart(self, text: str, spans: Iterable[Span]) -> bool:
        """Whether the tokenizer knows every word of a text, and each of these spans is one token, and another one."""
        ids, offsets = self.encode(text)
        at = [covering(span, offsets) for span in spans]
        known = self.tokenizer.unk_token_id not in ids
        return known and all(len(tokens) == 1 for tokens in at) and len({tokens[0] for tokens in at}) == len(at)

    def encode(self, text: str) -> tuple[list[int], list[Span]]:
        """Ids of a text and the characters of each."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(encoded["input_ids"]), list(encoded["offset_mapping"])

    def _split(self, frame: str, word: str, slots: Sequence[str]) -> tuple[str, int] | None:
        """Where a word is not one known token, and how many it is there; None if it is one everywhere."""
        text, spans = fill(frame, dict.fromkeys(slots_of(frame), word))
        ids, offsets = self.encode(text)
        for slot in slots:
            at = covering(spans[slot], offsets)
            if self.tokenizer.unk_token_id in [ids[i] for i in at]:
                return UNKNOWN, 0
            if len(at) != 1:
                return _place(text, spans[slot][0]), len(at)
        return None

    def _length(self, frame: str, example: str) -> int | None:
        """Tokens of a filled frame if each slot were one; None if the frame has words that the tokenizer doesn't know."""
        text, spans = fill(frame, dict.fromkeys(slots_of(frame), example))
        ids, offsets = self.encode(text)
        filled = {i for span in spans.values() for i in covering(span, offsets)}
        if self.tokenizer.unk_token_id in [token for i, token in enumerate(ids) if i not in filled]:
            return None
        return self.extra + len(ids) - len(filled) + len(spans)

    def _tell(self, what: str, found: Mapping[Any, int], one: str, many: str) -> None:
        """Write down a reason: ``one`` is said of a single item, with its number of tokens, ``many`` of several."""
        if len(found) == 1:
            ((item, count),) = found.items()
            tokens = f"{count} tokens" if count else ""
            self.left_out.append(" ".join(f"{what} {_said(item)} {one.format(tokens)}".split()))
        elif found:
            items = [_said(item) + (f" ({count})" if count else "") for item, count in found.items()]
            self.left_out.append(f"{what}s {listed(items)} {many}")


def slots_of(frame: str) -> list[str]:
    """Names of the slots of a frame."""
    return [slot for _, slot, _, _ in string.Formatter().parse(frame) if slot]


def most_frequent(lengths: Sequence[int]) -> int | None:
    """The most frequent length; of equally frequent ones the shortest; None of none."""
    return min(lengths, key=lambda length: (-Counter(lengths)[length], length), default=None)


def listed(items: Sequence[str], most: int = 12) -> str:
    """Items with commas, the first ``most`` of them.

    >>> listed(["1", "2", "3"], most=2)
    '1, 2 and 1 more'
    """
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _said(item: Any) -> str:
    """A year, or in quotation marks a word, the forms of a noun, or a frame (the beginning of a long one)."""
    if isinstance(item, int):
        return str(item)
    text = item if isinstance(item, str) else "/".join(item)
    words = text.split()
    return repr(text if len(words) <= 9 else " ".join(words[:9]) + " ...")


def _place(text: str, start: int) -> str:
    before = text[:start][-1:]
    return "at the beginning of the text" if not before else "after a blank" if before == " " else f"after {before!r}"
