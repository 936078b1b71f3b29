"""What the policy is paid: what its completions earned, or for a control the same in random order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.tiny_models import tiny_config
from support.tiny_runs import make_state, paid_for, rewards_over, take_step

from mlx_grpo.data.dataset import make_prompt
from mlx_grpo.rewards import Scores
from mlx_grpo.training.groups import training_rewards


def test_a_policy_is_paid_what_it_earned(tiny_qwen3: Path):
    scores = Scores(np.arange(8.0), {})
    rewards = training_rewards(scores, tiny_config(tiny_qwen3), 0)
    np.testing.assert_array_equal(np.array(rewards), np.arange(8.0).reshape(2, 4))


def test_the_control_is_paid_the_same_rewards_in_an_order_of_the_seed_and_the_step(tiny_qwen3: Path):
    scores = Scores(np.arange(64.0), {})
    config = tiny_config(tiny_qwen3, reward={**paid_for("share_of_letters"), "shuffle": True})
    paid = np.array(training_rewards(scores, config, 3))
    assert paid.shape == (16, 4)
    assert sorted(paid.ravel()) == list(range(64))
    assert any(len(set(group // 4)) > 1 for group in paid)  # across groups, not only within them
    np.testing.assert_array_equal(paid, np.array(training_rewards(scores, config, 3)))
    assert (paid != np.array(training_rewards(scores, config, 4))).any()
    assert (paid != np.array(training_rewards(scores, config.model_copy(update={"seed": 1}), 3))).any()


def test_the_control_logs_what_was_earned_and_learns_from_something_else(tiny_qwen3: Path):
    found = {}
    for shuffle in (False, True):
        config = tiny_config(tiny_qwen3, reward={**paid_for("share_of_letters"), "shuffle": shuffle})
        state = make_state(config)
        prompts = [make_prompt({"id": str(i), "prompt": f"say {i}"}, state.policy.tokenizer) for i in range(4)]
        found[shuffle] = [take_step(state, prompts, step)[0] for step in range(2)]
    assert found[True][0]["reward"] == found[False][0]["reward"]
    assert found[True][0]["grad_norm"] != pytest.approx(found[False][0]["grad_norm"], rel=1e-3)


def test_the_control_does_not_learn_what_the_reward_pays_for(tiny_qwen3: Path):
    reward = {**paid_for("share_of_letters"), "shuffle": True}
    assert np.mean(rewards_over(tiny_qwen3, 25, "share_of_letters", reward=reward)[-3:]) < 0.3
