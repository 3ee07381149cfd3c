"""Contrasts fitted to tokenizers: demo, GPT-2, SmolLM2, and one that prepends a blank; the tokens that are read at END."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.demo.corpus import vocabulary
from helpers.prompts.answers import readout_ids
from helpers.prompts.fit import TASK_NAMES, VARIANTS, fit_task
from helpers.prompts.ioi import FRAMES, NAMES, ioi_prompt, minimal_pairs
from helpers.prompts.prompt import Prompt
from helpers.prompts.sifting import Sieve, listed, most_frequent
from helpers.prompts.tasks import TASKS
from helpers.prompts.tokens import tokenize
from helpers.prompts.words import COUNTABLE, NOUNS, OTHERWISE_SPLIT, SCENES, THINGS, WORDS

pytestmark = pytest.mark.slow

DEMO = ("ioi", "repeated", "ownership")
DIGITS = "0123456789"
SMOLLM2_LENGTHS = {"ioi": 15, "repeated": 10, "ownership": 15, "agreement": 10, "greater_than": 18, "acronyms": 11}


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2: Any) -> Any:
    return smollm2.tokenizer


@pytest.fixture(scope="session")
def blank_first() -> Any:
    """A tokenizer in SentencePiece's style: a blank is put before the text, and begins the word after it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    digits = pre_tokenizers.Digits(individual_digits=True)
    marks = pre_tokenizers.Punctuation()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), digits, marks])
    tokenizer.decoder = decoders.Metaspace()
    seen = [prompt.text for task in TASKS.values() for side in task(60) for prompt in side]
    seen += [" ".join([*pool, *pool]) for pool in (NAMES, WORDS, THINGS, SCENES, *COUNTABLE)] * 3
    seen += [" Mary was were John"] * 5
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["<s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(seen, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def decoded(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    return [tokenizer.convert_ids_to_tokens(i) for i in ids]


def words_touched(tokenizer: Any, text: str) -> list[set[int]]:
    """Of each token the numbers of the words, counted by blanks, whose letters it has."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [{text[:i].count(" ") for i in range(*span) if text[i] != " "} for span in offsets]


# What every fitted contrast promises

MADE = (
    [("words", name) for name in DEMO]
    + [("gpt2_tokenizer", name) for name in TASK_NAMES]
    + [("smollm2_tokenizer", name) for name in TASK_NAMES]
    + [("blank_first", name) for name in (*DEMO, "agreement", "greater_than")]
)


@pytest.mark.parametrize(("tokenizer", "name"), MADE)
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), variant=st.integers(0, 1), prepend_bos=st.booleans())
def test_pairs_of_one_length(
    tokenizer: str, name: str, seed: int, variant: int, prepend_bos: bool, request: pytest.FixtureRequest
) -> None:
    """All prompts have ``length`` tokens; a pair has the same ones but in words that differ; names are one token each."""
    tokens = request.getfixturevalue(tokenizer)
    options = VARIANTS[name][variant % len(VARIANTS[name])]
    fitted = fit_task(name, tokens, 24, seed=seed, prepend_bos=prepend_bos, **options)
    sides = [tokenize(side, tokens, prepend_bos=prepend_bos) for side in (fitted.clean, fitted.corrupt)]
    assert fitted.name == name
    assert len(fitted.clean) == len(fitted.corrupt) == len({p.text for p in fitted.clean}) == 24
    for clean, corrupt in zip(*sides, strict=True):
        assert len(clean) == len(corrupt) == fitted.length
        assert clean.positions == corrupt.positions
        assert len({clean.position(p) for p in clean.prompt.spans}) == len(clean.prompt.spans)
        assert (clean.prompt.answer, clean.prompt.answers) == (corrupt.prompt.answer, corrupt.prompt.answers)
        said = [side.prompt.text.split() for side in (clean, corrupt)]
        differ = {i for i, pair in enumerate(zip(*said, strict=True)) if pair[0] != pair[1]}
        places = [i for i, pair in enumerate(zip(clean.ids, corrupt.ids, strict=True)) if pair[0] != pair[1]]
        assert places
        touched = words_touched(tokens, clean.prompt.text)
        assert all(touched[i - prepend_bos] & differ for i in places)
        right, wrong = readout_ids(tokens, clean.prompt)
        assert right
        assert wrong
        assert not set(right) & set(wrong)


def test_frames_keep_their_numbers(smollm2_tokenizer: Any) -> None:
    """A fitted IOI prompt's frame is the index among all frames, though one before it was left out."""
    fitted = fit_task("ioi", smollm2_tokenizer, 60)
    assert {p.frame for p in fitted.clean} == {0, 1, 2, 3, 4, 6}
    for prompt in fitted.clean:
        assert prompt == ioi_prompt(prompt.template, prompt.frame, io=prompt.answer, s=prompt.foil)


# What the tokenizers allow, by hand


def test_the_demo_tokenizer_allows_what_was_made_for_it(words: Any) -> None:
    """The same prompts as without fitting: `minimal_pairs` (positions renamed), lists and ownership; nothing left out."""
    for name, length in zip(DEMO, (15, 10, 15), strict=True):
        fitted = fit_task(name, words, 40)
        assert (fitted.clean, fitted.corrupt) == TASKS[TASK_NAMES[name]](40, seed=0)
        assert (fitted.length, fitted.left_out) == (length, ())
    pairs = minimal_pairs(30, seed=42)
    fitted = fit_task("ioi", words, 30, seed=42)
    assert [p.text for p in fitted.clean + fitted.corrupt] == [p.text for side in pairs for p in side]


def test_gpt2_finds_the_pools_that_were_chosen_for_it(gpt2_tokenizer: Any) -> None:
    """Years, nouns and letter pairs are those of the module, so every contrast is the one that it is without fitting."""
    for name in TASK_NAMES:
        fitted = fit_task(name, gpt2_tokenizer, 50)
        assert (fitted.clean, fitted.corrupt) == TASKS[TASK_NAMES[name]](50, seed=0), name
        if name != "greater_than":
            assert fitted.left_out == ()
    (years,) = fit_task("greater_than", gpt2_tokenizer, 50).left_out
    assert years.startswith("years 1280, 1302, 1303, 1304, ")
    assert years.endswith(" and 6 more are not one token for the century and one for the year in it")
    assert len(OTHERWISE_SPLIT) - 12 == 6


def test_smollm2_by_hand(smollm2_tokenizer: Any) -> None:
    """The cafe makes 16 tokens; two words and two names are split at the beginning, two events after a blank; digits."""
    fitted = {name: fit_task(name, smollm2_tokenizer) for name in TASK_NAMES}
    assert {name: task.length for name, task in fitted.items()} == SMOLLM2_LENGTHS
    assert fitted["ioi"].left_out == ("frame 'After {X} and {Y} met at the cafe, {GIVER} ...' makes 16 tokens, not 15",)
    begin = "several tokens at the beginning of the text"
    assert fitted["repeated"].left_out == (f"words 'ticket' (2), 'knife' (2) are {begin}",)
    assert fitted["ownership"].left_out == (f"names 'Lisa' (2), 'Kate' (2) are {begin}",)
    assert fitted["agreement"].left_out == ()
    events, years = fitted["greater_than"].left_out
    assert events == "events 'feud' (2), 'truce' (2) are several tokens after a blank"
    assert re.fullmatch(r"years 1202, .*, 1209, 1290, .* and 90 more leave no tens digit .*", years)
    assert "Kitten" in NOUNS
    for prompt in fitted["acronyms"].clean:
        assert "Kitten" not in prompt.text


def test_years_of_digits(smollm2_tokenizer: Any) -> None:
    """Where digits are tokens, each digit of the first year is a position, and the tens digit is what is read."""
    fitted = fit_task("greater_than", smollm2_tokenizer, 60)
    for prompt, control in zip(
        tokenize(fitted.clean, smollm2_tokenizer), tokenize(fitted.corrupt, smollm2_tokenizer), strict=True
    ):
        positions = [prompt.position(p) for p in ("C1", "C2", "Y1", "Y2")]
        assert positions == list(range(positions[0], positions[0] + 4))
        year = "".join(prompt.tokens[i] for i in positions)
        assert f" year {year} to " in prompt.prompt.text
        assert prompt.tokens[-2:] == (year[0], year[1])
        assert control.tokens[positions[0] : positions[3] + 1] == (*year[:2], "0", "1")
        right, wrong = readout_ids(smollm2_tokenizer, prompt.prompt)
        assert decoded(smollm2_tokenizer, right) == list(DIGITS[int(year[2]) + 1 :])
        assert decoded(smollm2_tokenizer, wrong) == list(DIGITS[: (int(year[2:]) + 1) // 10])


def test_a_tokenizer_that_prepends_a_blank(blank_first: Any) -> None:
    """Its first word is as any other, so no name or word falls out; a digit is read, not the blank before it."""
    assert fit_task("repeated", blank_first).left_out == fit_task("ownership", blank_first).left_out == ()
    assert decoded(blank_first, blank_first("33", add_special_tokens=False)["input_ids"]) == ["▁", "3", "3"]
    for prompt in fit_task("greater_than", blank_first).clean:
        right, wrong = (decoded(blank_first, ids) for ids in readout_ids(blank_first, prompt))
        tens, ones = (int(prompt.name_at(digit)) for digit in ("Y1", "Y2"))
        assert right == list(DIGITS[tens + 1 :])
        assert wrong == list(DIGITS[: tens + (ones == 9)])
    for prompt in fit_task("ioi", blank_first).clean:
        assert [decoded(blank_first, side) for side in readout_ids(blank_first, prompt)] == [
            [f"▁{prompt.answer}"],
            [f"▁{prompt.foil}"],
        ]


def test_bos_counts_in_the_length(gpt2_tokenizer: Any) -> None:
    """Without BOS the same pairs are one token shorter, and so is the length that a sentence names."""
    frames = (*FRAMES, "Then, when {X} and {Y} went to the store, {GIVER} gave a drink to")
    fitted = [fit_task("ioi", gpt2_tokenizer, frames=frames, prepend_bos=bos) for bos in (True, False)]
    assert fitted[0].clean == fitted[1].clean
    assert [task.length for task in fitted] == [15, 14]
    assert [task.left_out[0][-25:] for task in fitted] == ["' makes 17 tokens, not 15", "' makes 16 tokens, not 14"]
    assert fit_task("ioi", gpt2_tokenizer, bos="The").length == 15


# The rule


def test_most_frequent_length() -> None:
    """The most frequent, of equally frequent ones the shortest, None of none."""
    assert most_frequent([15, 16, 16]) == 16
    assert most_frequent([16, 15, 16, 15, 14]) == 15
    assert most_frequent([]) is None


SHORT, LONG = "{X} and {Y} met and {GIVER} spoke to", "Then {X} and {Y} met and {GIVER} spoke to"


@pytest.mark.parametrize(
    ("frames", "length"),
    [((LONG, SHORT), 9), ((LONG, SHORT, f"{LONG[:-2]}of"), 10), ((LONG,), 10)],
)
def test_frames_of_the_most_frequent_length(frames: tuple[str, ...], length: int, gpt2_tokenizer: Any) -> None:
    """One short and one long frame: the short; two long ones and a short: the long."""
    fitted = fit_task("ioi", gpt2_tokenizer, 6, frames=frames)
    assert fitted.length == length
    assert {p.text.startswith("Then") for p in fitted.clean} == {length == 10}


def test_a_name_is_left_out_where_it_is_split(gpt2_tokenizer: Any) -> None:
    """Emma is two tokens at the beginning alone: left out if a kept frame begins with a name, and said in words."""
    assert fit_task("ioi", gpt2_tokenizer, 6, frames=[SHORT]).left_out == (
        "name 'Emma' is 2 tokens at the beginning of the text",
    )
    assert fit_task("ioi", gpt2_tokenizer, 6, frames=[LONG]).left_out == ()
    (both,) = fit_task("ioi", gpt2_tokenizer, 6, names=(*NAMES, "Siobhan", "Zebulon"), frames=[LONG]).left_out
    assert both == "names 'Siobhan' (3), 'Zebulon' (4) are several tokens after a blank"


def test_words_that_are_unknown(words: Any) -> None:
    """A word-level tokenizer makes one token of every word, the unknown one as well; those are left out."""
    fitted = fit_task("ownership", words, 10, names=("Mary", "Siobhan", "John"), things=(*THINGS, "yacht", "zebra"))
    assert fitted.left_out == (
        "name 'Siobhan' is not in this tokenizer's vocabulary",
        "things 'yacht', 'zebra' are not in this tokenizer's vocabulary",
    )


def test_a_noun_needs_both_of_its_numbers(gpt2_tokenizer: Any) -> None:
    """A pair of forms is left out if one of them is split."""
    fitted = fit_task(
        "agreement", gpt2_tokenizer, 10, nouns=[("key", "keys"), ("aardvark", "aardvarks"), ("ox", "oxen")]
    )
    assert fitted.left_out == ("nouns 'aardvark/aardvarks' (4), 'ox/oxen' (2) are several tokens after a blank",)
    assert {p.name_at("NOUN") for p in fitted.clean} == {"key", "keys"}


def test_pairs_of_another_length_are_drawn_again(gpt2_tokenizer: Any) -> None:
    """With " Mary and" a token, no word or frame is at fault but half of the prompts with Mary: they are replaced."""
    merged = copy.deepcopy(gpt2_tokenizer)
    merged.add_tokens([" Mary and"])
    fitted = fit_task("ioi", merged, 100)
    assert {len(p) for p in tokenize(fitted.clean + fitted.corrupt, merged)} == {15}
    assert len(fitted.clean) == 100
    assert not any(" Mary and" in p.text for p in fitted.clean)
    assert any(" and Mary" in p.text for p in fitted.clean)
    (said,) = fitted.left_out
    assert re.fullmatch(r"\d+ of 800 pairs have other lengths, or words of several tokens", said)


def test_long_lists_of_words_are_cut() -> None:
    """Twelve are said, the others counted."""
    assert listed([str(i) for i in range(12)]).endswith("10, 11")
    assert listed([str(i) for i in range(14)]).endswith("10, 11 and 2 more")


def test_a_place_is_said_in_words(gpt2_tokenizer: Any) -> None:
    """Beginning, blank, or the character before the word."""
    sieve = Sieve(gpt2_tokenizer)
    assert sieve.words("name", ["Siobhan"], ["({X} said"], ["X"]) == []
    assert sieve.left_out == ["name 'Siobhan' is 3 tokens after '('"]


# Refusals


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            {"name": "IOI"},
            "task: expected one of ioi, repeated, ownership, agreement, greater_than, acronyms, got 'IOI'",
        ),
        ({"name": "ioi", "n": 0}, "n: expected at least 1 pair, got 0"),
        (
            {"name": "ioi", "names": ["Mary", "John", "Bob", "Siobhan"], "frames": [LONG], "n": 13},
            "task 'ioi': expected at least 13 pairs of one length, this tokenizer makes 12 (left out: name 'Siobhan' is 3 "
            "tokens after a blank)",
        ),
        (
            {"name": "ioi", "names": ["Mary", "John"], "frames": [LONG], "n": 2},
            "task 'ioi': expected at least 2 pairs of one length, this tokenizer makes 0",
        ),
        (
            {"name": "repeated", "words": ["key"]},
            "task 'repeated': expected at least 32 pairs of one length, this tokenizer makes 0",
        ),
        ({"name": "ioi", "frames": ["{X} met"]}, "frames: expected {X}, {Y} and {GIVER} once each, got '{X} met'"),
        (
            {"name": "ioi", "bos": "nonsense "},
            "bos: expected a token or id of this model's vocabulary, got 'nonsense '",
        ),
        ({"name": "repeated", "shown": 5}, "shown: expected 1 to 4 of 6 words, got 5"),
    ],
)
def test_refusals(call: dict[str, Any], sentence: str, gpt2_tokenizer: Any) -> None:
    """One sentence: the argument, or the task, how many pairs there are, and what was left out."""
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        fit_task(tokenizer=gpt2_tokenizer, **call)


