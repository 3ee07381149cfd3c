"""IOI prompts, ABC controls and minimal pairs: the published protocol, positions, pools, refusals."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.prompts.ioi import (
    ABC_SEED,
    FRAMES,
    IOI_SEED,
    NAMES,
    abc_prompt,
    abc_prompts,
    ioi_prompt,
    ioi_prompts,
    minimal_pairs,
)
from helpers.prompts.prompt import Prompt, fill

FEW_NAMES = ("Ann", "Bo", "Christopher", "Dee")
PLAIN = "Then {X} and {Y} met and {GIVER} spoke to"
GIVER_FIRST = "Because {GIVER} knew {X} and {Y}, the gift went to"
SWAPPED = "Then {Y} and {X} met and {GIVER} spoke to"


@pytest.fixture(scope="module")
def published(shared: Path) -> dict[str, Any]:
    """The post's names, frames, seeds and 100 prompts."""
    return json.loads((shared / "reference" / "ioi_prompts.json").read_text(encoding="utf-8"))


# The published protocol


def test_names_frames_and_seeds_are_the_published_ones(published: dict[str, Any]) -> None:
    """12 names and 7 frames in the post's order, seeds 42 and 43."""
    assert list(NAMES) == published["names"]
    assert list(FRAMES) == published["frames"]
    assert (published["ioi_seed"], published["non_ioi_seed"]) == (IOI_SEED, ABC_SEED)


@pytest.mark.parametrize(("make", "key"), [(ioi_prompts, "ioi"), (abc_prompts, "non_ioi")])
def test_default_prompts_are_the_published_ones(
    make: Callable[[], list[Prompt]], key: str, published: dict[str, Any]
) -> None:
    """The 50 prompts of each set, in the post's order."""
    assert [prompt.text for prompt in make()] == published[key]


def test_global_random_state_is_left_alone() -> None:
    """Drawing prompts neither reads nor advances Python's global generator."""
    random.seed(0)
    before = random.getstate()
    first = ioi_prompts(5)
    assert random.getstate() == before
    random.seed(1)
    assert ioi_prompts(5) == first


# Single prompts and their positions


def test_templates_by_hand() -> None:
    """ABBA names IO first, BABA names S first; S gives in both; ABC has a third giver."""
    assert ioi_prompt("ABBA", 0, io="Ann", s="Bo", frames=[PLAIN]).text == "Then Ann and Bo met and Bo spoke to"
    assert ioi_prompt("BABA", 0, io="Ann", s="Bo", frames=[PLAIN]).text == "Then Bo and Ann met and Bo spoke to"
    assert abc_prompt(0, "Ann", "Bo", "Dee", frames=[PLAIN]).text == "Then Ann and Bo met and Dee spoke to"


@pytest.mark.parametrize("frames", [FRAMES, (GIVER_FIRST,)], ids=["published", "giver first"])
def test_ioi_spans_point_at_the_names(frames: tuple[str, ...]) -> None:
    """IO stands once; S1 and S2 are the same name at two places; answer = IO, foil = S."""
    for prompt in ioi_prompts(20, frames=frames):
        assert set(prompt.spans) == {"IO", "S1", "S2"}
        assert prompt.name_at("IO") == prompt.answer != prompt.foil
        assert prompt.name_at("S1") == prompt.name_at("S2") == prompt.foil
        assert len(set(prompt.spans.values())) == 3
        assert (prompt.spans["IO"] < prompt.spans["S1"]) == (prompt.template == "ABBA")


def test_abc_spans_point_at_the_names() -> None:
    """Three different names at A, B and C; answer = A, foil = B."""
    for prompt in abc_prompts(20):
        assert [*prompt.spans] == ["A", "B", "C"]
        names = [prompt.name_at(position) for position in "ABC"]
        assert len(set(names)) == 3
        assert (prompt.answer, prompt.foil) == tuple(names[:2])
        assert prompt.spans["A"] < prompt.spans["B"] < prompt.spans["C"]


def test_frame_index_rebuilds_the_text() -> None:
    """Template, frame index, answer and foil determine an IOI prompt."""
    for prompt in ioi_prompts(20):
        assert prompt == ioi_prompt(prompt.template, prompt.frame, io=prompt.answer, s=prompt.foil)


