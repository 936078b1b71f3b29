"""Alarms are raised once, at the first step that shows them, and not by chance."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.tiny_models import tiny_config
from support.tiny_runs import NoteReporter, evaluated_run, reward_by, rows_file

from mlx_grpo.runs import METRICS, read_jsonl
from mlx_grpo.training.alarms import alarms, first_step, raised_at
from mlx_grpo.training.trainer import train


def history(steps: int = 40, **columns: list[float | None]) -> list[dict]:
    """Return the metrics of a run without alarms; keyword arguments replace columns."""
    quiet = {"reward": [0.5] * steps, "entropy": [1.0] * steps, "kl": [0.01] * steps}
    rows = [dict(zip(quiet, values, strict=True)) for values in zip(*(quiet | columns).values(), strict=True)]
    return [{"phase": "warm_start", "step": 0, "loss": 3.0}, *({"step": i, **row} for i, row in enumerate(rows))]


def with_evaluations(records: list[dict], key: str = "eval/correct", **values: float) -> list[dict]:
    """Set the metrics of evaluations during training at some steps, such as step3=0.5; return the records."""
    for name, value in values.items():
        records[int(name.removeprefix("step")) + 1][key] = value
    return records


def test_quiet_run_raises_no_alarm():
    assert alarms(with_evaluations(history(), step9=0.6, step19=0.62, step29=0.55)) == []
    assert alarms([]) == []


def test_alarm_when_reward_rises_and_correct_decisions_fall():
    rising = [0.5] * 10 + [0.6] * 10 + [0.7] * 20
    found = alarms(with_evaluations(history(reward=rising), step9=0.7, step19=0.69, step29=0.55, step39=0.4))
    assert len(found) == 1
    step, line = found[0]
    assert step == 29
    assert "reward rose from 0.500 to 0.700" in line
    assert "from 0.70 to 0.55" in line


def test_alarm_prefers_eval_correct_to_decision_match():
    records = with_evaluations(history(reward=[0.5] * 20 + [0.7] * 20), step9=0.7, step39=0.5)
    assert len(alarms(with_evaluations(records, "eval/decision_match", step9=0.1, step39=0.5))) == 1
    older = with_evaluations(history(reward=[0.5] * 20 + [0.7] * 20), "eval/decision_match", step9=0.7, step39=0.5)
    assert len(alarms(older)) == 1


def test_tasks_alarms_stand_beside_the_engines_own():
    def of_task(steps: Sequence[dict]) -> Iterator[tuple[int, str]]:
        yield from ((record["step"], "warning: dull") for record in steps if record["entropy"] < 0.05)

    falling = history(entropy=[1.0] * 20 + [0.09] * 5 + [0.01] * 15)
    assert [step for step, _ in alarms(falling)] == [20]
    assert [step for step, _ in alarms(falling, of_task)] == [20, 25]
    assert raised_at(25, falling, of_task) == ["warning: dull"]


def test_alarm_compares_with_the_evaluation_before_the_first_step():
    before = {"step": -1, "eval/correct": 0.7, "eval/reward": 0.5}
    records = [before, *with_evaluations(history(reward=[0.5] + [0.6] * 39), step9=0.5)]
    [(step, line)] = alarms(records)
    assert step == 9
    assert "from 0.70 to 0.50" in line
    before["eval/correct"] = 0.55
    assert alarms(records) == []


@pytest.mark.parametrize(
    ("reward", "decisions"),
    [
        ([0.5] * 40, 0.3),  # decisions fall, but so would the reward
        ([0.5] * 10 + [0.9] * 30, 0.61),  # three prompts of 32
        ([0.5] * 10 + [0.9] * 30, 0.9),
    ],
)
def test_alarm_needs_both_reward_rise_and_accuracy_drop(reward: list[float], decisions: float):
    assert alarms(with_evaluations(history(reward=reward), step9=0.7, step39=decisions)) == []


def test_entropy_below_a_tenth_of_the_first_raises_an_alarm():
    falling = [1.0] * 20 + [0.2] * 10 + [0.09] * 10
    assert [step for step, _ in alarms(history(entropy=falling))] == [30]
    assert "from 1.000 to 0.090" in alarms(history(entropy=falling))[0][1]


def test_kl_above_its_bound_or_tenfold_raises_an_alarm():
    assert [step for step, _ in alarms(history(kl=[0.3] * 5 + [1.2] * 35))] == [5]
    assert [step for step, _ in alarms(history(kl=[0.01] * 30 + [0.15] * 10))] == [30]
    # Every run begins at 0 and grows tenfold at once.
    assert alarms(history(kl=[0.0, 1e-6, 1e-4, 1e-3, 1e-2] + [0.03] * 35)) == []


def test_raised_at_returns_an_alarm_only_at_its_first_step():
    records = history(entropy=[1.0] * 20 + [0.01] * 20)
    lines = [line for step in range(40) for line in raised_at(step, records[: step + 2])]
    assert len(lines) == 1
    assert raised_at(20, records) == lines


def shares(name: str, *values: float) -> list[dict]:
    """Return the metrics of a run of as many steps as there are values of one share."""
    return [record | {name: value} for record, value in zip(history(len(values))[1:], values, strict=True)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("frac_reward_zero_std", ("75% of the groups have equal rewards", "warm_start.steps", "dynamic_sampling")),
        ("completions/clipped_ratio", ("75% of the completions are cut off", "max_completion_length")),
    ],
)
def test_alarm_when_most_of_five_steps_in_a_row_teach_nothing(name: str, words: tuple[str, ...]):
    [(step, line)] = alarms(shares(name, 0.0, 1.0, 1.0, 1.0, 1.0, 0.5, *[0.75] * 9))
    assert step == 10
    assert all(word in line for word in words)
    assert alarms(shares(name, *[1.0, 1.0, 1.0, 1.0, 0.5] * 4)) == []


@pytest.mark.parametrize(
    ("in_thought", "words"),
    [
        (0.75, ("(75% inside their thought, with nothing to grade)", "data.enable_thinking")),
        (0.25, ("are cut off, and", "ask for shorter ones in the prompt")),
    ],
)
def test_alarm_of_cut_completions_names_their_thoughts_if_most_end_there(in_thought: float, words: tuple[str, ...]):
    records = shares("completions/clipped_ratio", *[1.0] * 5)
    [(_, line)] = alarms([record | {"completions/cut_in_thought": in_thought} for record in records])
    assert all(word in line for word in (*words, "max_completion_length"))


def test_alarm_when_groups_get_no_reward_at_all():
    records = [record | {"frac_reward_zero_std": 1.0, "reward": None} for record in history(5)[1:]]
    assert [step for step, _ in alarms(records)] == [4]


def test_alarm_when_the_reward_of_fifty_steps_has_not_risen():
    noise = [0.1, -0.1] * 50
    flat = [0.5 + n for n in noise]
    [(step, line)] = alarms(history(100, reward=flat))
    assert step == 49
    assert "nothing learned in 50 steps: reward 0.504 in the first 25, 0.496 in the last 25" in line
    assert alarms(history(49, reward=flat[:49])) == []


def test_no_alarm_when_the_reward_rises_by_more_than_its_standard_error():
    # 25 values of ±0.1 have the deviation 0.102, so the difference of two means has the error 0.0288.
    noise = [0.1, -0.1] * 25
    for rise, alarm in ((0.03, 1), (0.045, 0)):  # the last 25 begin with -0.1: 0.008 lower
        rewards = [0.5 + n + rise * (i >= 25) for i, n in enumerate(noise)]
        assert len(alarms(history(50, reward=rewards))) == alarm


def test_run_that_learns_late_raises_no_alarm_at_its_plateau():
    assert alarms(history(200, reward=[0.2] * 25 + [0.9] * 175)) == []


def test_alarm_names_a_function_that_gives_all_completions_of_a_step_one_value():
    records = [
        record | {"rewards/brevity/mean": 0.5, "rewards/brevity/std": std, "rewards/right/std": 0.2}
        for record, std in zip(history(4)[1:], [None, 0.1, 0.0, 0.0], strict=True)
    ]
    [(step, line)] = alarms(records, functions=["brevity", "right"])
    assert step == 2
    assert "brevity gave 0.5 to every completion of step 3" in line
    assert '[{"role": "assistant", "content": text}]' in line
    assert alarms(records) == []  # a rubric's component may be constant


FIRST = {
    "reward": 0.125,
    "frac_reward_zero_std": 0.75,
    "completions/clipped_ratio": 0.5,
    "completions/cut_in_thought": 0.0,
}


def test_first_step_reports_valid_share_reward_spread_and_cut_completions():
    assert first_step(FIRST, 0.0312, 0.25, 160) == [
        "first rollouts: 25% valid, reward 0.125, spread within groups 0.031 (0 in 75% of them), "
        "50% cut off at 160 tokens"
    ]
    [line] = first_step(FIRST | {"completions/cut_in_thought": 0.25}, 0.0312, None, 160)
    assert "valid" not in line
    assert line.endswith("50% cut off at 160 tokens, 25% inside their thought")


def test_first_step_without_spread_in_any_group_warns_with_what_helps():
    _, warning = first_step(FIRST | {"frac_reward_zero_std": 1.0}, 0.0, 0.0, 160)
    for remedy in ("warm_start.steps", "softer reward", "num_generations", "dynamic_sampling"):
        assert remedy in warning


def test_null_metrics_raise_no_alarm():
    assert alarms(history(entropy=[1.0] + [None] * 39, kl=[None] * 40, reward=[None] * 20 + [0.5] * 20)) == []


def test_run_reports_its_first_rollouts_before_the_first_update_and_not_when_resumed(tiny_qwen3: Path, tmp_path: Path):
    config = tiny_config(
        tiny_qwen3,
        data={"train": rows_file(tmp_path)},
        reward=reward_by("constant"),
        output_dir=str(tmp_path / "runs"),
    )
    fresh, resumed = NoteReporter(), NoteReporter()
    run = train(config, fresh, until=1)
    train(config, resumed, run)
    starts = [line[:24] for line in fresh.lines if line.startswith(("first rollouts", "warning", "step"))]
    assert starts == ["first rollouts: reward 0", "warning: no group of the", "step 0", "warning: constant gave 0"]
    assert "spread within groups 0.000 (0 in 100% of them)" in str(fresh.lines)
    assert "step 1" in resumed.lines
    assert not any(line.startswith("first rollouts") or "no group" in line for line in resumed.lines)


def test_diverging_run_prints_each_warning_once(tiny_qwen3: Path, tmp_path: Path):
    reporter = NoteReporter()
    config = tiny_config(
        tiny_qwen3,
        data={"train": rows_file(tmp_path)},
        reward=reward_by("share_of_letters"),
        output_dir=str(tmp_path / "runs"),
        num_generations=16,
        max_steps=25,
        learning_rate=5e-2,
        beta=1e-6,
    )
    train(config, reporter)
    warnings = [re.sub(r"[\d.]+", "#", note) for note in reporter.lines if note.startswith("warning: ")]
    assert any("kl is" in line for line in warnings)
    assert len(warnings) == len(set(warnings))


def test_run_records_correct_decisions_and_reports_the_share_of_valid_completions(tiny_qwen3: Path, tmp_path: Path):
    reporter = NoteReporter()
    metrics = read_jsonl(evaluated_run(tiny_qwen3, tmp_path, reporter) / METRICS)
    assert [record["step"] for record in metrics if "eval/correct" in record] == [-1, 0, 1]
    assert any(line.startswith("first rollouts: 0% valid, reward 0.0") for line in reporter.lines)
