"""One pass over a shared prompt gives the log-probabilities and gradients of the plain path."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support.logps_cases import assert_same, count_tokens, gradients, logps, make_rows
from support.tiny_models import tiny_policy

from mlx_grpo.data.batch import make_batch, make_supervised_batch, take_rows
from mlx_grpo.data.types import Batch, Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.models import attention
from mlx_grpo.models import logps as logps_module
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.prefix import Chain
from mlx_grpo.models.tree import token_tree
from mlx_grpo.training.accumulate import accumulate


def test_logps_are_those_of_the_full_forward_pass_at_the_temperature(tiny_qwen3: Path):
    policy, batch = tiny_policy(tiny_qwen3), make_rows([5], [3, 6])
    scores = score_tokens(policy.model, batch, 0.7)
    prompt = batch.prompt_ids[0].tolist()
    for row, length in enumerate((3, 6)):
        completion = batch.completion_ids[row, :length].tolist()
        logits = policy.model(mx.array([prompt + completion]))[0].astype(mx.float32) / 0.7
        full = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        expected = [full[len(prompt) - 1 + t, token] for t, token in enumerate(completion)]
        np.testing.assert_allclose(np.array(scores.logps)[row, :length], expected, atol=1e-5)
        entropy = -(np.exp(full) * full).sum(axis=-1)[len(prompt) - 1 : len(prompt) + length - 1]
        np.testing.assert_allclose(np.array(scores.entropies)[row, :length], entropy, atol=1e-5)
        assert not np.array(scores.logps)[row, length:].any()


@pytest.mark.parametrize("lengths", [([9, 4], [3, 7, 1]), ([1], [4, 2]), ([2], [5]), ([1, 6], [2, 2])])
@pytest.mark.parametrize("model", ["tiny_qwen3", "tiny_llama"])
def test_shared_pass_equals_the_plain_one(model: str, lengths: tuple, request: pytest.FixtureRequest):
    policy, batch = tiny_policy(request.getfixturevalue(model)), make_rows(*lengths)
    shared, plain = (logps(policy, batch, share=way) for way in (True, False))
    np.testing.assert_allclose(shared, plain, atol=1e-5)
    assert_same(gradients(policy, batch, share=True), gradients(policy, batch, share=False))


def test_group_runs_only_to_its_own_longest_row(tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch):
    policy, rng = tiny_policy(tiny_qwen3), np.random.default_rng(0)
    ids = [tuple(rng.integers(0, 250, n).tolist()) for n in (9, 3, 16, 5, 60, 33, 6, 50, 50)]
    short, long, cut = (Prompt(str(n), "", prompt) for n, prompt in enumerate(ids[::3]))
    ends = ["stop", "stop", "stop", "stop", "length", "length"]
    rows = [(short, ids[1]), (short, ids[2]), (long, ids[4]), (long, ids[5]), (cut, ids[7]), (cut, ids[8])]
    rollouts = [Rollout(prompt, row, "", end) for (prompt, row), end in zip(rows, ends, strict=True)]
    batch = make_batch(rollouts, mx.array(rng.normal(size=(3, 2))), mask_truncated=True)
    expected = gradients(policy, batch, share=False)
    passes = count_tokens(policy.model, monkeypatch)
    scores = logps(policy, batch)
    assert sum(passes) == 8 + 2 * 16 + 4 + 2 * 64 + 5 + 2 * 16  # prompts but their last token, rows in buckets of 16
    plain = logps(policy, batch, share=False)
    np.testing.assert_allclose(scores, plain, rtol=1e-5, atol=1e-5)
    assert_same(gradients(policy, batch), expected)


@pytest.mark.parametrize("lengths", [[3, 3, 3], [1, 6, 9], [4]])
@pytest.mark.parametrize("changes", [{}, {"fine_tune_type": "full", "lora": {}}])
def test_common_start_of_prompts_is_run_once_in_a_supervised_batch(
    tiny_qwen3: Path, lengths: list[int], changes: dict, monkeypatch: pytest.MonkeyPatch
):
    policy, rng = tiny_policy(tiny_qwen3, **changes), np.random.default_rng(0)
    start = tuple(rng.integers(0, 250, 40).tolist())
    prompts = [Prompt(str(n), "", (*start, *rng.integers(0, 250, n).tolist())) for n in lengths]
    batch = make_supervised_batch(prompts, [rng.integers(0, 250, 7 - i).tolist() for i in range(len(lengths))])
    expected = gradients(policy, batch, share=False)
    passes = count_tokens(policy.model, monkeypatch)
    assert_same(gradients(policy, batch), expected)
    if len(lengths) > 1:
        assert passes[0] == 40  # once for all rows
    np.testing.assert_allclose(logps(policy, batch), logps(policy, batch, share=False), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prompt", [16, 17, 33, 49])
def test_fully_masked_row_has_zero_logps(tiny_qwen3: Path, prompt: int):
    policy = tiny_policy(tiny_qwen3)
    cut = Rollout(Prompt("a", "", tuple(range(prompt))), (5, 6, 7), "", "length")
    batch = make_batch([cut], mx.zeros((1, 1)), mask_truncated=True)
    assert not logps(policy, batch).any()


@pytest.mark.parametrize("model", ["tiny_qwen3", "tiny_llama"])
def test_full_fine_tune_gets_the_same_gradient_on_both_paths(model: str, request: pytest.FixtureRequest):
    policy = tiny_policy(request.getfixturevalue(model), fine_tune_type="full", lora={})
    batch = make_rows([6, 3], [4, 2])
    actual = gradients(policy, batch, share=True)
    assert "model.embed_tokens.weight" in actual
    assert_same(actual, gradients(policy, batch, share=False))


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("changes", [{}, {"fine_tune_type": "full", "lora": {}}])
def test_checkpointing_changes_no_gradient(tiny_qwen3: Path, share: bool, changes: dict):
    policy, batch = tiny_policy(tiny_qwen3, **changes), make_rows([6, 3], [4, 2])
    kept = gradients(policy, batch, share=share)
    assert_same(gradients(policy, batch, share=share, checkpointing=True), kept)
    assert_same(gradients(policy, batch, share=share), kept)


@pytest.mark.parametrize("rows", [1, 2])
def test_recomputed_layer_repeats_its_dropout(tiny_qwen3: Path, rows: int):
    policy = tiny_policy(tiny_qwen3, lora={"rank": 4, "dropout": 0.5})
    batch = make_rows([6, 3], [4, 2])

    def run(seed: int, checkpointing: bool) -> dict[str, np.ndarray]:
        mx.random.seed(seed)
        return gradients(policy, batch, rows=rows, checkpointing=checkpointing)

    kept = run(5, False)
    assert_same(run(5, True), kept)
    name = next(iter(kept))
    assert np.abs(run(6, False)[name] - kept[name]).max() > 0.1 * np.abs(kept[name]).max()


@pytest.mark.parametrize("changes", [{}, {"fine_tune_type": "full", "lora": {}}])
def test_head_in_chunks_gives_the_gradient_of_the_whole_head(
    tiny_qwen3: Path, changes: dict, monkeypatch: pytest.MonkeyPatch
):
    policy, batch = tiny_policy(tiny_qwen3, **changes), make_rows([6, 3], [4, 2])
    whole = gradients(policy, batch)
    monkeypatch.setattr(logps_module, "HEAD_CHUNK", 5)
    assert_same(gradients(policy, batch), whole)


def test_trained_and_frozen_heads_pass_the_same_gradient_down(tiny_llama: Path):
    batch = make_rows([6, 3], [4, 2])
    frozen, trained = tiny_policy(tiny_llama), tiny_policy(tiny_llama)
    trained.model.lm_head.unfreeze()
    expected = gradients(frozen, batch)
    actual = gradients(trained, batch)
    assert actual.pop("lm_head.weight").any()
    assert_same(actual, expected)


def test_attention_in_blocks_of_queries_equals_attention_at_once(tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch):
    policy, batch = tiny_policy(tiny_qwen3), make_rows([11, 8], [9, 5])
    expected = gradients(policy, batch, share=False)
    monkeypatch.setattr(attention, "CAUSAL_BLOCK", 3)
    assert_same(gradients(policy, batch, share=True), expected)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("changes", [{}, {"fine_tune_type": "full", "lora": {}}])
def test_micro_batches_share_the_prompts_pass_and_sum_to_the_batch(
    tiny_qwen3: Path, rows: int, checkpointing: bool, changes: dict, monkeypatch: pytest.MonkeyPatch
):
    policy, batch = tiny_policy(tiny_qwen3, **changes), make_rows([7, 5], [4, 2, 6, 1])

    def loss(part: Batch, chain: Chain = ()) -> tuple[mx.array, ...]:
        scores = score_tokens(policy.model, part, 0.7, chain)
        return -(scores.logps * part.advantages[:, None]).sum(), scores.logps

    (expected_values,), expected = accumulate(policy.model, loss, token_tree(batch, share=False))
    passes = count_tokens(policy.model, monkeypatch)
    tree = token_tree(batch, rows)
    values, actual = accumulate(policy.model, loss, tree, checkpointing=checkpointing)
    assert sum(passes) == 6 + 4 + batch.completion_ids.size  # each prompt but its last token once, each completion once
    whole = Ranks().assemble(tree.every_part(), [logps for _, logps in values], batch.mask.shape)
    np.testing.assert_allclose(np.array(whole), np.array(expected_values[1]), rtol=1e-5)
    assert_same(dict(tree_flatten(actual)), {name: np.array(g) for name, g in tree_flatten(expected)})


@pytest.mark.parametrize(
    ("changes", "checkpointing"),
    [
        ({"lora": {"rank": 4, "dropout": 0.5}}, False),
        ({"lora": {"rank": 4, "dropout": 0.5}}, True),
        ({"fine_tune_type": "full", "lora": {}}, False),
    ],
)
def test_micro_batches_evaluated_one_by_one_give_the_gradient_of_one_evaluation(
    tiny_qwen3: Path, changes: dict, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
):
    policy, batch = tiny_policy(tiny_qwen3, **changes), make_rows([7, 5], [4, 2, 6, 1])

    def loss(part: Batch, chain: Chain = ()) -> tuple[mx.array, ...]:
        scores = score_tokens(policy.model, part, 0.7, chain)
        return -(scores.logps * part.advantages[:, None]).sum(), scores.logps

    def run(evaluate_each: bool) -> tuple[list, dict]:
        mx.random.seed(5)
        return accumulate(
            policy.model, loss, token_tree(batch, 2), checkpointing=checkpointing, evaluate_each=evaluate_each
        )

    expected_values, expected = run(False)
    passes = count_tokens(policy.model, monkeypatch)
    values, actual = run(True)
    assert sum(passes) == 2 * (6 + 4) + batch.completion_ids.size  # each prompt forward once, and again to go back
    np.testing.assert_allclose(*(np.concatenate([v[1] for v in vs]) for vs in (values, expected_values)), rtol=1e-5)
    assert_same(dict(tree_flatten(actual)), {name: np.array(g) for name, g in tree_flatten(expected)})


@pytest.mark.parametrize("evaluate_each", [False, True])
def test_micro_batch_without_gradient_adds_only_its_values(tiny_qwen3: Path, evaluate_each: bool):
    policy, batch = tiny_policy(tiny_qwen3), make_rows([7], [4, 2])

    def loss(part: Batch, chain: Chain = ()) -> tuple[mx.array, ...]:
        return (-score_tokens(policy.model, part, chain=chain).logps.sum(),)

    parts = token_tree(batch, 1)
    values, actual = accumulate(
        policy.model, loss, parts, has_gradient=lambda part: part.rows == (1,), evaluate_each=evaluate_each
    )
    alone = accumulate(policy.model, loss, token_tree(take_rows(batch, [1])))[1]
    assert len(values) == 2
    assert_same(dict(tree_flatten(actual)), {name: np.array(g) for name, g in tree_flatten(alone)})
    assert (
        accumulate(policy.model, loss, parts, has_gradient=lambda part: False, evaluate_each=evaluate_each)[1] is None
    )
