"""Prompts as people have them: lines of files and text boxes, lists and what is no list; no END at something unseen."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import Prompt, attribute_heads, patch_heads, patch_paths, record_attention, record_changes, tokenize
from helpers.patching.pairs import MinimalPairs
from helpers.prompts.characters import odd_character, seen_end, trim, unseen_end
from helpers.prompts.ioi import ioi_prompts, minimal_pairs
from helpers.prompts.reading import as_prompts, parse_prompts, prompt_lines, read_prompts
from helpers.prompts.tokens import notes

TEXTS = ["Mary saw John in the park", "Kate saw Tom in the room"]


# Files


AS_TYPED: dict[str, bytes] = {
    "plain": b"Mary saw John in the park\nKate saw Tom in the room\n",
    "no line end": b"Mary saw John in the park\nKate saw Tom in the room",
    "Windows": b"\xef\xbb\xbfMary saw John in the park\r\nKate saw Tom in the room\r\n",
    "old Mac": b"Mary saw John in the park\rKate saw Tom in the room\r",
    "blank lines": b"\n\nMary saw John in the park\n  \t\n\xc2\xa0\nKate saw Tom in the room\n\n\n",
}


@pytest.mark.parametrize("content", AS_TYPED.values(), ids=AS_TYPED)
def test_files_as_editors_write_them(content: bytes, tmp_path: Path) -> None:
    """A byte-order mark, any line end and blank lines are no part of a prompt, and nothing is said about them."""
    (tmp_path / "a.txt").write_bytes(content)
    found = read_prompts(tmp_path / "a.txt")
    assert found == tuple(map(Prompt, TEXTS))
    assert found.notes == ()


#: One of every kind that shows nothing: directions, invisible operators, soft hyphen, tags, fillers, joiners, selectors.
UNSEEN = "\u200e\u200f\u061c\u202a\u202e\u2063\u2066\u2069\u00ad\ufff9\U000e0041\u2800\u3164\u115f\u1160\uffa0\u034f\u17b4\u200d\ufe0f"


@pytest.mark.parametrize(
    "end", [" ", "   ", "\t", "\u00a0", "\u200b", "\u3000", "\ufeff", "\x1a", " \u00a0\t", *UNSEEN, " \u200e "]
)
def test_what_is_unseen_at_the_ends_is_taken_off(end: str) -> None:
    """White space of any kind, before or after a prompt, on one line or both: gone, with a note of the number of lines."""
    for text, lines in ((f"{TEXTS[0]}{end}\n{TEXTS[1]}", "1 line"), (f"{end}{TEXTS[0]}\n{TEXTS[1]}{end}", "2 lines")):
        found = parse_prompts(f"\n{text}")
        assert [p.text for p in found] == TEXTS
        assert found.notes == (f"White space at the ends of {lines} was taken off.",)


def test_default_ignorables_are_unseen() -> None:
    """Unicode's own list of what is not displayed (Default_Ignorable_Code_Point), where a character is assigned."""
    ranges = (
        (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180E),
        (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x2064), (0x2066, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F),
        (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0020, 0xE007F),
        (0xE0100, 0xE01EF),
    )  # fmt: skip
    for character in (chr(code) for first, last in ranges for code in range(first, last + 1)):
        assert trim(f"{character}Mary{character} {character}") == "Mary"
        assert seen_end(character) == 0


@pytest.mark.parametrize(
    "seen", ["❤\ufe0f", "葛\U000e0100", "٥\u06dd", "Zoe\u0308", "👩\u200d🔬", "क\u094d", "…", "\ue000"]
)
def test_what_one_sees_at_the_ends_stays(seen: str) -> None:
    """A selector that colours a heart or picks the form of an ideograph, accents, signs and private letters are text."""
    assert trim(f"{seen}\u200e ") == trim(seen) == seen
    assert unseen_end(seen) == ""
    assert parse_prompts(f"Mary saw {seen}").notes == ()


