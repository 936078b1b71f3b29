"""A run that looks at held-out prompts keeps the adapter that did best on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.tiny_models import tiny_config
from support.tiny_runs import paid_for

from mlx_grpo import runs
from mlx_grpo.config.schema import Config
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import load_adapter, load_policy
from mlx_grpo.rewards import load_reward
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.state import TrainState, grpo_optimizer
from mlx_grpo.training.trainer import train
from mlx_grpo.training.validation import Best, judgement, validate, validation_prompts


def config_of(model: Path, folder: Path, rows: int = 8, **changes: object) -> Config:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"id": str(i), "prompt": f"say {i}"}) for i in range(rows)))
    return tiny_config(
        model,
        data={"train": str(path), "heldout": str(path)},
        reward=paid_for("share_of_letters"),
        output_dir=str(folder / "runs"),
        eval_steps=2,
        num_generations=16,
        **{"eval": {"episodes": 4, "validation": 3}, "max_steps": 6, **changes},
    )


def noted(found: tuple[dict, list[float]], seen: list[list[float]]) -> tuple[dict, list[float]]:
    """What a look found, its rewards written down."""
    seen.append(found[1])
    return found


@pytest.mark.parametrize(("rate", "learns"), [(3.0, True), (300.0, False)])  # the second ruins it
def test_the_adapter_kept_is_the_last_that_beat_the_best_before_it(
    tiny_qwen3: Path, tmp_path: Path, rate: float, learns: bool, monkeypatch: pytest.MonkeyPatch
):
    config = config_of(tiny_qwen3, tmp_path, learning_rate=rate)
    policy = load_policy(config)
    state = TrainState(policy, config, load_reward(config.reward), grpo_optimizer(config), None)
    heldout = validation_prompts(config, policy)
    before, _ = validate(state, heldout)
    seen: list[list[float]] = []
    monkeypatch.setattr("mlx_grpo.training.trainer.validate", lambda *args: noted(validate(*args), seen))
    run = train(config, SilentReporter()).folder
    looks = [m for m in runs.read_jsonl(run / runs.METRICS) if "eval/reward" in m]
    assert [m["step"] for m in looks] == [-1, 1, 3, 5]  # the first one before any step
    assert looks[0]["eval/reward"] == before["eval/reward"]
    kept = 0
    best = np.array(seen[0])
    for look, rewards in zip(looks, seen, strict=True):  # which steps win depends on the machine's rounding
        gains = np.array(rewards) - best
        if gains.mean() > gains.std(ddof=1) / np.sqrt(gains.size):
            best, kept = np.array(rewards), look["step"] + 1
        assert look["eval/best_step"] == kept
    assert (kept > 0) == learns
    load_adapter(policy, run / runs.ADAPTER)
    after, rewards = validate(state, heldout)
    found = {m["step"] + 1: m["eval/reward"] for m in looks}
    assert after["eval/reward"] == pytest.approx(found[kept])
    assert after["eval/share_of_letters"] == after["eval/reward"] == pytest.approx(np.mean(rewards))


def test_only_a_gain_beyond_one_standard_error_is_better():
    nan = float("nan")
    looks = {
        "the first": ([0.2, 0.4, 0.6], True),
        "the same": ([0.2, 0.4, 0.6], False),
        "up by 0.1 on average, by 0.1 of standard error": ([0.2, 0.4, 0.9], False),
        "up by 0.1 throughout": ([0.3, 0.5, 0.7], True),
        "up where it applies": ([0.4, nan, 0.8], True),
        "nowhere": ([nan, nan, nan], False),
    }
    best = Best()
    for name, (rewards, better) in looks.items():
        assert best.beaten_by(rewards, len(name)) == better, name
    assert best.reward == pytest.approx(0.6)
    assert best.steps == len("up where it applies")


def test_where_no_reward_applied_any_that_does_is_better():
    best = Best()
    assert best.beaten_by([float("nan")] * 3, 0)
    assert best.beaten_by([0.1, 0.0, 0.2], 2)
    assert best.steps == 2


def test_the_prompts_are_none_that_the_evaluation_reads(tiny_qwen3: Path, tmp_path: Path):
    config = config_of(tiny_qwen3, tmp_path)
    assert [p.id for p in validation_prompts(config, load_policy(config))] == ["5", "6", "7"]
    small = config_of(tiny_qwen3, tmp_path, rows=4)
    with pytest.raises(UserError, match="takes all 4 held-out rows"):
        validation_prompts(small, load_policy(small))


def test_a_look_counts_decisions_whatever_their_scores_and_says_which_they_are():
    gold = {
        "score": 0.8,
        "context": "[JOB]\nClerk. Required: SQL.\n[CANDIDATE]\nClerk, 4 years. Skills: SQL (expert, 48m).",
    }
    prompts = [Prompt(str(i), "", (), {**gold, "decision": "shortlist"}) for i in range(4)]
    completions = [
        '{"reasons":["has SQL"],"score":0.1,"decision":"shortlist"}',  # strict pays nothing for it
        '<think>a reject?</think>{"reasons":["has SQL"],"score":0.9,"decision":"reject"}',
        "no JSON",
        '{"decision":"maybe"}',
    ]
    found = judgement(prompts, completions)
    assert found["eval/correct"].tolist() == [1, 0, 0, 0]
    assert found["eval/shortlisted"].tolist() == [1, 0, 0, 0]
    assert found["eval/rejected"].tolist() == [0, 1, 0, 0]
    assert found["eval/published"].argmax() == 0
