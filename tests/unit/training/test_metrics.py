"""The metrics of a step by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlx_grpo.config.files import validate
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.rewards import Scores
from mlx_grpo.training.metrics import reward_metrics, spread_within_groups

NAN = math.nan


def metrics_of(*rewards: float, num_generations: int = 2, **components: list[float]) -> dict[str, float]:
    rollouts = [Rollout(Prompt("0", "", (1,)), (5, 2), "", "stop") for _ in rewards]
    scores = Scores(np.array(rewards, float), {name: np.array(values) for name, values in components.items()})
    config = validate({"model": "m", "num_generations": num_generations})
    return reward_metrics(rollouts, scores, config)


def test_reward_std_divides_by_one_less_than_the_number_of_rewards():
    # Of 1, 2, 3, 6 the mean is 3 and the squared distances sum to 14.
    assert metrics_of(1, 2, 3, 6)["reward_std"] == pytest.approx(math.sqrt(14 / 3))
    assert metrics_of(1, 2, 3, 6, NAN, NAN)["reward_std"] == pytest.approx(math.sqrt(14 / 3))
    assert math.isnan(metrics_of(1, NAN)["reward_std"])


def test_component_std_is_0_for_equal_values_and_counts_those_that_apply():
    metrics = metrics_of(1, 2, 3, right=[0.1, 0.1, 0.1], near=[0.0, NAN, 1.0], num_generations=3)
    assert metrics["rewards/right/std"] == 0  # the mean of three 0.1 is not 0.1
    assert metrics["rewards/near/std"] == pytest.approx(math.sqrt(0.5))


def test_spread_within_groups_is_the_mean_deviation_of_a_group():
    # Deviations: sqrt(2) of 1 and 3, 0 of 5 and 5, none of a group with a single reward.
    scores = Scores(np.array([1, 3, 5, 5, 2, NAN]), {})
    assert spread_within_groups(scores, 2) == pytest.approx(math.sqrt(2) / 2)
