"""A run that evaluates during training keeps the best adapter on its validation split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.tiny_models import tiny_config
from support.tiny_runs import reward_by

from mlx_grpo import runs
from mlx_grpo.config.schema import Config
from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import load_adapter, load_policy
from mlx_grpo.rewards import load_reward
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.state import TrainState, grpo_optimizer
from mlx_grpo.training.trainer import train
from mlx_grpo.training.validation import Best, validate, validation_prompts


def config_of(model: Path, folder: Path, rows: int = 8, **changes: object) -> Config:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"id": str(i), "prompt": f"say {i}"}) for i in range(rows)))
    return tiny_config(
        model,
        data={"train": str(path), "heldout": str(path)},
        reward=reward_by("share_of_letters"),
        output_dir=str(folder / "runs"),
        eval_steps=2,
        num_generations=16,
        **{"eval": {"episodes": 4, "validation": 3}, "max_steps": 6, **changes},
    )


def recorded(result: tuple[dict, list[float]], seen: list[list[float]]) -> tuple[dict, list[float]]:
    """Add an evaluation's rewards to `seen` and return the evaluation."""
    seen.append(result[1])
    return result


@pytest.mark.parametrize(("rate", "improves"), [(3.0, True), (300.0, False)])  # the second ruins it
def test_kept_adapter_is_the_best_on_the_validation_split(
    tiny_qwen3: Path, tmp_path: Path, rate: float, improves: bool, monkeypatch: pytest.MonkeyPatch
):
    config = config_of(tiny_qwen3, tmp_path, learning_rate=rate)
    policy = load_policy(config)
    state = TrainState(policy, config, load_reward(config.reward), grpo_optimizer(config), None)
    heldout = validation_prompts(config, policy)
    before, _ = validate(state, heldout)
    seen: list[list[float]] = []
    monkeypatch.setattr("mlx_grpo.training.trainer.validate", lambda *args: recorded(validate(*args), seen))
    run = train(config, SilentReporter()).folder
    evaluations = [m for m in runs.read_jsonl(run / runs.METRICS) if "eval/reward" in m]
    assert [m["step"] for m in evaluations] == [-1, 1, 3, 5]  # the first one before any step
    assert evaluations[0]["eval/reward"] == before["eval/reward"]
    kept = 0
    best = np.array(seen[0])
    for evaluation, rewards in zip(evaluations, seen, strict=True):  # which steps win depends on the machine's rounding
        gains = np.array(rewards) - best
        if gains.mean() > gains.std(ddof=1) / np.sqrt(gains.size):
            best, kept = np.array(rewards), evaluation["step"] + 1
        assert evaluation["eval/best_step"] == kept
    assert (kept > 0) == improves
    load_adapter(policy, run / runs.ADAPTER)
    after, rewards = validate(state, heldout)
    by_step = {m["step"] + 1: m["eval/reward"] for m in evaluations}
    assert after["eval/reward"] == pytest.approx(by_step[kept])
    assert after["eval/share_of_letters"] == after["eval/reward"] == pytest.approx(np.mean(rewards))


def test_only_a_gain_beyond_one_standard_error_is_better():
    nan = float("nan")
    cases = {
        "the first": ([0.2, 0.4, 0.6], True),
        "the same": ([0.2, 0.4, 0.6], False),
        "up by 0.1 on average, by 0.1 of standard error": ([0.2, 0.4, 0.9], False),
        "up by 0.1 throughout": ([0.3, 0.5, 0.7], True),
        "up where it applies": ([0.4, nan, 0.8], True),
        "nowhere": ([nan, nan, nan], False),
    }
    best = Best()
    for name, (rewards, better) in cases.items():
        assert best.replace_if_better(rewards, len(name)) == better, name
    assert best.reward == pytest.approx(0.6)
    assert best.steps == len("up where it applies")


@pytest.mark.filterwarnings("error")
def test_any_reward_beats_one_that_applied_nowhere():
    best = Best()
    assert best.replace_if_better([float("nan")] * 3, 0)
    assert np.isnan(best.reward)
    assert best.replace_if_better([0.1, 0.0, 0.2], 2)
    assert best.steps == 2


def test_validation_split_excludes_the_evaluations_prompts(tiny_qwen3: Path, tmp_path: Path):
    config = config_of(tiny_qwen3, tmp_path)
    assert [p.id for p in validation_prompts(config, load_policy(config))] == ["5", "6", "7"]
    small = config_of(tiny_qwen3, tmp_path, rows=4)
    with pytest.raises(UserError, match="takes all 4 held-out rows"):
        validation_prompts(small, load_policy(small))
