"""The documents' results are those of docs/results, to the last digit shown."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.documents import DOCUMENTS, name_of, table_rows
from support.paths import ROOT, SHARED
from support.record import DEFAULTS, settings_of

from mlx_grpo.config.files import load_config
from mlx_grpo.tasks.shortlist.instruction import instruction_of
from reward.breakdown import COMPONENTS

RESULTS = ROOT / "docs" / "results"
COLUMNS = {
    "reward": ("reward", "{:.3f}"),
    "published rubric": ("published", "{:.3f}"),
    "valid": ("valid", "{:.2f}"),
    "coverage": ("coverage", "{:.2f}"),
    "confirmed": ("confirmed", "{:.2f}"),
    "shortlisted": ("shortlisted", "{:.2f}"),
    "decisions": ("correct", "{:.2f}"),
    "ROC AUC": ("roc_auc", "{:.2f}"),
    **{name: (name, "{:.3f}") for name in COMPONENTS},
}
"""Columns of a model's means: the key of each in a file of results, and how it is written."""
DIFFERENCES = {"gain": "differences", "GRPO's gain": "over_warm_start"}
"""Columns of a difference in reward: to the base model, and to the same run's warm start."""
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


def source_of(document: Path, row: dict[str, str]) -> tuple[Path, str]:
    """Return the file of results that a row links to, and the link's text: the model that the row is about."""
    model, file = re.fullmatch(r"\[(.+)\]\((.+)\)", row["figures"]).groups()
    return (document.parent / file).resolve(), model


def cell_of(results: dict[str, Any], model: str, column: str) -> str:
    """Return what a table's cell must hold."""
    if column == "prompts":
        return str(results["n_episodes"])
    if column == "facts' ROC AUC":
        return f"{results['stated_auc'][model]:.2f}"
    if column in DIFFERENCES:
        # Without a warm start GRPO began at the base model.
        differences = results[DIFFERENCES[column]] or results["differences"]
        return "{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**differences[model]["reward"])
    if column == "examples":
        return str(examples_of(results, model))
    key, form = COLUMNS[column]
    return form.format(results["means"][model][key])


def examples_of(results: dict[str, Any], model: str) -> int:
    """Return how many examples a model was warmed up on; its name has the steps where they are not the file's."""
    if model == "baseline":
        return 0
    settings = {**DEFAULTS, **results["settings"]}
    named = re.search(r"warm_start.steps=(\d+)", model)
    return int(named[1] if named else settings["warm_start.steps"]) * settings["warm_start.batch_size"]


def tracked_bytes(folder: str) -> int:
    """Return the size of the files that git tracks in a folder."""
    listed = subprocess.run(["git", "ls-files", "-z", folder], capture_output=True, text=True, cwd=ROOT, check=True)
    return sum((ROOT / name).stat().st_size for name in listed.stdout.split("\0") if name)


@pytest.mark.parametrize(("document", "row"), ROWS)
def test_row_holds_the_figures_of_its_file(document: Path, row: dict[str, str]):
    file, model = source_of(document, row)
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results["rubric_version"] == ("published" if set(COMPONENTS) & set(row) else "strict 2")
    shown = {column: cell for column, cell in list(row.items())[1:-1] if cell}
    assert shown
    assert shown == {column: cell_of(results, model, column) for column in shown}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_row_of_results_names_its_file(document: Path):
    for row in table_rows(document):
        if {"reward", "decisions", "ROC AUC"} & set(row):
            assert "figures" in row, row


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_results_stand_in_tables_alone(document: Path):
    prose = re.sub(
        r"```.*?```|`[^`]*`|^\|.*?$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    assert re.findall(r"\b[01]\.\d{3}\b", prose) == []  # only tables are compared with docs/results


def test_every_file_of_results_is_shown():
    shown = {source_of(*p.values)[0] for p in ROWS}
    assert shown | {WORDINGS, PRECISION, SPEED} == set(RESULTS.glob("*.json"))


def test_wordings_have_the_figures_of_their_file_and_the_chosen_one_is_in_use():
    record = json.loads(WORDINGS.read_text(encoding="utf-8"))
    rows = [row for row in table_rows(ROOT / "docs" / "prompt.md") if "wording" in row]
    expected = {
        (model, wording): [f"{by_mode['greedy'][name]:.2f}, {by_mode['sampled'][name]:.2f}" for name in WORDING_FIGURES]
        for model, by_wording in record["models"].items()
        for wording, by_mode in by_wording.items()
    }
    assert {(row["model"], row["wording"]): list(row.values())[2:] for row in rows} == expected
    text, after = (ROOT / "docs" / "prompt.md").read_text(encoding="utf-8"), record["after_above"]
    assert f"{after['inside']} of {after['completions']:,} completions" in text
    assert f"{after['above']} of {after['evaluated']} greedy completions" in text
    (chosen,) = (messages for name, messages in record["wordings"].items() if name.endswith("(chosen)"))
    assert chosen == list(instruction_of("compact"))


def test_published_run_has_the_figures_of_its_evaluation():
    file = SHARED / "redrob" / "published_eval_compare.json"
    if not file.is_file():
        pytest.skip("needs the published run's evaluation")
    found = json.loads((RESULTS / "redrob.json").read_text(encoding="utf-8"))["means"]
    published = json.loads(file.read_text(encoding="utf-8"))
    for name, kept in (("Qwen3-0.6B", "baseline"), ("redrob-qwen-grpo", "trained")):
        means = {**published[kept]["components_mean"], "reward": published[kept]["mean_reward"]}
        del means["total"]
        assert found[name] == pytest.approx(means, abs=1e-6)


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


def test_learning_tells_how_many_completions_pytorch_writes_alike():
    found = json.loads((RESULTS / "alone.json").read_text(encoding="utf-8"))["in_torch"]
    text = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
    assert f"the same text for {found['same']} of {found['episodes']} prompts" in text


@pytest.mark.parametrize(
    ("config", "name", "apart"),
    [
        # The stand-in ran on a CPU and kept its last adapter; a warm start of no steps has no rate.
        ("qwen3", "alone", ("dtype", "eval_steps", "warm_start.learning_rate", "warm_start.warmup_steps")),
        ("smollm2", "demo", ()),
    ],
)
def test_config_has_the_settings_that_were_measured(config: str, name: str, apart: tuple[str, ...]):
    measured = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["settings"]
    own, other = (
        {key: value for key, value in settings.items() if key not in ("model", *apart)}
        for settings in (settings_of(load_config(config)), measured)
    )
    assert own == other


def test_documents_are_small():
    assert tracked_bytes("docs") < 1.5e6
    assert tracked_bytes("docs/results") < 0.3e6
