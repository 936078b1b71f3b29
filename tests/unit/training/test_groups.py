"""Rewards that the policy trains on: those of its completions, or for a control the same in random order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.tiny_models import tiny_config
from support.tiny_runs import make_state, reward_by, rewards_over, take_step

from mlx_grpo.data.dataset import make_prompt
from mlx_grpo.rewards import Scores
from mlx_grpo.training.groups import groups_to_train, nonzero_variance, training_rewards


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


TWO = {"rubric": None, "functions": ["support.toy_rewards:share_of_letters", "support.toy_rewards:only_long"]}


def test_group_of_equal_sums_teaches_where_its_components_differ(tiny_qwen3: Path):
    # The first group's components differ and cancel, the second's are equal, the third's differ in one of weight 0.
    ups, downs = [0, 1, 0, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], [1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    components = {"share_of_letters": np.array(ups, float), "only_long": np.array(downs, float)}
    scores = Scores(components["share_of_letters"] + components["only_long"], components)
    by_weights = {}
    for weights in ((1.0, 1.0), (1.0, 0.0), (0.0, 0.0)):
        config = tiny_config(
            tiny_qwen3,
            reward={**TWO, "reward_weights": weights},
            multi_objective_aggregation="normalize_then_sum",
            dynamic_sampling=1,
        )
        by_weights[weights] = nonzero_variance(scores, config).tolist(), groups_to_train(scores, config)
    assert by_weights == {
        (1.0, 1.0): ([True, False, True], [0, 2]),
        (1.0, 0.0): ([True, False, False], [0]),
        (0.0, 0.0): ([False] * 3, [0, 1, 2]),
    }
    assert nonzero_variance(scores, tiny_config(tiny_qwen3, reward=TWO)).tolist() == [False, False, True]


def test_shuffled_components_of_a_completion_stay_together(tiny_qwen3: Path):
    reward = {**TWO, "shuffle": True, "reward_weights": [1.0, -1.0]}
    config = tiny_config(tiny_qwen3, reward=reward, multi_objective_aggregation="normalize_then_sum")
    same = np.random.default_rng(1).random(8)
    scores = Scores(np.zeros(8), {"share_of_letters": same, "only_long": same})
    assert np.all(np.array(training_rewards(scores, config, 3)) == 0)  # each completion's two cancel
    config = config.model_copy(update={"reward": config.reward.model_copy(update={"reward_weights": [1.0, 1.0]})})
    plain = config.model_copy(update={"reward": config.reward.model_copy(update={"shuffle": False})})
    assert not np.array_equal(training_rewards(scores, config, 3), training_rewards(scores, plain, 3))