def test_comments_are_left_out() -> None:
    """A line that begins with #, blanks before it or not, is no prompt, and how many there were is said; # inside is text."""
    found = parse_prompts(f"# mine\n{TEXTS[0]}\n  # more \nAgent #7 saw Tom")
    assert [p.text for p in found] == [TEXTS[0], "Agent #7 saw Tom"]
    assert found.notes == ("2 lines that begin with # (a comment) left out.",)
    assert parse_prompts("# one\na").notes == ("1 line that begins with # (a comment) left out.",)


ODD: dict[str, tuple[str, str]] = {
    "no-break space": ("Mary\u00a0saw", "U+00A0 NO-BREAK SPACE at character 5 of"),
    "tab": ("Mary saw\tJohn", "U+0009 TAB at character 9 of"),
    "two blanks": ("Mary  saw", "2 blanks at character 5 of"),
    "thin space": ("Mary\u202fsaw", "U+202F NARROW NO-BREAK SPACE at character 5 of"),
    "no width": ("Ma\u200bry saw", "U+200B ZERO WIDTH SPACE at character 3 of"),
    "mark inside": ("Mary \ufeffsaw", "U+FEFF ZERO WIDTH NO-BREAK SPACE at character 6 of"),
    "NUL (UTF-16)": ("M\x00a\x00r", "U+0000 CONTROL CHARACTER at character 2 of"),
    "line separator": ("Mary saw\u2028John", "U+2028 LINE SEPARATOR at character 9 of"),
    "blank letter": ("Mary\u3164saw", "U+3164 HANGUL FILLER at character 5 of"),
    "invisible comma": ("Mary\u2063saw", "U+2063 INVISIBLE SEPARATOR at character 5 of"),
}


@pytest.mark.parametrize(("line", "what"), ODD.values(), ids=ODD)
def test_odd_characters_inside_are_refused(line: str, what: str, tmp_path: Path) -> None:
    """One sentence with the file, the line as an editor counts it, the character's name and its place."""
    (tmp_path / "a.txt").write_text(f"# first\n\n{TEXTS[0]}\n{line}\n", encoding="utf-8")
    sentence = f"--active {tmp_path / 'a.txt'}, line 4: expected single blanks between words, got {what} {line!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_prompts(tmp_path / "a.txt", name="--active")


def test_curly_quotes_dashes_and_other_scripts_are_text() -> None:
    """Characters that one sees, and the joiners that scripts need, are as they were typed."""
    typed = ["“Mary” — said John’s", "Zoë a vu Åsa", "می\u200cخواهم", "👩\u200d🔬 saw", "שלום\u200e (Mary) saw"]
    assert [p.text for p in parse_prompts("\n".join(typed))] == typed


def test_refuses_what_is_no_text_file(tmp_path: Path) -> None:
    """A folder, no file, other encodings: one sentence with the option, the path and what it is."""
    (tmp_path / "u16.txt").write_bytes("Mary saw".encode("utf-16"))
    (tmp_path / "latin.txt").write_bytes("Mary saw Zoë".encode("latin-1"))
    rule = "expected a text file in UTF-8, one prompt a line, got"
    for name, what in {
        "": "a folder",
        "none.txt": "a file that can't be read (No such file or directory)",
        "u16.txt": "one whose byte 1 is not UTF-8",
        "latin.txt": "one whose byte 12 is not UTF-8",
        "x" * 300: "a file that can't be read (File name too long)",
    }.items():
        path = tmp_path / name
        with pytest.raises(ValueError, match=f"^{re.escape(f'--active {path}: {rule} {what}')}$"):
            read_prompts(path, name="--active")


@pytest.mark.parametrize(
    ("path", "what"), [(None, "None"), (3, "3 (int)"), (["a.txt"], "a list"), ("a\x00b", "one text, 'a\\x00b'")]
)
def test_refuses_what_is_no_path(path: Any, what: str) -> None:
    """One sentence, also for a text that is none."""
    with pytest.raises(ValueError, match=f"^path: expected the path of a text file, got {re.escape(what)}$"):
        read_prompts(path)
    if not isinstance(path, str):
        with pytest.raises(ValueError, match=f"^text: expected a text, one prompt a line, got {re.escape(what)}$"):
            parse_prompts(path)


