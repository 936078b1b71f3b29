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
from mlx_grpo.generation import rollout as module
from mlx_grpo.generation.nodes import shared_start
from mlx_grpo.generation.rollout import complete, generate
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


def test_greedy_decoding_computes_no_statistics(policy: Policy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "draw", None)
    for greedy in generate(policy, prompts_of(policy, "short"), 2, Sampling(5, temperature=0)):
        assert len(greedy.completion_ids) == 5
        assert (greedy.sampled_logps, greedy.sampled_entropies) == ((), ())


LENGTHS = (9, 1, 14, 3, 2, 11, 5, 1, 8, 6, 4, 12)


def ending_prompts(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Prompt], list[tuple[int, ...]]]:
    """Return prompts, and their greedy completions, which end after `LENGTHS` tokens."""
    prompts = prompts_of(policy, *(f"all of these prompts begin alike, and then {'x' * i} {i}" for i in range(12)))
    alone = [generate(policy, [p], 1, Sampling(n, temperature=0))[0] for p, n in zip(prompts, LENGTHS, strict=True)]
    limits = {p.id: n for p, n in zip(prompts, LENGTHS, strict=True)}
    row = module._Row
    monkeypatch.setattr(module, "_Row", lambda prompt, most: row(prompt, min(most, limits[prompt.id])))
    return prompts, [completed.completion_ids for completed in alone]


@pytest.mark.parametrize("max_rows", [1, 3, 5, 64])
@pytest.mark.parametrize("shares", [True, False])
def test_rows_that_end_make_room_and_completions_come_in_order(
    policy: Policy, max_rows: int, shares: bool, monkeypatch: pytest.MonkeyPatch
):
    prompts, alone = ending_prompts(policy, monkeypatch)
    start = shared_start(policy.model, [prompt.token_ids for prompt in prompts]) if shares else ()
    monkeypatch.setattr("mlx_grpo.generation.decoding.shares_prompt", lambda model: shares)
    done = list(complete(policy, iter(prompts), 20, max_rows, start))
    assert [completed.prompt for completed in done] == prompts
    assert [completed.completion_ids for completed in done] == alone


def test_pool_takes_far_fewer_positions_than_its_batches(policy: Policy, monkeypatch: pytest.MonkeyPatch):
    prompts, _ = ending_prompts(policy, monkeypatch)
    seen = []
    step = module._next_tokens
    monkeypatch.setattr(module, "_next_tokens", lambda _, rows, *rest: seen.append(len(rows)) or step(_, rows, *rest))
    list(complete(policy, prompts, 20, 4))
    assert max(seen) == 4
    assert len(seen) < 30 < 37 == sum(max(LENGTHS[i : i + 4]) for i in (0, 4, 8))


def test_prompts_are_read_as_seats_get_free(policy: Policy, monkeypatch: pytest.MonkeyPatch):
    prompts, _ = ending_prompts(policy, monkeypatch)
    read = []
    completions = complete(policy, (read.append(prompt) or prompt for prompt in prompts), 20, 4)
    assert next(completions).prompt is prompts[0]
    assert len(read) < 12
