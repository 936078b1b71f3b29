"""Rows that share a prompt decode as if each had run it by itself, whichever rows and groups end first."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from support.tiny_models import tiny_policy

from mlx_grpo.generation import decoding
from mlx_grpo.generation.decoding import NO_START, decoding_caches, keep_rows, prefill, shared_start
from mlx_grpo.models.policy import Policy


@pytest.fixture(scope="module", params=["tiny_qwen3", "tiny_llama"])
def policy(request: pytest.FixtureRequest) -> Policy:
    return tiny_policy(request.getfixturevalue(request.param))


def random_ids(*lengths: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    return [tuple(rng.integers(0, 250, n).tolist()) for n in lengths]


def check_decoding(policy: Policy, prompts: list[tuple[int, ...]], leaving: list[list[int]]) -> None:
    """Decode random tokens; at each position some seats leave. Every logit is that of the full sequence."""
    caches = decoding_caches(policy.model, prompts, 2, len(leaving) + 1)
    sequences = [list(ids) for ids in prompts for _ in range(2)]
    rng = np.random.default_rng(1)
    for seats in [*leaving, []]:
        logits = policy.model(mx.array([s[-1] for s in sequences])[:, None], cache=caches)[:, -1]
        for row, sequence in enumerate(sequences):
            alone = policy.model(mx.array([sequence]))[0, -1]
            np.testing.assert_allclose(np.array(logits[row]), np.array(alone), atol=1e-4)
        kept = [seat for seat in range(len(sequences)) if seat not in seats]
        if len(kept) < len(sequences):
            keep_rows(caches, kept)
        sequences = [[*sequences[seat], int(rng.integers(0, 250))] for seat in kept]


@pytest.mark.parametrize(
    ("lengths", "leaving"),
    [
        ((6, 6), [[], [0], [0, 1]]),  # groups of one length: no mask
        ((5, 1, 9), [[], [4], [4], [0]]),  # the longest prompt's group leaves first, a row at a time
        ((5, 1, 9), [[0, 1, 3], [0]]),  # only the longest stays
        ((1, 1), [[1], []]),  # nothing to share
        ((40,), [[], []]),
    ],
)
def test_every_logit_equals_that_of_the_row_by_itself(policy: Policy, lengths: tuple, leaving: list):
    check_decoding(policy, random_ids(*lengths), leaving)


def test_rows_with_copied_prompts_decode_the_same(policy: Policy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "shares_prompt", lambda model: False)
    check_decoding(policy, random_ids(5, 1, 9), [[], [4], [0, 1]])


@pytest.mark.parametrize("shares", [True, False])
def test_prompt_run_in_chunks_decodes_as_one_run_at_once(policy: Policy, shares: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "PREFILL_CHUNK", 4)
    monkeypatch.setattr(decoding, "shares_prompt", lambda model: shares)
    longest = []
    forward = type(policy.model.model).__call__

    def measured(layers: nn.Module, ids: mx.array, *args: object) -> mx.array:
        longest.append(ids.shape[1] if len(args) else 0)
        return forward(layers, ids, *args)

    prompts = random_ids(9, 10, 3)
    monkeypatch.setattr(type(policy.model.model), "__call__", measured)
    caches = decoding_caches(policy.model, prompts, 1, 1)
    assert max(longest) == 4
    monkeypatch.undo()
    logits = policy.model(mx.array([ids[-1] for ids in prompts])[:, None], cache=caches)[:, -1]
    for row, ids in enumerate(prompts):
        np.testing.assert_allclose(np.array(logits[row]), np.array(policy.model(mx.array([ids]))[0, -1]), atol=1e-4)


def test_common_start_of_prompts_is_run_once(policy: Policy, monkeypatch: pytest.MonkeyPatch):
    job, first, second, other = random_ids(50, 8, 5, 20)
    prompts = [other, job + first, job + second, job + first]
    run = []
    extend = decoding.extend
    monkeypatch.setattr(
        decoding, "extend", lambda model, ids, chain=(): run.append(ids.size) or extend(model, ids, chain)
    )
    prefixes = prefill(policy.model, prompts)
    assert sum(run) == 19 + 57 + 4
    for prompt, prefix in zip(prompts, prefixes, strict=True):
        (alone,) = prefill(policy.model, [prompt])
        for known, wanted in zip(prefix, alone, strict=True):
            np.testing.assert_allclose(np.array(known.keys), np.array(wanted.keys), atol=1e-4)
            np.testing.assert_allclose(np.array(known.values), np.array(wanted.values), atol=1e-4)


def test_start_shared_with_earlier_batches_is_not_run_again(policy: Policy, monkeypatch: pytest.MonkeyPatch):
    job, first, second, other = random_ids(50, 8, 5, 20)
    start = shared_start(policy.model, [job + first, job + second])
    assert start.token_ids == job
    run = []
    extend = decoding.extend
    monkeypatch.setattr(
        decoding, "extend", lambda model, ids, chain=(): run.append(ids.size) or extend(model, ids, chain)
    )
    prompts = [job + first, other, job + second]
    prefixes = prefill(policy.model, prompts, start)
    assert sorted(run) == [4, 7, 19]
    for prompt, prefix in zip(prompts, prefixes, strict=True):
        (alone,) = prefill(policy.model, [prompt])
        for known, wanted in zip(prefix, alone, strict=True):
            np.testing.assert_allclose(np.array(known.keys), np.array(wanted.keys), atol=1e-4)
            np.testing.assert_allclose(np.array(known.values), np.array(wanted.values), atol=1e-4)
    assert shared_start(policy.model, [first, second]) == NO_START, "too little to be worth a pass"
