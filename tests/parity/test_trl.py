"""Loss, gradients and metrics equal TRL 1.16.0's: computed live where trl is installed, and pinned in any case."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_unflatten
from support.trl_cases import (
    FIXTURE,
    cases,
    config_of,
    fingerprint,
    load_state,
    name_of,
    ours,
    shifted,
    trained_parameters,
)

from mlx_grpo.config.schema import Config, RewardConfig
from mlx_grpo.data.dataset import load_prompts
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.generation.rollout import decode_completion
from mlx_grpo.grpo import group_advantages
from mlx_grpo.models.policy import load_tokenizer_of
from mlx_grpo.rewards import Scores, component_weights, load_reward
from mlx_grpo.training.groups import score_rollouts, training_rewards
from mlx_grpo.training.metrics import reward_metrics
from mlx_grpo.training.optimizer import apply_update, make_optimizer
from mlx_grpo.user_functions import TrainerState

CASES = cases()
PINNED = {case["name"]: case for case in json.loads((FIXTURE / "cases.json").read_text())}
METRICS = {
    "entropy": "entropy",
    "kl": "kl",
    "clip_ratio/low_mean": "clip_ratio/low_mean",
    "clip_ratio/high_mean": "clip_ratio/high_mean",
    "cispo_clip_ratio": "clip_ratio/high_mean",
}
"""TRL's metric names and ours."""

needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl, the oracle: [dev] extra")


@pytest.fixture(scope="module")
def oracles() -> Any:
    """TRL's trainer by sampling temperature."""
    from support.trl_oracle import Oracle

    return {temperature: Oracle(FIXTURE, temperature) for temperature in (1.0, 0.7)}


def test_there_are_enough_cases_and_all_are_pinned():
    assert len(CASES) >= 60
    assert {name_of(case) for case in CASES} == set(PINNED)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_loss_and_gradients_equal_those_pinned_from_trl(case: dict[str, Any]):
    pinned = PINNED[name_of(case)]
    loss, gradients, metrics = ours(FIXTURE, case, np.array(pinned["old"]), np.array(pinned["reference"]))
    assert loss == pytest.approx(pinned["loss"], rel=1e-5, abs=1e-6)
    assert gradients.keys() == pinned["gradients"].keys()
    for name, gradient in gradients.items():
        # The largest entry, then two sums over all entries, whose rounding errors add up like a random walk's.
        tolerance = 1e-5 * pinned["gradients"][name][0] * np.array([1, gradient.size**0.5, gradient.size**0.5])
        difference = np.abs(np.subtract(fingerprint(gradient), pinned["gradients"][name]))
        assert np.all(difference <= tolerance), name
    for theirs, name in METRICS.items():
        if theirs in pinned["metrics"]:
            assert metrics[name] == pytest.approx(pinned["metrics"][theirs], rel=1e-4, abs=1e-6), theirs


@needs_trl
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_loss_and_every_gradient_entry_equal_trls(case: dict[str, Any], oracles: Any):
    oracle = oracles[case.get("temperature", 1.0)]
    old, reference = shifted(oracle.logps(case))
    their_loss, their_gradients, _ = oracle.answer(case, old, reference)
    loss, gradients, _ = ours(FIXTURE, case, old, reference)
    assert loss == pytest.approx(their_loss, rel=1e-5, abs=1e-6)
    for name, wanted in their_gradients.items():
        np.testing.assert_allclose(gradients[name], wanted, atol=1e-5 * np.abs(wanted).max(), rtol=0, err_msg=name)


STEP = {"loss_type": "dapo", "beta": 0.1, "epsilon_high": 0.28}
ADAMW = {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "weight_decay": 0.01}


