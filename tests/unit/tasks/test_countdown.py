"""The countdown task: its rules, its rows, and a whole run of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.tiny_models import tiny_config

from mlx_grpo.cli.main import main
from mlx_grpo.config.schema import RewardConfig
from mlx_grpo.data.dataset import read_rows
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.eval import run_eval
from mlx_grpo.reporting.report import gather
from mlx_grpo.runs import Run
from mlx_grpo.tasks.countdown.task import Countdown, make_rows, reached
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.trainer import train

TASK = Countdown()
SETTINGS = RewardConfig(rubric="countdown")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("(3 + 7) * 5", 50),
        ("7 - 5", 2),  # not all numbers are needed
        ("7 / 5 + 3", 4.4),
        ("3 + 3", None),
        ("3 + 8", None),
        ("7 / (5 - 5)", None),
        ("7 ** 3", None),
        ("7 // 3", None),
        ("-7", None),
        ("3(7)", None),
        ("3 7", None),
        ("(" * 49 + "7" + ")" * 49, 7),
        ("", None),
        ("three", None),
        ("9" * 99, None),
    ],
)
def test_expression_has_a_value_by_the_rules(expression: str, value: float | None):
    found = reached(f"I think <answer>1</answer>, no: <answer>{expression}</answer>", [3, 5, 7])
    assert found == (None if value is None else pytest.approx(value))


def test_endless_expression_has_no_value():
    assert reached("<answer>" + "1+" * 10**6, [1]) is None


def test_reward_is_most_for_the_right_value_and_little_for_an_expression():
    completions = ["<answer>3 * 5</answer>", "<answer>3 + 5</answer>", "15"]
    columns = {"numbers": [[3, 5]] * 3, "target": [15] * 3}
    assert [marks["total"] for marks in TASK.grader(SETTINGS)(completions, **columns)] == pytest.approx([1, 0.1, 0])
    assert [dict(figures) for figures in TASK.judge(completions, **columns)] == [
        {"correct": True, "valid": True},
        {"correct": False, "valid": True},
        {"correct": False, "valid": False},
    ]
    other = TASK.grader(SETTINGS.model_copy(update={"weights": {"format": 2.7}}))(completions, **columns)
    assert [marks["total"] for marks in other] == pytest.approx([1, 0.75, 0])


@pytest.mark.parametrize("change", [{"weights": {"style": 1}}, {"limits": {"most": 1}}])
def test_weights_and_limits_that_it_lacks_are_refused(change: dict):
    with pytest.raises(UserError, match="countdown has the weights format, correct"):
        TASK.grader(SETTINGS.model_copy(update=change))


@pytest.mark.parametrize("row", [{}, {"numbers": [1, 2]}, {"numbers": [1, "2"], "target": 3}, {"target": 3}])
def test_row_without_whole_numbers_cannot_be_graded(row: dict):
    assert "mlx-grpo data countdown" in TASK.problem(SETTINGS, row)


def test_rows_are_solved_by_their_own_completions_and_splits_share_no_numbers():
    splits = dict(make_rows())
    assert dict(make_rows()) == splits
    assert dict(make_rows(1)) != splits
    assert {name: len(rows) > 200 for name, rows in splits.items()} == {"heldout": True, "train": True}
    for rows in splits.values():
        columns = {name: [row[name] for row in rows] for name in ("numbers", "target")}
        figures = TASK.judge([row["completion"] for row in rows], **columns)
        assert all(own["correct"] for own in figures)
        assert not any(TASK.problem(SETTINGS, row) for row in rows)
    assert not {row["set"] for row in splits["train"]} & {row["set"] for row in splits["heldout"]}


def test_run_of_countdown_is_evaluated_with_accuracy_intervals_and_pictures(tiny_qwen3: Path, tmp_path: Path):
    written = CliRunner().invoke(main, ["data", "countdown", "--out", str(tmp_path / "rows")])
    assert written.exit_code == 0, written.output
    assert len(read_rows(tmp_path / "rows" / "train.jsonl")) > 200
    config = tiny_config(
        tiny_qwen3,
        data={"train": str(tmp_path / "rows")},
        reward={"rubric": "countdown"},
        output_dir=str(tmp_path / "runs"),
        eval={"episodes": 24, "max_new_tokens": 4, "validation": 2},
        eval_steps=1,
    )
    run = train(config, SilentReporter())
    assert {"eval/correct", "eval/valid"} <= run.metrics()[-1].keys()
    evaluation = run_eval(
        str(run.folder), backend="mlx", device="auto", episodes=None, max_new_tokens=None, progress=lambda *a: None
    )
    results = evaluation.results
    assert results["resampled_by"] == "set"  # 24 episodes of six sets and more
    assert results["figures"] == ["correct", "valid"]
    assert results["differences"]["trained"]["correct"] == {"mean": 0, "low": 0, "high": 0, "p": 1}
    assert {"figures.png", "baseline_vs_trained.png"} <= {path.name for path in evaluation.written}
    assert not {"calibration.png", "before_after.png"} & {path.name for path in evaluation.written}
    record = gather(Run(run.folder))["episodes"][0]
    assert record["label"] == json.loads((tmp_path / "rows" / "heldout.jsonl").read_text().split("\n")[0])["id"][-2:]
    assert record["answers"][0]["correct"] is False
