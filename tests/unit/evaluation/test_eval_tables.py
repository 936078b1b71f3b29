"""What `mlx-grpo eval` prints, and how PyTorch's figures and GRPO's gain are put into words."""

from __future__ import annotations

import pytest
from rich.console import Console

from mlx_grpo.cli.eval import print_brief, print_comparison
from mlx_grpo.evaluation.eval import Evaluation
from mlx_grpo.reporting import tables
from mlx_grpo.reporting.example import typical


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("several", [False, True])
def test_tables_fit_the_terminal_and_name_every_model(evaluations: dict[bool, Evaluation], width: int, several: bool):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_comparison(console, evaluations[several].results)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(" ".join(lines).split())
    for name in ("baseline", "warm start", "reason_quality", "total", "ROC AUC", "Spearman", "NDCG@10", "What GRPO"):
        assert name in words
    assert ("trained, 2 seeds" in words) == several
    rows = [line for line in lines if line.startswith("baseline ")]
    assert all("…" not in row and "0." in row for row in rows)


@pytest.mark.parametrize("width", [80, 120])
def test_brief_result_is_a_table_of_fifteen_lines_and_two_completions(evaluations: dict[bool, Evaluation], width: int):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    evaluation = evaluations[False]
    print_brief(console, evaluation.results, evaluation.episodes)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    table, _, rest = text.partition("GRPO over the warm start")
    assert len(table.splitlines()) <= 17  # with two lines on what was evaluated
    for name in ("reward (strict)", "reward (published)", "accuracy", "ROC AUC", "valid", "coverage", "confirmed"):
        assert name in table
    assert evaluation.episodes["trained"][typical(evaluation.episodes)]["prompt_id"] in " ".join(rest.split())
    assert "\nbefore, reward 0" in rest and "\nafter, reward 0" in rest


@pytest.mark.parametrize(
    ("reward", "accuracy", "no_change"),
    [((-0.02, 0.05), (-0.1, 0.0), True), ((0.01, 0.05), (-0.1, 0.1), False), ((-0.02, 0.05), (-0.1, -0.01), False)],
)
def test_grpo_without_an_effect_is_called_that(
    reward: tuple[float, float], accuracy: tuple[float, float], no_change: bool
):
    gains = {
        key: {"mean": sum(ends) / 2, "low": ends[0], "high": ends[1], "p": 0.5}
        for key, ends in (("reward", reward), ("correct", accuracy))
    }
    assert tables.grpo_gain({"grpo_over_warm_start": gains}).endswith("; within chance") == no_change
