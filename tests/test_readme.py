"""Following the README works: its Python runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


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


def test_the_answer_on_the_real_model_is_that_of_the_shipped_rows() -> None:
    """The post's protocol on SmolLM2's shipped rows: AUROC of |dKL|, |dchi|, the layer index; within layers; heads."""
    from helpers.experiment import analyse
    from helpers.measured.shipped import shipped_record
    from helpers.reference.measured import measured_circuit

    measured = measured_circuit("smollm2")
    assert measured is not None
    sides = [shipped_record("smollm2", name).at("END") for name in ("ioi", "abc")]
    found = analyse(sides[0], sides[1], measured.circuit()).rankings
    numbers = [*(r.auroc for r in found.values()), found["|dKL|"].layer_auroc]
    row = f"| SmolLM2, {found['|dKL|'].n_circuit} causal heads of 270 (**measured**, `make run MODEL=smollm2`) |"
    assert f"{row} {' | '.join(f'{number:.3f}' for number in numbers)} |" in README
    within = "; ".join(f"{r.within_auroc:.3f}, p = {r.within_p:.2f}" for r in found.values())
    assert f"({within})" in README