@pytest.mark.parametrize("name", sorted(set(TASK_NAMES) - set(DEMO)))
def test_contrasts_that_the_demo_tokenizer_lacks_words_for(name: str, words: Any) -> None:
    """A frame of unknown words makes no pair at all, and that is the reason given."""
    with pytest.raises(
        ValueError, match=rf"^task '{name}': .* makes 0 \(left out: frames? .* vocabulary\)$"
    ) as refused:
        fit_task(name, words)
    assert "\n" not in str(refused.value)


# The tokens that are read


def test_readout_of_one_answer(gpt2_tokenizer: Any, words: Any) -> None:
    """The first token of the word after a blank; of a word of several tokens the first."""
    prompt = ioi_prompt("ABBA", 0, io="Mary", s="John")
    assert readout_ids(gpt2_tokenizer, prompt) == tuple(
        (gpt2_tokenizer(f" {w}")["input_ids"][0],) for w in ("Mary", "John")
    )
    assert readout_ids(words, prompt) == tuple((vocabulary().index(w),) for w in ("Mary", "John"))
    split = Prompt("I met", answer="Siobhan", foil="Zebulon")
    assert [decoded(gpt2_tokenizer, ids) for ids in readout_ids(gpt2_tokenizer, split)] == [["ĠSi"], ["ĠZ"]]