def test_fill_spans_words_wherever_the_slots_stand() -> None:
    """Each span cuts its word out of the text, for slots at either end and side by side."""
    words = {"X": "Ann", "Y": "Bo", "GIVER": "Christopher"}
    text, spans = fill("{GIVER}{Y} saw {X}", words)
    assert text == "ChristopherBo saw Ann"
    assert {slot: text[start:end] for slot, (start, end) in spans.items()} == words


def test_bare_text_is_a_prompt() -> None:
    """A text alone is a custom prompt without named positions; asking for one is a KeyError."""
    prompt = Prompt("Hello")
    assert (prompt.template, prompt.frame, dict(prompt.spans), prompt.answer) == ("custom", None, {}, None)
    with pytest.raises(KeyError):
        prompt.name_at("IO")


# Minimal pairs


@pytest.mark.parametrize("frames", [FRAMES, (GIVER_FIRST,)], ids=["published", "giver first"])
@pytest.mark.parametrize("names", [NAMES, FEW_NAMES], ids=["published", "few names"])
def test_pairs_differ_in_s2_alone(names: tuple[str, ...], frames: tuple[str, ...]) -> None:
    """Cutting S2 out of the active prompt and C out of its control leaves the same text; C is a third name."""
    for active, control in zip(*minimal_pairs(20, names=names, frames=frames), strict=True):
        start, end = active.spans["S2"]
        assert control.text == active.text[:start] + control.name_at("C") + active.text[end:]
        assert control.name_at("C") in set(names) - {active.answer, active.foil}


@pytest.mark.parametrize("frames", [FRAMES, (GIVER_FIRST,)], ids=["published", "giver first"])
def test_control_positions_match_the_active_ones(frames: tuple[str, ...]) -> None:
    """A stands where IO stood and B where S1 stood, with the same names, answer and foil."""
    for active, control in zip(*minimal_pairs(20, names=FEW_NAMES, frames=frames), strict=True):
        assert control.template == "ABC"
        assert control.frame == active.frame
        assert control.name_at("A") == active.name_at("IO") == control.answer == active.answer
        assert control.name_at("B") == active.name_at("S1") == control.foil == active.foil


@pytest.mark.parametrize(("n", "abba"), [(50, 25), (7, 4), (1, 1)])
def test_pairs_are_balanced(n: int, abba: int) -> None:
    """Half ABBA and half BABA, the odd one ABBA; all active prompts distinct."""
    active, control = minimal_pairs(n)
    assert Counter(prompt.template for prompt in active)["ABBA"] == abba
    assert len(active) == len(control) == len({prompt.text for prompt in active}) == n


# Pools: how many there are, and replaced names and frames


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (ioi_prompts, 2 * 4 * 3),
        (abc_prompts, 4 * 3 * 2),
        (lambda n, **pool: minimal_pairs(n, **pool)[0], 2 * 4 * 3),
    ],
    ids=["ioi", "abc", "pairs"],
)
def test_every_prompt_can_be_drawn_and_no_more(make: Callable[..., list[Prompt]], size: int) -> None:
    """4 names and 1 frame: 2 templates x 4 x 3 ordered names for IOI, 4 x 3 x 2 for ABC; one more is refused."""
    prompts = make(size, names=FEW_NAMES, frames=(PLAIN,))
    assert len({prompt.text for prompt in prompts}) == size
    with pytest.raises(ValueError, match=rf"n: 4 names and 1 frames make {size} distinct prompts, got n = {size + 1}"):
        make(size + 1, names=FEW_NAMES, frames=(PLAIN,))


def test_published_pool_has_1848_ioi_prompts() -> None:
    """7 frames x 2 templates x 12 x 11 ordered names = 1848."""
    assert len({prompt.text for prompt in ioi_prompts(1848)}) == 1848
    with pytest.raises(ValueError, match="12 names and 7 frames make 1848 distinct prompts, got n = 1849"):
        ioi_prompts(1849)


@pytest.mark.parametrize("make", [ioi_prompts, abc_prompts])
def test_fewer_prompts_are_a_prefix_and_seeds_differ(make: Callable[..., list[Prompt]]) -> None:
    """The first 10 of 30 are the 10 drawn alone; another seed draws others."""
    assert make(30)[:10] == make(10)
    assert make(10, seed=7) != make(10)


