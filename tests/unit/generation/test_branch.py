"""Groups whose completions share a sampled prefix: it is in the rewarded text, and in no loss."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from support.tiny_models import tiny_config, tiny_policy
from support.tiny_runs import make_state, take_step

from mlx_grpo.data.batch import make_batch
from mlx_grpo.data.dataset import make_prompt
from mlx_grpo.data.types import Prompt
from mlx_grpo.generation.branch import draw_shared_prefixes, shared_prefix_of
from mlx_grpo.generation.rollout import generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.policy import Policy
from mlx_grpo.training.metrics import samples
from mlx_grpo.training.state import TrainState

MARK = '"'
"""What this model writes sooner or later after most prompts."""
WHOLE = Sampling(60)


@pytest.fixture(scope="module")
def policy(tiny_qwen3: Path) -> Policy:
    return tiny_policy(tiny_qwen3)


@pytest.fixture(scope="module")
def prompts(policy: Policy) -> list[Prompt]:
    return [make_prompt({"id": str(i), "prompt": f"say {i}"}, policy.tokenizer) for i in range(6)]


def branched(policy: Policy, prompts: list[Prompt], sampling: Sampling = WHOLE, step: int = 0) -> list[Prompt]:
    return draw_shared_prefixes(policy, prompts, MARK, sampling, seed=0, step=step, first_group=0)


def test_shared_prefix_is_the_fewest_tokens_whose_text_contains_the_mark(policy: Policy):
    ids = tuple(policy.tokenizer.encode('{"reasons":[],"score":0.5,"score":1}'))
    assert policy.tokenizer.decode(shared_prefix_of(policy.tokenizer, ids, '"score":')) == '{"reasons":[],"score":'
    assert shared_prefix_of(policy.tokenizer, ids, '"verdict":') == ()
    assert shared_prefix_of(policy.tokenizer, ids, "}") == ids
    # The text of the stop token does not count.
    assert shared_prefix_of(policy.tokenizer, (*ids, *policy.stop_ids), "im_end") == ()


def test_group_continues_one_shared_prefix_and_its_text_begins_with_it(policy: Policy, prompts: list[Prompt]):
    with_one = [prompt for prompt in branched(policy, prompts) if prompt.shared_prefix_ids]
    assert len(with_one) >= 3, "this model, seed and mark give most prompts a shared prefix"
    for rollout in generate(policy, with_one, 4, WHOLE):
        prefix = policy.tokenizer.decode(rollout.prompt.shared_prefix_ids)
        assert prefix.count(MARK) == 1
        assert prefix.endswith(MARK)
        whole = [*rollout.prompt.shared_prefix_ids, *rollout.completion_ids]
        assert rollout.completion == policy.tokenizer.decode([i for i in whole if i not in policy.stop_ids])
        assert len(rollout.sampled_logps) == len(rollout.completion_ids)


def test_shared_prefix_and_rest_together_keep_the_limit(policy: Policy, prompts: list[Prompt]):
    grown = branched(policy, prompts)
    assert len({len(prompt.shared_prefix_ids) for prompt in grown}) > 2
    for rollout in generate(policy, grown, 4, WHOLE):
        tokens = len(rollout.prompt.shared_prefix_ids) + len(rollout.completion_ids)
        assert tokens == 60 if rollout.finish_reason == "length" else tokens <= 60
    shortest = min(len(prompt.shared_prefix_ids) for prompt in grown if prompt.shared_prefix_ids)
    # With a limit as short as the shortest prefix, no token is left after any.
    assert not any(prompt.shared_prefix_ids for prompt in branched(policy, prompts, Sampling(shortest)))


def test_shared_prefixes_are_sampled_from_the_policy_with_random_streams_of_their_own(
    policy: Policy, prompts: list[Prompt]
):
    for prompt, plain in zip(
        branched(policy, prompts, Sampling(60, temperature=0)),
        generate(policy, prompts, 1, Sampling(60, temperature=0)),
        strict=True,
    ):
        assert prompt.shared_prefix_ids == plain.completion_ids[: len(prompt.shared_prefix_ids)]
        assert bool(prompt.shared_prefix_ids) == (MARK in plain.completion)
    prefixes = [prompt.shared_prefix_ids for prompt in branched(policy, prompts)]
    rows = [rollout.completion_ids for rollout in generate(policy, prompts, 1, WHOLE)]
    assert not any(prefix and row[: len(prefix)] == prefix for prefix, row in zip(prefixes, rows, strict=True))
    assert prefixes == [prompt.shared_prefix_ids for prompt in branched(policy, prompts)]
    assert prefixes != [prompt.shared_prefix_ids for prompt in branched(policy, prompts, step=1)]


def test_trainer_recomputes_the_samplers_logps_after_the_shared_prefix(policy: Policy, prompts: list[Prompt]):
    rollouts = generate(policy, branched(policy, prompts), 3, WHOLE)
    batch = make_batch(rollouts, mx.zeros((6, 3)))
    logps = np.array(score_tokens(policy.model, batch).logps)
    for row, rollout in enumerate(rollouts):
        # The shared prefix belongs to the prompt and not to the loss.
        assert batch.mask[row].sum().item() == len(rollout.completion_ids)
        np.testing.assert_allclose(logps[row, : len(rollout.completion_ids)], rollout.sampled_logps, atol=1e-4)


def state_for(model: Path, **changes: object) -> TrainState:
    reward = {"rubric": None, "functions": ["support.toy_rewards:share_of_letters"]}
    return make_state(tiny_config(model, reward=reward, **changes))


def test_group_without_the_mark_is_sampled_as_without_branch_at(tiny_qwen3: Path, prompts: list[Prompt]):
    plain, unmarked = (
        take_step(state_for(tiny_qwen3, branch_at=mark), prompts, 0)
        for mark in (None, "no model of two layers writes this")
    )
    assert [r.completion_ids for r in plain.rollouts] == [r.completion_ids for r in unmarked.rollouts]
    assert unmarked.metrics["groups/branched"] == 0


def test_whole_text_is_rewarded_and_every_token_of_it_counted(tiny_qwen3: Path, prompts: list[Prompt]):
    state = state_for(tiny_qwen3, branch_at=MARK, max_completion_length=60, prompts_per_step=6)
    metrics, rollouts, scores = take_step(state, prompts, 0)
    prefixes = [rollout.prompt.shared_prefix_ids for rollout in rollouts]
    assert 0 < metrics["groups/branched"] == np.mean([bool(prefix) for prefix in prefixes])
    decode = state.policy.tokenizer.decode
    for rollout, reward in zip(rollouts, scores.rewards, strict=True):
        assert rollout.completion.startswith(decode(rollout.prompt.shared_prefix_ids))
        letters = sum("a" <= c <= "z" for c in rollout.completion)
        assert reward == pytest.approx(letters / max(1, len(rollout.completion)))
    own = [len(rollout.completion_ids) for rollout in rollouts]
    both = [len(prefix) + rest for prefix, rest in zip(prefixes, own, strict=True)]
    assert metrics["completions/mean_length"] == pytest.approx(np.mean(both))
    assert metrics["step_completion_tokens"] == sum(own) + sum(map(len, prefixes[::4]))
    assert metrics["num_tokens"] == sum(both) + sum(len(r.prompt.token_ids) for r in rollouts)
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-4
    recorded = [sample.get("stem_tokens", 0) for sample in samples(0, rollouts, scores)]
    assert recorded == list(map(len, prefixes))


def test_redrawn_groups_have_new_shared_prefixes(tiny_qwen3: Path, prompts: list[Prompt]):
    settings = {"branch_at": MARK, "max_completion_length": 60, "prompts_per_step": 6}
    dull = {"rubric": None, "functions": ["support.toy_rewards:constant"]}
    state = make_state(tiny_config(tiny_qwen3, reward=dull, dynamic_sampling=1, **settings))
    redrawn = take_step(state, prompts, 0)
    assert redrawn.metrics["groups/redrawn"] == 6
    first = take_step(state_for(tiny_qwen3, **settings), prompts, 0)
    prefixes = [
        {(r.prompt.id, r.prompt.shared_prefix_ids) for r in rollouts if r.prompt.shared_prefix_ids}
        for rollouts in (first.rollouts, redrawn.rollouts)
    ]
    assert prefixes[0] and prefixes[1] and not prefixes[0] & prefixes[1]
