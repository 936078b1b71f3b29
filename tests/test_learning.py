"""What docs/learning.md says of the runs that are kept is what their eval.json holds, figure by figure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
COLUMNS = {
    "reward": "reward",
    "decisions": "correct",
    "ROC AUC": "roc_auc",
    "Spearman": "spearman",
    "NDCG@10": "ndcg_at_10",
    "reasons": "reason_quality",
    "valid JSON": "valid",
    "published rubric": "published",
}
# (heading, row): where it is kept. A row named "difference" is that of the row above it over the warm start.
KEPT = {
    ("Examples", "the same on another CPU"): ("long/600", "warm start"),
    ("Examples", "900 steps (3,600 examples"): ("long", "warm start"),
    ("GRPO teaches", "warm start"): ("demo", "warm start"),
    ("GRPO teaches", "trained"): ("demo", "trained"),
    ("GRPO finds some", "warm start"): ("split", "warm start"),
    ("GRPO finds some", "seed 0"): ("split", "trained"),
    ("GRPO finds some", "seed 1"): ("split/seed1", "trained"),
    ("GRPO finds some", "seed 2"): ("split/seed2", "trained"),
    ("GRPO finds some", "paid at random"): ("split/control", "trained"),
    ("GRPO where", "warm start"): ("branch", "warm start"),
    ("GRPO where", "after 8 steps"): ("branch", "trained"),
    ("GRPO where", "after all 11"): ("branch", "trained, step11"),
    ("GRPO over", "warm start, 900 steps"): ("long", "warm start"),
    ("GRPO over", "after 10 steps of GRPO"): ("long", "trained"),
}


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


def table(kept: tuple[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """A kept row's cells by column, and those of the row of differences that follows it, if one does."""
    heading, row = kept
    every = [(columns, cells) for under, columns, cells in rows() if under.startswith(heading)]
    at = next(i for i, (_, cells) in enumerate(every) if cells[0].startswith(row))
    found, after = (dict(zip(columns, cells, strict=False)) for columns, cells in [*every, ([], [""])][at : at + 2])
    return found, after if "difference" in after.values() else {}


@pytest.mark.parametrize("kept", KEPT, ids=" | ".join)
def test_a_row_holds_the_means_of_the_run_kept(kept: tuple[str, str]):
    folder, model = KEPT[kept]
    row, _ = table(kept)
    told = {name: cell for name, cell in row.items() if name in COLUMNS and cell}
    assert len(told) >= 6
    for name, cell in told.items():
        scale = 100 if cell.endswith("%") else 1
        mean = scale * results(folder)["means"][model][COLUMNS[name]]
        assert float(cell.rstrip("%")) == pytest.approx(mean, abs=scale * 0.000501), name


@pytest.mark.parametrize("kept", [kept for kept in KEPT if table(kept)[1]], ids=" | ".join)
def test_a_row_of_differences_holds_the_paired_ones_with_their_intervals(kept: tuple[str, str]):
    folder, model = KEPT[kept]
    _, differences = table(kept)
    told = {name: cell for name, cell in differences.items() if name in COLUMNS and cell}
    assert len(told) >= 4
    for name, cell in told.items():
        found = results(folder)["over_warm_start"][model][COLUMNS[name]]
        figures = [float(number) for number in re.findall(r"[-+][\d.]+", cell)]
        assert figures == pytest.approx([found["mean"], found["low"], found["high"]], abs=0.000501), name
