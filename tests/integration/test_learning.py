"""What the tables of docs/learning.md say of the runs that are kept is what their eval.json holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from support.paths import ROOT

DOCS = ROOT / "docs"
COLUMNS = {
    "reward": "reward",
    "decisions": "correct",
    "ROC AUC": "roc_auc",
    "Spearman": "spearman",
    "NDCG@10": "ndcg_at_10",
    "reasons": "reason_quality",
    "valid JSON": "valid",
    "published rubric": "published",
    "balanced": "balanced_accuracy",
    "format": "format_valid",
    "score": "score_alignment",
    "length": "length_penalty",
    "grounded": "no_hallucination",
    "characters": "characters",
}
OVER = {"long/decision_first": "over_reasons_first"}
SPLIT = (
    ("GRPO finds some", "baseline", "split", "baseline"),
    ("GRPO finds some", "GRPO alone", "split/grpo_only", "trained"),
    ("GRPO finds some", "warm start", "split", "warm start"),
    ("GRPO finds some", "seed 0", "split", "trained"),
    ("GRPO finds some", "seed 1", "split/seed1", "trained"),
    ("GRPO finds some", "seed 2", "split/seed2", "trained"),
    ("GRPO finds some", "paid at random", "split/control", "trained"),
)
NO_EXAMPLES = "trained, no warm start, max_steps=32, dynamic_sampling=3, eval_steps=0"
# Heading, row, where it is kept, model; in the order in which they stand. Behind a row that of its difference from the
# warm start may follow, and behind a warm start that of its difference from one that writes its reasons first.
KEPT = (
    ("Examples", "the same on another CPU", "long/600", "warm start"),
    ("Examples", "900 steps (3,600 examples", "long", "warm start"),
    ("Reasons before", "reasons, score, decision", "long/600", "warm start"),
    ("Reasons before", "decision, score, reasons", "long/decision_first", "warm start"),
    ("GRPO teaches", "warm start", "demo", "warm start"),
    ("GRPO teaches", "trained", "demo", "trained"),
    ("GRPO teaches", "warm start", "demo/study", "warm start"),
    ("GRPO teaches", "seed 0", "demo/study", "trained"),
    ("GRPO teaches", "seed 1", "demo/study", "trained, seed 1"),
    ("GRPO teaches", "seed 2", "demo/study", "trained, seed 2"),
    ("GRPO teaches", "paid at random", "demo/study", "trained, shuffled reward, eval_steps=0"),
    ("GRPO teaches", "GRPO alone", "demo/study", "trained, no warm start, max_steps=8, eval_steps=0"),
    *SPLIT,
    *SPLIT,  # its second table, of the other figures
    ("GRPO where", "warm start", "branch", "warm start"),
    ("GRPO where", "after 24 steps", "branch", "trained"),
    ("GRPO where", "another seed's", "branch/seed7", "warm start"),
    ("GRPO where", "after the same 24", "branch/seed7", "trained"),
    ("GRPO where", "with 450 steps", "branch/450", "warm start"),
    ("GRPO where", "after 8 steps", "branch/450", "trained"),
    ("GRPO after noisy", "warm start, 900", "noisy", "warm start"),
    ("GRPO after noisy", "after 20 steps", "noisy", "trained"),
    ("GRPO after noisy", "a third seed's", "noisy/seed11", "warm start"),
    ("GRPO after noisy", "after the same 20", "noisy/seed11", "trained"),
    ("GRPO after noisy", "two fifths with", "noisy/two_fifths", "warm start"),
    ("GRPO after noisy", "after 12 steps", "noisy/two_fifths", "trained"),
    ("GRPO after noisy", "after 24 steps", "noisy/two_fifths/step24", "trained"),
    ("GRPO after noisy", "the run before", "noisy/800", "warm start"),
    ("GRPO after noisy", "after 16 steps", "noisy/800", "trained"),
    ("GRPO after noisy", "another seed's", "noisy/800/seed7", "warm start"),
    ("GRPO after noisy", "after the same 16", "noisy/800/seed7", "trained"),
    ("GRPO over", "warm start, 900 steps", "long", "warm start"),
    ("GRPO over", "after 10 steps of GRPO", "long", "trained"),
    ("GRPO over", "warm start, 600 steps", "long/600", "warm start"),
    ("GRPO over", "after 10 steps of GRPO", "long/600", "trained"),
    ("GRPO over", "warm start, 900 steps", "long/seed7", "warm start"),
    ("GRPO over", "after 10 steps of GRPO", "long/seed7", "trained"),
    ("One key", "warm start", "demo/one_key", "warm start"),
    ("One key", "nothing", "demo/one_key", "trained"),
    ("One key", "groups of 4", "demo/one_key", "trained, prompts_per_step=8, num_generations=4"),
    ("One key", "groups of 16", "demo/one_key", "trained, prompts_per_step=2, num_generations=16"),
    ("One key", "temperature 1.3", "demo/one_key", "trained, temperature=1.3"),
    ("One key", "KL 0.04", "demo/one_key", "trained, beta=0.04"),
    ("One key", "rate 2e-4", "demo/one_key", "trained, learning_rate=0.0002"),
    ("One key", "40 examples: warm", "demo/one_key", "warm start, warm_start.steps=10"),
    ("One key", "40 examples, 8", "demo/one_key", "trained, warm_start.steps=10"),
    ("One key", "20 examples: warm", "demo/one_key", "warm start, warm_start.steps=5"),
    ("One key", "20 examples, 8", "demo/one_key", "trained, warm_start.steps=5"),
    ("One key", "12 examples: warm", "demo/one_key", "warm start, warm_start.steps=3"),
    ("One key", "12 examples, 8", "demo/one_key", "trained, warm_start.steps=3"),
    ("One key", "no examples", "demo/one_key", NO_EXAMPLES),
)


@cache
def results(folder: str) -> dict[str, Any]:
    return json.loads((DOCS / folder / "eval.json").read_text(encoding="utf-8"))


def rows() -> Iterator[tuple[str, list[str], list[str]]]:
    """Heading, column names and cells of every row of every table."""
    heading, columns = "", None
    for line in (DOCS / "learning.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")] if line.startswith("|") else None
        heading = line.removeprefix("## ") if line.startswith("## ") else heading
        if cells and columns is None:
            columns = cells
        elif cells and not set(line) <= set("|-: "):
            yield heading, columns, cells
        columns = columns if cells else None


def tables() -> Iterator[tuple[str, str, dict[str, str], dict[str, str]]]:
    """For each of `KEPT`: folder, model, its cells by column, and those of the row of differences behind it, if any."""
    every = list(rows())
    at = -1
    for heading, row, folder, model in KEPT:
        at = next(
            i for i in range(at + 1, len(every)) if every[i][0].startswith(heading) and every[i][2][0].startswith(row)
        )
        here, after = (
            dict(zip(columns, cells, strict=False)) for _, columns, cells in [*every, ("", [], [])][at : at + 2]
        )
        yield folder, model, here, after if "difference" in after.values() else {}


CASES = [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in tables()]


def figures(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?\d[\d.]*", cell)]


@pytest.mark.parametrize(("folder", "model", "row", "differences"), CASES)
def test_a_row_holds_the_means_of_the_run_kept(folder: str, model: str, row: dict, differences: dict):
    told = {name: cell for name, cell in row.items() if name in COLUMNS and cell}
    assert len(told) >= 6
    for name, cell in told.items():
        mean = results(folder)["means"][model][COLUMNS[name]] * (100 if cell.endswith("%") else 1)
        digits = len(cell.rstrip("%").partition(".")[2])
        assert figures(cell) == pytest.approx([mean], abs=0.501 * 10**-digits), name


@pytest.mark.parametrize(("folder", "model", "row", "differences"), CASES)
def test_differences_are_the_paired_ones_with_their_intervals(folder: str, model: str, row: dict, differences: dict):
    told = {name: cell for name, cell in differences.items() if name in COLUMNS and cell}
    told |= {"reward": row["over the warm start"]} if row.get("over the warm start") else {}
    for name, cell in told.items():
        found = results(folder)[OVER.get(folder, "over_warm_start")][model][COLUMNS[name]]
        assert figures(cell) == pytest.approx([found["mean"], found["low"], found["high"]], abs=0.000501), name
    for name in ("reward", "decisions"):
        if p := row.get(f"p, {name}"):
            found = results(folder)["over_warm_start"][model][COLUMNS[name]]
            assert float(p) == pytest.approx(found["p"], abs=0.0000501)


def test_most_of_the_rows_kept_tell_their_difference():
    assert sum(bool(case.values[3]) for case in CASES) == 17