def test_readout_of_years(gpt2_tokenizer: Any) -> None:
    """In GPT-2 the two digits of every year that has its century's token, which 1500 has not; later years on one side, earlier on the other."""
    (prompt,), _ = TASKS["greater-than"](1)
    yy = int(prompt.name_at("YY"))
    right, wrong = (decoded(gpt2_tokenizer, ids) for ids in readout_ids(gpt2_tokenizer, prompt))
    end = prompt.text[-2:]
    apart = [f"{y:02}" for y in range(100) if gpt2_tokenizer.tokenize(f" {end}{y:02}") == [f"Ġ{end}", f"{y:02}"]]
    assert 80 < len(apart) < 100
    assert "00" not in apart
    assert right == [y for y in apart if int(y) > yy]
    assert wrong == [y for y in apart if int(y) <= yy]


def test_what_both_sides_begin_with_is_dropped(gpt2_tokenizer: Any) -> None:
    """Sets may share a first token: it is read on neither side; each id is given once."""
    prompt = Prompt("I met", answers=("Siegel", "Mary", "Siobhan", "Mary"), foils=("Sian", "John"))
    kept = [decoded(gpt2_tokenizer, ids) for ids in readout_ids(gpt2_tokenizer, prompt)]
    assert gpt2_tokenizer.tokenize(" Siegel")[0] == gpt2_tokenizer.tokenize(" Sian")[0] == "ĠS"
    assert kept == [["ĠMary", "ĠSi"], ["ĠJohn"]]


