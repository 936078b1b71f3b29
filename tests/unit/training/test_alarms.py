"""Early warnings: raised once, at the step that shows it, and not by a prompt or two."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import FIXTURES
from support.tiny_models import tiny_config
from support.tiny_runs import Silent, evaluated_run, paid_for, rows_file

from mlx_grpo.runs import METRICS, read_jsonl
from mlx_grpo.training.alarms import alarms, raised_at
from mlx_grpo.training.trainer import train


def history(steps: int = 40, **columns: list[float | None]) -> list[dict]:
    """A quiet run's metrics; keyword arguments replace columns, `eval` for the held-out decisions (None: no look)."""
    quiet = {"reward": [0.5] * steps, "entropy": [1.0] * steps, "kl": [0.01] * steps}
    rows = [dict(zip(quiet, values, strict=True)) for values in zip(*(quiet | columns).values(), strict=True)]
    return [{"phase": "warm_start", "step": 0, "loss": 3.0}, *({"step": i, **row} for i, row in enumerate(rows))]


def looked(records: list[dict], key: str = "eval/correct", **looks: float) -> list[dict]:
    """The same with held-out decisions at some steps: step3=0.5."""
    for name, decisions in looks.items():
        records[int(name.removeprefix("step")) + 1][key] = decisions
    return records


def test_a_quiet_run_raises_nothing():
    assert alarms(looked(history(), step9=0.6, step19=0.62, step29=0.55)) == []
    assert alarms([]) == []


def test_reward_up_and_decisions_down_is_reward_hacking():
    rising = [0.5] * 10 + [0.6] * 10 + [0.7] * 20
    found = alarms(looked(history(reward=rising), step9=0.7, step19=0.69, step29=0.55, step39=0.4))
    assert len(found) == 1
    step, line = found[0]
    assert step == 29
    assert "reward rose from 0.500 to 0.700" in line
    assert "from 0.70 to 0.55" in line


def test_right_decisions_count_whatever_the_rubric_thinks_of_their_scores():
    records = looked(history(reward=[0.5] * 20 + [0.7] * 20), step9=0.7, step39=0.5)
    assert len(alarms(looked(records, "eval/decision_match", step9=0.1, step39=0.5))) == 1
    older = looked(history(reward=[0.5] * 20 + [0.7] * 20), "eval/decision_match", step9=0.7, step39=0.5)
    assert len(alarms(older)) == 1


def test_one_decision_for_all_is_told_though_it_is_right_for_half():
    records = looked(history(), step9=0.56, step19=0.5, step29=0.5)
    shortlisting = looked(records, "eval/shortlisted", step9=0.9, step19=0.03, step29=0.0)
    found = alarms(looked(shortlisting, "eval/rejected", step9=0.1, step19=0.97, step29=1.0))
    assert [step for step, _ in found] == [19]
    assert "97% of the held-out candidates get the same decision, reject, right for 50%" in found[0][1]


def test_one_decision_that_nearly_all_deserve_is_no_alarm():
    assert alarms(looked(looked(history(), step9=0.95), "eval/rejected", step9=1.0)) == []


def test_demo_metrics_warn_that_everyone_is_rejected():
    steps = read_jsonl(FIXTURES / "demo_metrics.jsonl")
    assert [step for step, line in alarms(steps) if "same decision, reject" in line] == [7]


def test_few_decisions_are_not_one_for_all():
    records = looked(history(), step9=0.03)
    assert alarms(looked(looked(records, "eval/shortlisted", step9=0.0), "eval/rejected", step9=0.06)) == []


def test_a_fall_before_the_first_look_of_the_training_is_seen_too():
    look = {"step": -1, "eval/correct": 0.7, "eval/reward": 0.5}
    records = [look, *looked(history(reward=[0.5] + [0.6] * 39), step9=0.5)]
    [(step, line)] = alarms(records)
    assert step == 9
    assert "from 0.70 to 0.50" in line
    look["eval/correct"] = 0.55
    assert alarms(records) == []


@pytest.mark.parametrize(
    ("reward", "decisions"),
    [
        ([0.5] * 40, 0.3),  # decisions fall, but so would the reward
        ([0.5] * 10 + [0.9] * 30, 0.61),  # three prompts of 32
        ([0.5] * 10 + [0.9] * 30, 0.9),
    ],
)
def test_neither_alone_nor_a_prompt_or_two_is_reward_hacking(reward: list[float], decisions: float):
    assert alarms(looked(history(reward=reward), step9=0.7, step39=decisions)) == []


def test_entropy_under_a_tenth_of_the_first_is_a_collapse():
    falling = [1.0] * 20 + [0.2] * 10 + [0.09] * 10
    assert [step for step, _ in alarms(history(entropy=falling))] == [30]
    assert "from 1.000 to 0.090" in alarms(history(entropy=falling))[0][1]


def test_kl_above_its_bound_or_tenfold_is_a_runaway():
    assert [step for step, _ in alarms(history(kl=[0.3] * 5 + [1.2] * 35))] == [5]
    assert [step for step, _ in alarms(history(kl=[0.01] * 30 + [0.15] * 10))] == [30]
    # Every run begins at 0 and grows tenfold at once.
    assert alarms(history(kl=[0.0, 1e-6, 1e-4, 1e-3, 1e-2] + [0.03] * 35)) == []


def test_each_alarm_is_told_once_by_the_step_that_raised_it():
    records = history(entropy=[1.0] * 20 + [0.01] * 20)
    told = [line for step in range(40) for line in raised_at(step, records[: step + 2])]
    assert len(told) == 1
    assert raised_at(20, records) == told


def test_a_figure_that_is_not_a_number_raises_nothing():
    assert alarms(history(entropy=[1.0] + [None] * 39, kl=[None] * 40, reward=[None] * 20 + [0.5] * 20)) == []


def test_a_run_that_is_driven_too_far_says_so(tiny_qwen3: Path, tmp_path: Path):
    notes: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    config = tiny_config(
        tiny_qwen3,
        data={"train": rows_file(tmp_path)},
        reward=paid_for("share_of_letters"),
        output_dir=str(tmp_path / "runs"),
        num_generations=16,
        max_steps=25,
        learning_rate=5e-2,
        beta=1e-6,
    )
    train(config, Listening())
    warnings = [note for note in notes if note.startswith("warning: ")]
    assert any("kl is" in line for line in warnings)
    assert len(warnings) == len(set(warnings)) <= 2


def test_a_run_looks_at_the_decisions_that_the_warning_compares(tiny_qwen3: Path, tmp_path: Path):
    metrics = read_jsonl(evaluated_run(tiny_qwen3, tmp_path) / METRICS)
    assert [record["step"] for record in metrics if "eval/correct" in record] == [-1, 0, 1]
