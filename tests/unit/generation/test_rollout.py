"""Rollouts hold what was sampled: the stop token included, with the log-probability it was drawn with."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from support.tiny_models import tiny_policy

from mlx_grpo.data.batch import make_batch
from mlx_grpo.data.dataset import make_prompt
from mlx_grpo.data.types import Prompt
from mlx_grpo.generation.rollout import generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.policy import Policy


@pytest.fixture(scope="module")
def policy(tiny_qwen3: Path) -> Policy:
    return tiny_policy(tiny_qwen3)


def prompts_of(policy: Policy, *texts: str) -> list[Prompt]:
    return [make_prompt({"id": text, "prompt": text}, policy.tokenizer) for text in texts]


def test_rollouts_come_prompt_major_and_the_stop_token_is_kept(policy: Policy):
    prompts = prompts_of(policy, "short", "a rather longer prompt", "x")
    rollouts = generate(policy, prompts, 20, Sampling(60, temperature=1.5), seed=1)
    assert [r.prompt.id for r in rollouts] == [p.id for p in prompts for _ in range(20)]
    finished = [r for r in rollouts if r.finish_reason == "stop"]
    assert finished, "this model, temperature and seed end some completions"
    assert all(r.completion_ids[-1] in policy.stop_ids for r in finished)
    assert all(not set(r.completion_ids[:-1]) & set(policy.stop_ids) for r in rollouts)
    assert all("<|im_end|>" not in r.completion for r in rollouts)
    assert all(len(r.completion_ids) == 60 for r in rollouts if r.finish_reason == "length")


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_trainer_recomputes_the_samplers_log_probabilities_and_entropies(policy: Policy, temperature: float):
    sampling = Sampling(40, temperature=temperature, top_p=0.9)
    rollouts = generate(policy, prompts_of(policy, "short", "a rather longer prompt"), 6, sampling)
    batch = make_batch(rollouts, mx.zeros((2, 6)))
    logps, entropies = map(np.array, score_tokens(policy.model, batch, temperature))
    assert entropies.max() > 0.1
    for row, rollout in enumerate(rollouts):
        length = len(rollout.completion_ids)
        np.testing.assert_allclose(logps[row, :length], rollout.sampled_logps, atol=1e-4)
        np.testing.assert_allclose(entropies[row, :length], rollout.sampled_entropies, atol=1e-4)
    np.testing.assert_allclose(np.array(batch.sampled_entropies), entropies, atol=1e-4)


def test_greedy_completions_take_the_most_likely_token_each_time(policy: Policy):
    prompt = prompts_of(policy, "hello")[0]
    completion = generate(policy, [prompt], 1, Sampling(10, temperature=0))[0].completion_ids
    tokens = list(prompt.token_ids)
    for token in completion:
        assert mx.argmax(policy.model(mx.array([tokens]))[0, -1]).item() == token
        tokens.append(token)


def test_a_prompt_completes_the_same_alone_and_in_a_batch(policy: Policy):
    together = generate(policy, prompts_of(policy, "short", "a rather longer prompt"), 1, Sampling(20, temperature=0))
    alone = generate(policy, prompts_of(policy, "short"), 1, Sampling(20, temperature=0))
    assert together[0].completion_ids == alone[0].completion_ids


def test_the_same_seed_and_step_sample_the_same_and_others_do_not(policy: Policy):
    prompts = prompts_of(policy, "short", "other")

    def sampled(seed: int, step: int) -> list[tuple[int, ...]]:
        return [r.completion_ids for r in generate(policy, prompts, 4, Sampling(12), seed=seed, step=step)]

    assert sampled(0, 3) == sampled(0, 3)
    assert sampled(0, 3) != sampled(0, 4)
    assert sampled(0, 3) != sampled(1, 3)
    assert len(set(sampled(0, 3))) == 8


def test_more_rows_than_mlx_lm_decodes_by_default_all_finish(policy: Policy):
    rollouts = generate(policy, prompts_of(policy, *"abcde"), 8, Sampling(3))
    assert len(rollouts) == 40
    assert all(r.completion_ids for r in rollouts)
