"""Following the README works: its Python runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
#: Its text without blocks of code, digits in code, addresses of links and pictures, and line breaks.
TEXT = re.sub(r"```.*?```|<!-- badges -->.*?<!-- /badges -->|(?<=\])\([^)\s]+\)", " ", README, flags=re.DOTALL)
WORDS = " ".join(re.sub(r"`[^`]+`", lambda code: re.sub(r"\d", "", code[0]), TEXT).split())


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The example prints a report with its note about lengths."""
    exec(block, {})
    said = capsys.readouterr().out
    assert "Heads that shift most" in said
    assert "differ in length" in said


def test_make_targets_exist() -> None:
    """Every `make target` that the README names is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z0-9-]+)", README)) <= targets


def test_local_links_lead_somewhere() -> None:
    """Every relative link and picture is a file of the repository."""
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


SCORE_ROWS = {
    "activation patching of every head": "activation patching",
    "attribution patching": "attribution patching",
    "**output change, all positions**": "output change, all positions",
    "total variation of attention, furthest position": "total variation, furthest position",
    r"\|dKL\| at END": "|d KL|",
    r"\|dchi\| at END": "|d chi|",
    "layer index": "layer index",
}


@pytest.mark.parametrize(("row", "score"), SCORE_ROWS.items(), ids=SCORE_ROWS.values())
def test_scores_on_the_real_model_are_the_shipped_ones(row: str, score: str) -> None:
    """Every AUROC and within-layer AUROC of the table of scores, and the passes, as the shipped tables give them."""
    from helpers.measured.shipped import ranked_scores

    (line,) = (line for line in README.splitlines() if line.startswith(f"| {row}") and "SmolLM2" not in line)
    cells = [cell.strip() for cell in line.strip("|").replace(r"\|", "").split("|")]
    for cell, task in zip(cells[2:], ("ioi", "repeated", "agreement"), strict=True):
        ranked = ranked_scores("smollm2", task, [score], n_permutations=1).loc[score]
        assert cell == f"{ranked.auroc:.2f} ({ranked.within:.2f})"
        assert cells[1].split()[0] == f"{ranked.passes:g}"


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    """The post's protocol on SmolLM2's shipped rows: the ranking by |dKL| and by |dchi|."""
    from helpers.experiment import analyse
    from helpers.measured.shipped import shipped_record
    from helpers.reference.measured import measured_circuit

    measured = measured_circuit("smollm2")
    assert measured is not None
    active, control = (shipped_record("smollm2", name).at("END") for name in ("ioi", "abc"))
    return dict(analyse(active, control, measured.circuit()).rankings)


def test_the_answer_on_the_real_model_is_that_of_the_shipped_rows(answer: dict[str, Any]) -> None:
    """AUROC of |dKL|, |dchi|, the layer index; within layers; heads."""
    numbers = [*(r.auroc for r in answer.values()), answer["|dKL|"].layer_auroc]
    row = f"| SmolLM2, {answer['|dKL|'].n_circuit} causal heads of 270 (**measured**, `make run MODEL=smollm2`) |"
    assert f"{row} {' | '.join(f'{number:.3f}' for number in numbers)} |" in README
    within = "; ".join(f"{r.within_auroc:.3f}, p = {r.within_p:.2f}" for r in answer.values())
    assert f"({within})" in WORDS


def test_first_screen(answer: dict[str, Any]) -> None:
    """Times in 100 are the AUROC of the shipped rows and scores, and of the published figures."""
    from helpers.measured import NAMED, ranked_scores

    kl, chi = answer["|dKL|"], answer["|dchi|"]
    scores = ranked_scores("smollm2", "ioi", [NAMED, "attribution patching"], n_permutations=1).auroc
    hundred = [f"{100 * x:.0f}" for x in (kl.auroc, chi.auroc, kl.layer_auroc, *scores)]
    said = (
        f"SmolLM2, a real language model, has {kl.n_circuit + kl.n_other} heads, and {kl.n_circuit} of them cause its answer",
        f"Given one of the {kl.n_circuit} and one of the others, the change of KL picks the right one {hundred[0]} times in 100 "
        f"and that of chi {hundred[1]} times, but *how deep in the model a head sits* does so {hundred[2]} times",
        f"*writes* is right {hundred[3]} times in 100; attribution patching, with a backward pass, {hundred[4]} times.",
        "(GPT-2 small, as published: KL {}, chi {}, depth {}.)".format(*(f"{100 * x:.0f}" for x in published_row())),
    )
    assert [words for words in said if words not in WORDS] == []


def published_row() -> list[float]:
    """AUROC of |dKL|, |dchi| and of the layer index for the published circuit of GPT-2 small."""
    from helpers.reference import published

    numbers = [published.TESTS.set_index("statistic").auroc[score] for score in ("|dKL|", "|dchi|")]
    return [*numbers, published.layer_auroc()]


def test_published_row() -> None:
    """GPT-2 small's line of the table, and the number of heads with an arrow in the picture."""
    from helpers.reference.circuits import IOI_POST

    n, layers, heads = len(IOI_POST.heads), IOI_POST.n_layers, IOI_POST.n_heads
    numbers = " | ".join(f"{number:.3f}" for number in published_row())
    assert f"| GPT-2 small, {n} heads of {layers * heads} (**published**, Fields 2026) | {numbers} (ours" in README
    assert README.count(f"{n} circuit heads of GPT-2 small") == README.count(f"small's {n} IOI circuit heads") == 1