@needs_trl
def test_one_optimizer_step_moves_every_parameter_as_pytorch_does(oracles: Any):
    """Clipping, AdamW and accumulation over 1, 2, 4 and 8 micro-batches.

    Adam's first step is the sign of the gradient, so entries at rounding's level (a gradient under 1e-4 of its
    tensor's largest) can turn; the others must agree to 1e-5 of the tensor's largest entry.
    """
    import torch

    oracle = oracles[1.0]
    old, reference = shifted(oracle.logps(STEP))
    _, their_gradients, _ = oracle.answer(STEP, old, reference)
    start = {name: parameter.detach().clone() for name, parameter in oracle.model.named_parameters()}
    torch.nn.utils.clip_grad_norm_(oracle.model.parameters(), 0.1)
    torch.optim.AdamW(oracle.model.parameters(), lr=1e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01).step()
    theirs = {name: parameter.detach().numpy().copy() for name, parameter in oracle.model.named_parameters()}
    with torch.no_grad():
        for name, parameter in oracle.model.named_parameters():
            parameter.copy_(start[name])
    for rows in (8, 4, 2, 1):
        _, gradients, _ = ours(FIXTURE, STEP, old, reference, rows)
        state = load_state(FIXTURE, config_of(STEP))
        named = tree_unflatten([(name, mx.array(gradient)) for name, gradient in gradients.items()])
        apply_update(state.policy.model, make_optimizer(**ADAMW), named, 1e-3, 0.1)
        for name, parameter in trained_parameters(state.policy.model).items():
            certain = np.abs(their_gradients[name]) > 1e-4 * np.abs(their_gradients[name]).max()
            assert certain.mean() > 0.5, name
            difference = np.abs(parameter - theirs[name])[certain].max()
            assert difference <= 1e-5 * np.abs(theirs[name]).max(), (rows, name)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo"])
def test_gradients_over_1_2_4_and_8_micro_batches_agree(loss_type: str):
    case = next(case for case in CASES if case["loss_type"] == loss_type and "beta" in case)
    pinned = PINNED[name_of(case)]
    old, reference = np.array(pinned["old"]), np.array(pinned["reference"])
    whole = ours(FIXTURE, case, old, reference, 8)[1]
    for rows in (4, 2, 1):
        for name, gradient in ours(FIXTURE, case, old, reference, rows)[1].items():
            np.testing.assert_allclose(gradient, whole[name], atol=1e-5 * np.abs(whole[name]).max(), rtol=0)


REWARDS = np.array([[0, 1], [1, 0.2], [0.4, np.nan], [0.9, 0.3], [0.1, 0.5], [np.nan, np.nan], [0.8, 0.6], [0.2, 0]])


def weighted_functions(**changes: Any) -> Config:
    """A configuration of two weighted reward functions and groups of four."""
    functions = ["support.toy_rewards:gold_column", "support.toy_rewards:second_column"]
    reward = {"rubric": None, "functions": functions, "reward_weights": [1.0, 0.5]}
    return config_of({"loss_type": "dapo", "reward": reward, **changes})


def scored(config: Config, values: np.ndarray) -> tuple[list[Prompt], Scores]:
    """Prompts on which the two functions give these values, [8, 2] with NaN for None, and their scores."""
    given = [[None if np.isnan(v) else float(v) for v in row] for row in values]
    prompts = [Prompt(str(i), "", (1,), {"gold": g, "second": s}) for i, (g, s) in enumerate(given)]
    return prompts, load_reward(config.reward)(prompts, [""] * 8)


@needs_trl
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("values", [REWARDS, np.vstack([np.full((4, 2), 0.5), REWARDS[4:]])])
def test_advantages_and_reward_metrics_of_weighted_functions_equal_trls(scale: str, values: np.ndarray, oracles: Any):
    theirs, their_metrics = oracles[1.0].advantages(values, {"gold_column": 1.0, "second_column": 0.5}, scale)
    config = weighted_functions(scale_rewards=scale)
    prompts, scores = scored(config, values)
    rewards = mx.array(scores.rewards.reshape(2, 4), mx.float32)
    np.testing.assert_allclose(np.array(group_advantages(rewards, scale)).ravel(), theirs, atol=1e-6, rtol=1e-6)
    rollouts = [Rollout(prompt, (5, 2), "", "stop") for prompt in prompts]
    metrics = reward_metrics(rollouts, scores, config)
    names = ["reward", "reward_std", "rewards/gold_column/mean", "rewards/second_column/mean"]
    names += ["rewards/gold_column/std", "rewards/second_column/std"]
    if scale != "batch":  # there TRL tests the deviation of the whole batch, not of each group
        names.append("frac_reward_zero_std")
    for name in names:
        assert metrics[name] == pytest.approx(their_metrics[name], rel=1e-5), name