BAD_READOUTS = {
    "none": ({}, "prompt: expected a prompt with an answer and a foil, got one without"),
    "no foil": ({"answer": "Mary"}, "prompt: expected a prompt with an answer and a foil, got one without"),
    "blank": (
        {"answer": "  Mary", "foil": "John"},
        "answer: expected a word without a blank before it (see Prompt.glue), got '  Mary'",
    ),
    "empty": (
        {"answer": "Mary", "foil": ""},
        "foil: expected a word without a blank before it (see Prompt.glue), got ''",
    ),
    "equal": (
        {"answer": "Mary", "foil": "Mary"},
        "foil: expected another first token than the answer's, got 'Mary' ('Mary')",
    ),
    "joined": (
        {"answer": "abolism", "foil": "x", "glue": ""},
        "answer: expected a word that adds a token to 'I met', got 'abolism'",
    ),
    "one side": (
        {"answers": ("Mary",)},
        "prompt: expected a prompt with an answer and a foil, got one without",
    ),
    "nothing left": (
        {"answers": ("Siegel",), "foils": ("Sian", "John")},
        "answers: expected words with a first token that the other side lacks, got none after 'I met'",
    ),
}


@pytest.mark.parametrize(("given", "sentence"), BAD_READOUTS.values(), ids=BAD_READOUTS)
def test_refused_readouts(given: dict[str, Any], sentence: str, gpt2_tokenizer: Any) -> None:
    """One sentence each."""
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        readout_ids(gpt2_tokenizer, Prompt("I met", **given))


def test_an_unknown_answer(words: Any) -> None:
    """A word-level tokenizer would read the unknown word."""
    with pytest.raises(ValueError, match=r"^answer: expected words of this model's vocabulary, got 'Siobhan'$"):
        readout_ids(words, Prompt("Mary met", answer="Siobhan", foil="John"))
