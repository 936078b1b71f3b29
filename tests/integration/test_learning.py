"""The documents' results are those of docs/results, to the last digit shown."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.documents import DOCUMENTS, LINK, blocks, name_of, table_rows
from support.paths import ROOT

from mlx_grpo.config.files import flat
from mlx_grpo.tasks.shortlist.instruction import instruction_of

RESULTS = ROOT / "docs" / "results"
FIGURES = {"reward": "reward", "decisions": "correct", "ROC AUC": "roc_auc"}
"""Column names, and the key of each in a file of results."""
WORDINGS = RESULTS / "prompt.json"
PRECISION = RESULTS / "precision.json"
SPEED = RESULTS / "speed.json"
WORDING_FIGURES = ("parses", "alone", "inside", "confirmed", "coverage", "decisions", "published")
"""The figures of a wording in the order of the table's columns."""
ROWS = [
    pytest.param(document, row, id=f"{name_of(document)}-{next(iter(row.values()))}")
    for document in DOCUMENTS
    for row in table_rows(document)
    if "figures" in row
]


def cell_of(results: dict[str, Any], row: str, column: str) -> str:
    """Return what a table's cell must hold: a mean of one model, or what GRPO added to its warm start."""
    figure, moment = re.fullmatch(r"(.+?)( before| after| gain|)", column).groups()
    key, means = FIGURES[figure], results["means"]
    seeds = next(iter(results.get("seeds", {}).values()), None)
    if row.startswith("base model"):
        return f"{means['baseline'][key]:.3f}"
    if moment == " before":
        return f"{means['warm start'][key]:.3f}"
    if moment == " after":
        return f"{(seeds['figures'][key]['mean'] if seeds else means['trained'][key]):.3f}"
    if moment == " gain":
        form = "{mean:+.3f} ± {sd:.3f}" if seeds else "{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        return form.format(**(seeds["over_warm_start"] if seeds else results["over_warm_start"]["trained"])[key])
    return f"{means[row][key]:.3f}"


def tracked_bytes(folder: str) -> int:
    """Return the size of the files that git tracks in a folder."""
    listed = subprocess.run(["git", "ls-files", "-z", folder], capture_output=True, text=True, cwd=ROOT, check=True)
    return sum((ROOT / name).stat().st_size for name in listed.stdout.split("\0") if name)


@pytest.mark.parametrize(("document", "row"), ROWS)
def test_row_holds_the_figures_of_its_file(document: Path, row: dict[str, str]):
    name = next(iter(row.values()))
    results = json.loads((document.parent / LINK.search(row["figures"])[1]).read_text(encoding="utf-8"))
    assert results["rubric_version"] == "strict 1"
    assert row.get("prompts", str(results["n_episodes"])) == str(results["n_episodes"])
    shown = {column: cell for column, cell in list(row.items())[1:-1] if cell and column != "prompts"}
    assert shown
    assert shown == {column: cell_of(results, name, column) for column in shown}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_row_of_results_names_its_file(document: Path):
    for row in table_rows(document):
        if any(re.fullmatch(r"(reward|decisions|ROC AUC)( before| after| gain|)", column) for column in row):
            assert "figures" in row, row


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_results_stand_in_tables_alone(document: Path):
    prose = re.sub(
        r"```.*?```|`[^`]*`|^\|.*?$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    assert re.findall(r"\b[01]\.\d{3}\b", prose) == []  # only tables are compared with docs/results


def test_every_file_of_results_is_shown():
    shown = {(p.values[0].parent / LINK.search(p.values[1]["figures"])[1]).resolve() for p in ROWS}
    assert shown | {WORDINGS, PRECISION, SPEED} == set(RESULTS.glob("*.json"))


def test_wordings_have_the_figures_of_their_file_and_the_chosen_one_is_in_use():
    record = json.loads(WORDINGS.read_text(encoding="utf-8"))
    rows = [row for row in table_rows(ROOT / "docs" / "learning.md") if "wording" in row]
    expected = {
        (model, wording): [f"{by_mode['greedy'][name]:.2f}, {by_mode['sampled'][name]:.2f}" for name in WORDING_FIGURES]
        for model, by_wording in record["models"].items()
        for wording, by_mode in by_wording.items()
    }
    assert {(row["model"], row["wording"]): list(row.values())[2:] for row in rows} == expected
    text, after = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8"), record["after_above"]
    assert f"{after['inside']} of {after['completions']:,} completions" in text
    assert f"{after['above']} of {after['evaluated']} greedy completions" in text
    (chosen,) = (messages for name, messages in record["wordings"].items() if name.endswith("(chosen)"))
    assert chosen == list(instruction_of("compact"))


def test_half_precisions_have_the_figures_of_their_file():
    (by_dtype,) = json.loads(PRECISION.read_text(encoding="utf-8"))["models"].values()
    expected = []
    for dtype in ("float16", "bfloat16"):
        layers, steps = by_dtype[dtype]["layers"].values(), by_dtype[dtype]["steps"]
        norms = [layer["norm"] for layer in layers]
        zeros = max(layer["zeros"] for layer in layers)
        skipped = sum(step["update_skipped"] for step in steps)
        cosine = min(layer["cosine"] for layer in layers)
        expected.append(
            [dtype, f"{cosine:.4f}", f"{min(norms):.3f} to {max(norms):.3f}", f"{zeros:.0%}", f"{skipped:.0f}"]
        )
    rows = [row for row in table_rows(ROOT / "docs" / "guide" / "memory.md") if "lowest cosine" in row]
    assert [list(row.values()) for row in rows] == expected


def test_learning_repeats_the_settings_of_the_noisy_run():
    config = flat(yaml.safe_load(blocks("yaml", ROOT / "docs" / "learning.md")[0]))
    settings = json.loads((RESULTS / "noisy.json").read_text(encoding="utf-8"))["settings"]
    assert {key: value for key, value in config.items() if not key.startswith("eval")} == settings


def test_documents_are_small():
    assert tracked_bytes("docs") < 1.5e6
    assert tracked_bytes("docs/results") < 0.3e6