def test_refuses_half_a_surrogate_pair(words: Any) -> None:
    """It is no character of Unicode: refused in a text box and in a list, by its place, before a tokenizer fails at it."""
    what = r"got the lone surrogate U\+D800"
    with pytest.raises(
        ValueError, match=rf"^text, line 1: expected characters of Unicode, {what} at character 2 of 'a"
    ):
        parse_prompts("a\ud800")
    for texts in (["Mary", "a\ud800"], ["Mary", Prompt("a\ud800")]):
        with pytest.raises(
            ValueError, match=rf"^prompts: expected texts of Unicode characters, {what} in prompt 2, 'a"
        ):
            tokenize(texts, words)


def test_refuses_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says of it is in the sentence (made to say so: a superuser may read all)."""

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(
        ValueError, match=r"^path .*a\.txt: expected .*, got a file that can't be read \(Permission denied\)$"
    ):
        read_prompts(tmp_path / "a.txt")


def test_home_and_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~ is the home folder; blanks and umlauts in a path are no matter."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "Häuser am See.txt").write_bytes(AS_TYPED["plain"])
    assert read_prompts("~/Häuser am See.txt") == tuple(map(Prompt, TEXTS))


@given(st.lists(st.text("ab \t\u00a0\u200b\u200e\ufe0f❤#"), max_size=6))
def test_what_is_read_can_be_read_again(lines: list[str]) -> None:
    """Whatever was read is read from its own lines again, without a note; what is refused has an odd character inside."""
    text = "\n".join(lines)
    if any(odd_character(line) for line in prompt_lines(text)[0]):
        with pytest.raises(ValueError, match="expected single blanks between words"):
            parse_prompts(text)
        return
    found = parse_prompts(text)
    again = parse_prompts("\n".join(p.text for p in found))
    assert again == found
    assert again.notes == ()
    assert not any(odd_character(p.text) or unseen_end(p.text) for p in found)


# END is never at something unseen


@pytest.mark.parametrize("end", [" ", "  ", "\n", "\t", "\u00a0", "\u200b", *UNSEEN])
def test_refuses_a_prompt_whose_last_token_is_white_space(end: str, gpt2_tokenizer: Any) -> None:
    """As a text or as a Prompt, given in Python: the prompt's number, and what stands at its end."""
    sentence = "expected a text without white space at its end, where END is read, got"
    for prompt in (f"Mary saw{end}", Prompt(f"Mary saw{end}")):
        with pytest.raises(ValueError, match=rf"^prompt 2: {sentence} U\+{ord(end[-1]):04X} .* after 'Mary saw"):
            tokenize(["Mary saw", prompt], gpt2_tokenizer)


def test_an_emoji_at_the_end_is_text(gpt2_tokenizer: Any) -> None:
    """Its selector is a token of its own, and belongs to it."""
    assert tokenize(["Mary saw ❤\ufe0f"], gpt2_tokenizer)[0].tokens[-1] == "\ufe0f"


def test_white_space_without_a_token_is_no_matter(words: Any) -> None:
    """A tokenizer of words makes no token of a blank: END is the last word."""
    (found,) = tokenize(["Mary saw  "], words)
    assert found.tokens[found.position("END")] == "saw"
    assert notes([found]) == []


def test_white_space_elsewhere_is_the_readers_own(words: Any) -> None:
    """Code and paragraphs have line ends and tabs inside: in Python they are text."""
    assert len(tokenize(["Mary\n\n\tsaw  John"], words)[0]) == 4


