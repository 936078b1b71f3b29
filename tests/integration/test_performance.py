"""The tables of docs/performance.md hold the figures of docs/results/speed.json."""

from __future__ import annotations

import json
import re
from typing import Any

from support.documents import table_rows
from support.paths import ROOT

from mlx_grpo.generation.decoding import COPIED_TOKENS

DOCUMENT = ROOT / "docs" / "performance.md"
SPEED = json.loads((ROOT / "docs" / "results" / "speed.json").read_text(encoding="utf-8"))


def rows_with(column: str) -> list[list[str]]:
    """Return the cells of the rows of the tables with a column."""
    return [list(row.values()) for row in table_rows(DOCUMENT) if column in row]


def seconds(figures: dict[str, Any], *names: str) -> list[str]:
    """Return cells of seconds."""
    return [f"{figures[name]:.1f}" for name in names]


def test_table_of_trees_has_the_figures_of_its_file():
    full = SPEED["full"]
    expected = [
        [name, *seconds(r, "groups", "tree"), f"{r['ratio']:.2f}x", f"{r['groups_gb']:.1f}", f"{r['tree_gb']:.1f}"]
        for name, r in full["trees"].items()
    ]
    warm = full["warm_start"]
    assert rows_with("by the tree")[:-1] == expected
    assert rows_with("by the tree")[-1][1:4] == [*seconds(warm, "rows", "tree"), f"{warm['ratio']:.2f}x"]


def test_table_of_steps_has_the_figures_of_its_file():
    expected = [
        [name, *seconds(r, "prefill", "decode", "train", "step", "trl"), f"{r['ratio']:.2f}x"]
        for name, r in SPEED["full"]["steps"].items()
    ]
    assert rows_with("prefill") == expected


def test_table_of_processes_has_the_figures_of_its_file():
    expected = [
        [model, count, *seconds(r, "decode", "train", "step"), f"{r['gb']:.1f}"]
        for model, counts in SPEED["processes"].items()
        for count, r in counts.items()
    ]
    assert rows_with("processes") == expected


def test_table_of_decoding_has_the_figures_of_its_file():
    expected = [
        [f"{r['prefill']:.1f}", f"{r['position']:.2f}", str(r["mb"])]
        for r in SPEED["decoding"].values()
        if isinstance(r, dict)
    ]
    assert [row[1:] for row in rows_with("a position, s")] == expected


def test_table_of_copies_has_the_figures_of_its_file_and_says_what_decoding_does():
    def taken(name: str) -> str:
        tokens = re.fullmatch(r"8 rows after (\d+) tokens", name)  # the others are prompts of one row
        return "shared" if tokens and int(tokens[1]) > COPIED_TOKENS else "copied"

    expected = [
        [name, *(f"{r[way]:.1f}" for way in ("shared", "copied")), f"{r['ratio']:.2f}x", taken(name)]
        for name, r in SPEED["copies"].items()
    ]
    assert rows_with("copied, ms") == expected
    assert f"at most {COPIED_TOKENS} tokens" in DOCUMENT.read_text(encoding="utf-8")
