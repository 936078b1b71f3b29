"""Rewards that the policy trains on: those of its completions, or for a control the same in random order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.tiny_models import tiny_config
from support.tiny_runs import make_state, reward_by, rewards_over, take_step

from mlx_grpo.data.dataset import make_prompt
from mlx_grpo.rewards import Scores
from mlx_grpo.training.groups import training_rewards


def test_training_rewards_are_the_scores_by_group(tiny_qwen3: Path):
    scores = Scores(np.arange(8.0), {})
    rewards = training_rewards(scores, tiny_config(tiny_qwen3), 0)
    np.testing.assert_array_equal(np.array(rewards), np.arange(8.0).reshape(2, 4))


def test_shuffled_rewards_keep_their_values_and_depend_on_seed_and_step(tiny_qwen3: Path):
    scores = Scores(np.arange(64.0), {})
    config = tiny_config(tiny_qwen3, reward={**reward_by("share_of_letters"), "shuffle": True})
    shuffled = np.array(training_rewards(scores, config, 3))
    assert shuffled.shape == (16, 4)
    assert sorted(shuffled.ravel()) == list(range(64))
    assert any(len(set(group // 4)) > 1 for group in shuffled)  # across groups, not only within them
    np.testing.assert_array_equal(shuffled, np.array(training_rewards(scores, config, 3)))
    assert (shuffled != np.array(training_rewards(scores, config, 4))).any()
    assert (shuffled != np.array(training_rewards(scores, config.model_copy(update={"seed": 1}), 3))).any()


def test_shuffling_changes_the_gradient_but_not_the_logged_reward(tiny_qwen3: Path):
    metrics = {}
    for shuffle in (False, True):
        config = tiny_config(tiny_qwen3, reward={**reward_by("share_of_letters"), "shuffle": shuffle})
        state = make_state(config)
        prompts = [make_prompt({"id": str(i), "prompt": f"say {i}"}, state.policy.tokenizer) for i in range(4)]
        metrics[shuffle] = [take_step(state, prompts, step)[0] for step in range(2)]
    assert metrics[True][0]["reward"] == metrics[False][0]["reward"]
    assert metrics[True][0]["grad_norm"] != pytest.approx(metrics[False][0]["grad_norm"], rel=1e-3)


def test_policy_does_not_learn_from_shuffled_rewards(tiny_qwen3: Path):
    reward = {**reward_by("share_of_letters"), "shuffle": True}
    assert np.mean(rewards_over(tiny_qwen3, 25, "share_of_letters", reward=reward)[-3:]) < 0.3