def test_a_chat_template_may_end_in_a_line_end() -> None:
    """A text with a marker of the tokenizer's own ends as the template does; that END is the line end is noted."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inside = Tokenizer(models.BPE({c: i for i, c in enumerate("ĠĊabcdefghijklmnopqrstuvwxyz")}, []))
    inside.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inside.decoder = decoders.ByteLevel()
    chat = PreTrainedTokenizerFast(tokenizer_object=inside, bos_token="<|im_start|>", eos_token="<|im_end|>")
    found = tokenize(["<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "hi"], chat, prepend_bos=False)
    assert found[0].tokens[-1] == "\n"
    assert notes(found)[-1] == "1 of the 2 prompts end in white space (U+000A LINE FEED): its token is what END reads."
    with pytest.raises(ValueError, match=r"prompt 1: expected a text without white space at its end"):
        tokenize(["hi\n"], chat, prepend_bos=False)


# Lists of prompts, and what is none


@pytest.mark.parametrize(
    "make",
    [list, tuple, iter, pd.Series, lambda texts: np.array(texts), lambda texts: (t for t in texts), lambda texts: pd.DataFrame({"a": texts}).a],
)  # fmt: skip
def test_any_ordered_collection_of_texts(make: Callable[[list[str]], Any]) -> None:
    """Lists, columns, arrays and generators give the same prompts; a Prompt stays what it is."""
    assert as_prompts(make(TEXTS)) == [*map(Prompt, TEXTS)]
    prompt = ioi_prompts(1)[0]
    assert as_prompts([prompt, TEXTS[0]])[0] is prompt


NO_LISTS: dict[str, tuple[Any, str]] = {
    "one text": ("Mary saw", "one text, 'Mary saw'"),
    "a long text": ("Mary saw " * 9, "one text, 'Mary saw Mary saw Mary saw Mary saw ..."),
    "bytes": (b"Mary", "b'Mary' (bytes)"),
    "None": (None, "None"),
    "a number": (3, "3 (int)"),
    "a Prompt": (Prompt("Mary"), "a Prompt"),
    "a table": (pd.DataFrame({"text": TEXTS}), "a DataFrame"),
    "a mapping": ({"text": TEXTS}, "a dict"),
    "a set": (set(TEXTS), "a set"),
    "a grid": (np.array([TEXTS]), "a ndarray"),
    "an empty cell": (pd.Series(["Mary", float("nan")]), "nan (float) as prompt 2"),
    "None inside": (["Mary", "saw", None], "None as prompt 3"),
    "bytes inside": ([b"Mary"], "b'Mary' (bytes) as prompt 1"),
    "a list inside": ([["Mary"]], "a list as prompt 1"),
    "a dict inside": ([{"text": "Mary"}], "a dict as prompt 1"),
    "a Prompt of none": ([Prompt(None)], "None as prompt 1"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize(("given", "what"), NO_LISTS.values(), ids=NO_LISTS)
def test_refuses_what_is_no_list_of_prompts(given: Any, what: str, words: Any) -> None:
    """The same sentence from the reader of lists and from tokenize: what was expected, and what came."""
    sentence = re.escape(f"expected a list of texts or Prompts, got {what}")
    with pytest.raises(ValueError, match=f"^clean: {sentence}$"):
        as_prompts(given, "clean")
    with pytest.raises(ValueError, match=f"^prompts: {sentence}$"):
        tokenize(given, words)


PAIRED: dict[str, Callable[..., Any]] = {
    "patch_heads": patch_heads, "attribute_heads": attribute_heads, "patch_paths": patch_paths,
    "record_changes": record_changes, "MinimalPairs": MinimalPairs,
}  # fmt: skip


@pytest.mark.parametrize("run", PAIRED.values(), ids=PAIRED)
def test_pairs_refuse_what_is_no_list_by_its_side(run: Callable[..., Any], tiny: Any) -> None:
    """The side is named; texts, which have no answer, are refused where one is needed."""
    clean, corrupt = minimal_pairs(2)
    for sides, name in (((clean[0].text, corrupt), "clean"), ((clean, pd.DataFrame({"a": TEXTS})), "corrupt")):
        with pytest.raises(ValueError, match=f"^{name}: expected a list of texts or Prompts, got "):
            run(tiny, *sides)
    texts: Sequence[Sequence[str]] = [[p.text for p in side] for side in (clean, corrupt)]
    if run is not record_changes:
        with pytest.raises(ValueError, match=r"^clean: expected prompts with an answer and a foil, got one without$"):
            run(tiny, *texts)


def test_recording_refuses_what_is_no_list(tiny: Any) -> None:
    """A bare text is not read letter by letter, nor a table as its column names."""
    for wrong, what in (("Mary saw", "one text"), (pd.DataFrame({"Mary": TEXTS}), "a DataFrame")):
        with pytest.raises(ValueError, match=f"^prompts: expected a list of texts or Prompts, got {what}"):
            record_attention(tiny, wrong)