def test_replaced_names_and_frames_are_used() -> None:
    """Only the given names and frames occur, and all of them do."""
    prompts = ioi_prompts(24, names=FEW_NAMES, frames=(PLAIN, GIVER_FIRST))
    assert {name for prompt in prompts for name in (prompt.answer, prompt.foil)} == set(FEW_NAMES)
    assert {prompt.frame for prompt in prompts} == {0, 1}
    assert {prompt.text.split()[0] for prompt in prompts} == {"Then", "Because"}


class ImpatientRandom(random.Random):
    """A generator that stops a search for prompts that do not exist, instead of letting the test hang."""

    draws = 0

    def sample(self, population: Any, k: int, **options: Any) -> list[Any]:
        self.draws += 1
        if self.draws > 2000:
            pytest.fail("still searching after 2000 draws from a pool of 12 prompts")
        return super().sample(population, k, **options)


@pytest.mark.parametrize("make", [ioi_prompts, minimal_pairs])
def test_frames_that_make_the_same_text_are_counted_once(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "X and Y" as ABBA is "Y and X" as BABA: two such frames and 3 names make 12 texts, so n = 13 is refused."""
    monkeypatch.setattr(random, "Random", ImpatientRandom)
    with pytest.raises(ValueError, match=r"n = 13|frames"):
        make(13, names=FEW_NAMES[:3], frames=(PLAIN, SWAPPED))


# Refusals

BAD_POOLS = {
    "n = 0": ({"n": 0}, "n: expected at least 1 prompt, got 0"),
    "n negative": ({"n": -3}, "n: expected at least 1 prompt, got -3"),
    "n as text": ({"n": "3"}, "^n: expected at least 1 prompt, got '3'$"),
    "n = None": ({"n": None}, "^n: expected at least 1 prompt, got None$"),
    "half a prompt": ({"n": 2.5}, "^n: expected at least 1 prompt, got 2.5$"),
    "name twice": ({"names": ["Ann", "Bo", "Dee", "Bo"]}, "names: expected distinct names, got 'Bo' more than once"),
    "frame twice": ({"frames": [PLAIN, PLAIN]}, "frames: expected distinct frames, got 'Then .*' more than once"),
    "no giver": ({"frames": ["{X} and {Y} met"]}, r"frames: expected \{X\}, \{Y\} and \{GIVER\} once each, got"),
    "X twice": ({"frames": ["{X} {X} {Y} {GIVER}"]}, r"once each, got '\{X\} \{X\} \{Y\} \{GIVER\}'"),
    "unknown slot": ({"frames": ["{X} {Y} {GIVER} {Z}"]}, r"frames: .*got '\{X\} \{Y\} \{GIVER\} \{Z\}'"),
    "escaped slot": ({"frames": ["{{X}} {Y} {GIVER}"]}, r"frames: .*got '\{\{X\}\} \{Y\} \{GIVER\}'"),
    "open brace": ({"frames": ["{X} {Y} {GIVER} {"]}, r"frames: .*got '\{X\} \{Y\} \{GIVER\} \{'"),
    "no frames": ({"frames": []}, "n: 12 names and 0 frames make 0 distinct prompts"),
    "no names": ({"names": []}, "n: 0 names and 7 frames make 0 distinct prompts"),
    "one name": ({"names": ["Ann"]}, "n: 1 names and 7 frames make 0 distinct prompts"),
}


@pytest.mark.parametrize("make", [ioi_prompts, abc_prompts, minimal_pairs])
@pytest.mark.parametrize(("pool", "words"), BAD_POOLS.values(), ids=BAD_POOLS)
def test_refuses_pools(make: Callable[..., Any], pool: dict[str, Any], words: str) -> None:
    """Unusable names and frames are refused by one sentence that names the argument and the offender."""
    with pytest.raises(ValueError, match=words):
        make(**{"n": 1} | pool)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (abc_prompts, "n: 2 names and 7 frames make 0 distinct prompts"),
        (minimal_pairs, "names: a minimal pair needs at least 3 names, got 2"),
    ],
)
def test_controls_need_a_third_name(make: Callable[..., Any], words: str) -> None:
    """Two names suffice for IOI, but a control needs a third."""
    assert ioi_prompts(1, names=["Ann", "Bo"])
    with pytest.raises(ValueError, match=words):
        make(1, names=["Ann", "Bo"])