def test_models() -> None:
    """Layers x heads of each model, from its shipped circuit; and how many kinds the table of architectures has."""
    from helpers.reference.circuits import IOI_POST
    from helpers.reference.demo import circuit_of
    from helpers.reference.measured import measured_circuit

    measured, demo = measured_circuit("smollm2"), circuit_of("demo")
    assert measured is not None
    assert demo is not None
    for name, circuit in (("smollm2", measured.circuit()), ("demo", demo), ("gpt2-small", IOI_POST)):
        (line,) = (line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        assert f" {circuit.n_layers} x {circuit.n_heads} heads" in line
    table = (ROOT / "helpers" / "models" / "ARCHITECTURES.md").read_text("utf-8")
    kinds = len(re.findall(r"^\| (?!---|architecture)", table, re.MULTILINE))
    assert f"random models of {kinds} kinds" in WORDS


def test_attribution_in_both_directions() -> None:
    """The lowest AUROC of the larger estimate, and where the last causal head stands, on SmolLM2's three tasks."""
    from helpers import auroc, measured_circuit
    from helpers.measured import shipped_attribution

    lowest, last = 1.0, 0.0
    for task in ("ioi", "repeated", "agreement"):
        score = shipped_attribution("smollm2", task)[["denoising", "noising"]].abs().max(axis=1)
        causal = measured_circuit("smollm2", task).table.causal
        lowest = min(lowest, auroc(score, causal))
        last = max(last, score.rank(ascending=False)[causal].max() / len(score))
    found = re.search(r"AUROC of ([\d.]+) or more on all three tasks .* the first (\d+) % of its list", WORDS)
    assert found
    assert found.groups() == (f"{int(100 * lowest) / 100:.2f}", f"{100 * last:.0f}")


def test_what_luck_gives() -> None:
    """Chances of one score, and the count of all, as notebook 05 prints them."""
    from helpers.measured import all_rankings, verdicts_by_chance

    chance = verdicts_by_chance(all_rankings())
    found = re.search(
        r"with probability ([\d.]+) at most, on two with ([\d.]+); of all (\d+) .* makes (\d+), where (\d+) were", WORDS
    )
    assert found
    one, two = (f"{chance.attrs['at_least'][k][0]:.2f}" for k in (1, 2))
    assert found.groups() == (
        one,
        two,
        str(chance.attrs["of"]),
        *(str(chance.loc["all", c]) for c in ("chance", "useful")),
    )


def test_predictions_of_the_first_post() -> None:
    """What is said of notebook 07 is the shipped verdicts, word by word."""
    from helpers.measured import measured_knob

    real, toy = (measured_knob(name).verdicts for name in ("smollm2", "demo"))
    linear, named, optimum, law = (real[real.section == section] for section in (1, 2, 3, 4))
    found = re.search(
        r"\(error (\d+) %: (\w+)\).* within layers ([\d.]+), of ([\d.]+) asked: (\w+)\).* random directions are \((\w+); on "
        r"the demo model it (\w+)\).*\((\d+) % of the heads: (\w+)\)",
        WORDS,
    )
    assert found
    assert found.groups() == (
        f"{linear.value.max():.0%}"[:-1], *{*linear.verdict},
        f"{named.value.iloc[0]:.2f}", f"{named.limit.iloc[0]:.1f}", named.verdict.iloc[0],
        optimum.verdict.iloc[0], toy[toy.section == 3].verdict.iloc[0],
        f"{law.value.iloc[0]:.0%}"[:-1], law.verdict.iloc[0],
    )  # fmt: skip


def test_minutes_are_those_that_the_notebooks_say() -> None:
    """The time beside a notebook is the one at its top; the playground has none."""
    rows = re.findall(r"\(notebooks/(\d\d\S*\.ipynb)\) \| .*?(?:\((\d+) minutes\) )?\|$", README, re.MULTILINE)
    assert len(rows) >= 6
    for name, minutes in rows:
        said = re.search(r"[Aa]bout (\d+) minutes", (ROOT / "notebooks" / name).read_text("utf-8"))
        assert minutes == (said[1] if said else ""), name


#: What was measured once, and can't be measured by a test: sizes in GB and seconds of processor time (two cores, Python 3.11,
#: torch 2.13, November 2026: user and system time of `python -m helpers run`, 14.0 and 52.6). The cells of
#: notebooks 01, 02, 03, 05 and 06 took 13, 19, 15, 15 and 26 seconds of it, imports included.
MEASURED = (
    "`make run` takes 14 seconds of one processor core, with SmolLM2 52 (on a shared server, no GPU)",
    "(0.2 GB instead of 3 GB)",
    "(0.5 GB, once)",
)
#: Every other number: the words around it, and the test that finds it wrong if it is.
CHECKED = {
    r"has \d+ heads, and \d+ of them cause .* attribution patching, with a backward pass, \d+ times\.": "test_first_screen",
    r"\(GPT-2 small, as published: KL \d+, chi \d+, depth \d+\.\)": "test_first_screen",
    r"\d+ circuit heads of GPT-2 small|small's \d+ IOI circuit heads": "test_published_row",
    r"\| GPT-2 small, \d+ heads of \d+ [^|]*\| [\d.]+ \| [\d.]+ \| [\d.]+ ": "test_published_row",
    r"\d+ x \d+ heads": "test_models",
    r"random models of \d+ kinds": "test_models",
    r"\(\d+ minutes\)": "test_minutes_are_those_that_the_notebooks_say",
    r"\| SmolLM2, \d+ causal heads of 270 [^|]*\| [\d.]+ \| [\d.]+ \| [\d.]+ ": "test_the_answer_on_the_real_model_is_that_of_the_shipped_rows",
    r"\([\d.]+, p = [\d.]+; [\d.]+, p = [\d.]+\)": "test_the_answer_on_the_real_model_is_that_of_the_shipped_rows",
    r"\| demo model, \d+ causal heads of \d+ [^|]*\| [\d.]+ \| [\d.]+ \| [\d.]+ ": "test_readme_states_what_the_experiment_finds",
    r"\| (?:\d+|4 \(one backward pass among them\)) (?:\| [\d.]+ \([\d.]+\) ){3}": "test_scores_on_the_real_model_are_the_shipped_ones",
    r"above 0\.5": "test_counts_of_the_verdict",
    r"over \d+ scores between .* is [\d.]+ \([\d.]+ to [\d.]+\)": "test_the_readme_says_what_the_table_says",
    r"AUROC of [\d.]+ or more on all three tasks .* the first \d+ % of its list": "test_attribution_in_both_directions",
    r"probability [\d.]+ at most, on two with [\d.]+; of all \d+ .* makes \d+, where \d+ were found": "test_what_luck_gives",
    r"\(error \d+ %: .* within layers [\d.]+, of 0\.5 asked: .*\(\d+ % of the heads: \w+\)": "test_predictions_of_the_first_post",
    r"output magnitude [\d.]+, within layers [\d.]+; attribution patching [\d.]+, [\d.]+": "test_the_readme_says_what_the_table_says",
    r"compares \d+ published figures": "test_full_agreement_passes",
}  # fmt: skip
#: Digits that count nothing: names, years, versions, bits.
NAMES = r"GPT-2|UTF-8|SmolLM2(?:-135M(?:-Instruct)?)?|S[12]\b|Python 3\.1[13]|\(?\b20\d\d\)?|4-bit|4 bits|notebooks? \d\d(?: and \d\d)?|\[\d\d — "


def unaccounted(words: str) -> list[str]:
    """Numbers of a text that stand in none of these."""
    for pattern in (*map(re.escape, MEASURED), *CHECKED, NAMES):
        words = re.sub(pattern, " ", words)
    return re.findall(r"\S*\d\S*", words)


def test_every_number_is_accounted_for() -> None:
    """Each is found wrong by a test if it is, was measured once, or is part of a name; a new one must say which."""
    assert unaccounted(WORDS) == []
    assert unaccounted(f"{WORDS} It is right in 3 of 4 cases.") == ["3", "4"]


def test_every_account_is_of_something() -> None:
    """No pattern without a place in the text, and every test that is named exists."""
    assert [pattern for pattern in (*map(re.escape, MEASURED), *CHECKED) if not re.search(pattern, WORDS)] == []
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert [name for name in CHECKED.values() if f"def {name}(" not in tests] == []