NORMALIZED = {"multi_objective_aggregation": "normalize_then_sum"}


def our_advantages(scores: Scores, config: Config) -> np.ndarray:
    """The advantages [N] of a step."""
    return np.array(group_advantages(training_rewards(scores, config, 0), config.advantage_scale)).ravel()


@needs_trl
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("factor", [1, 1000])
def test_advantages_of_functions_normalised_one_by_one_equal_trls(scale: str, factor: float, oracles: Any):
    values = REWARDS * [1, factor]
    weights = {"gold_column": 1.0, "second_column": 0.5}
    theirs, _ = oracles[1.0].advantages(values, weights, scale, "normalize_then_sum")
    config = weighted_functions(scale_rewards=scale, **NORMALIZED)
    _, scores = scored(config, values)
    np.testing.assert_allclose(our_advantages(scores, config), theirs, atol=1e-5, rtol=1e-5)


@needs_trl
@pytest.mark.parametrize("weights", [{}, {"reason_quality": 0.9, "length_penalty": 0.0}])
def test_advantages_of_a_rubrics_six_components_equal_trls(weights: dict[str, float], oracles: Any):
    config = config_of({"loss_type": "dapo", "reward": {"weights": weights}, **NORMALIZED})
    shares = component_weights(config.reward)
    values = np.random.default_rng(0).random((8, 6)) * [1, 1, 0.1, 0.5, 0.02, 1]
    theirs, _ = oracles[1.0].advantages(values, shares, "group", "normalize_then_sum")
    scores = Scores(values @ list(shares.values()), dict(zip(shares, values.T, strict=True)))
    np.testing.assert_allclose(our_advantages(scores, config), theirs, atol=1e-5, rtol=1e-5)


CHAT_ROWS: list[dict[str, Any]] = [
    {
        "id": 7,
        "prompt": [{"role": "user", "content": "banana"}],
        "gold": 2,
        "completion": "an answer",
        "other": [{"a": 1}],
    },
    {"id": 8, "prompt": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "say <|im_end|>"}]},
]
PLAIN_ROWS = [{**row, "prompt": row["prompt"][-1]["content"]} for row in CHAT_ROWS]
TEXTS = ["banana", "aa", "", "<think>no</think> a cat", "x" * 20, "say", "abababab", "ein Wörtchen"]


@needs_trl
@pytest.mark.parametrize("rows", [CHAT_ROWS, PLAIN_ROWS], ids=["chat", "plain"])
def test_reward_functions_of_every_kind_earn_as_in_trl(
    rows: list[dict[str, Any]], oracles: Any, tiny_qwen3: Path, tmp_path: Path
):
    from support import trl_functions
    from support.tiny_models import STOP
    from transformers import AutoTokenizer

    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    tokenizer = load_tokenizer_of(tiny_qwen3)
    stop = tokenizer.eos_token_id
    ids = [[*tokenizer.encode(text, add_special_tokens=False), stop][:18] for text in TEXTS]
    config = RewardConfig(rubric=None, functions=[f"support.trl_functions:{name}" for name in trl_functions.NAMES])
    rollouts = [
        Rollout(prompt, tuple(own), decode_completion(tokenizer, own), "stop")
        for prompt, own in zip(np.repeat(load_prompts(file, tokenizer), 4), ids, strict=True)
    ]
    scores = score_rollouts(load_reward(config), rollouts, TrainerState(3, 10))
    functions = {name: vars(trl_functions)[name] for name in trl_functions.NAMES}
    repeated = [row for row in rows for _ in range(4)]
    theirs = oracles[1.0].rewards(functions, repeated, ids, AutoTokenizer.from_pretrained(tiny_qwen3, pad_token=STOP))
    assert len(trl_functions.NAMES) >= 10
    for name, values in zip(trl_functions.NAMES, theirs.T, strict=True):
        np.testing.assert_allclose(scores.components[name], values, rtol=1e-6, err_msg=name)
