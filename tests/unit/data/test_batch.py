"""Tokens, targets and masks are aligned in one place, and these are its facts."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlx_grpo.data.batch import LENGTH_BUCKET, make_batch, make_supervised_batch, take_rows
from mlx_grpo.data.types import Prompt, Rollout

A = Prompt("a", "", (1, 2, 3))
B = Prompt("b", "", (4, 5))


def rollout(prompt: Prompt, ids: list[int], finish: str = "stop") -> Rollout:
    return Rollout(prompt, tuple(ids), "", finish)


def batch_of_two_groups():
    rows = [rollout(A, [7, 8, 9]), rollout(A, [7, 9]), rollout(B, [6, 6, 6, 6], "length"), rollout(B, [9])]
    return rows, mx.array([[1.0, -1.0], [0.5, -0.5]])


def test_the_stop_token_is_a_target_and_padding_is_not():
    batch = make_batch(*batch_of_two_groups())
    assert batch.completion_ids.shape == (4, LENGTH_BUCKET)
    assert np.array(batch.completion_ids)[:, :4].tolist() == [[7, 8, 9, 0], [7, 9, 0, 0], [6, 6, 6, 6], [9, 0, 0, 0]]
    assert np.array(batch.mask).sum(axis=1).tolist() == [3, 2, 4, 1]
    assert np.array(batch.mask)[0, :4].tolist() == [1, 1, 1, 0]


def test_rows_keep_their_prompt_and_advantage_prompt_major():
    batch = make_batch(*batch_of_two_groups())
    assert [ids.tolist() for ids in batch.prompt_ids] == [[1, 2, 3], [4, 5]]
    assert batch.prompt_index == (0, 0, 1, 1)
    assert batch.advantages.tolist() == [1.0, -1.0, 0.5, -0.5]


def test_a_truncated_completion_is_masked_whole_when_asked_and_still_counts_as_a_row():
    batch = make_batch(*batch_of_two_groups(), mask_truncated=True)
    assert np.array(batch.mask).sum(axis=1).tolist() == [3, 2, 0, 1]
    assert batch.completion_ids.shape[0] == 4


def test_some_rows_of_a_batch_keep_their_prompts_and_places():
    batch = make_batch(*batch_of_two_groups())
    half = take_rows(batch, [2, 3])
    assert [ids.tolist() for ids in half.prompt_ids] == [[4, 5]]
    assert half.prompt_index == (0, 0)
    assert half.rows == (2, 3)
    assert half.completion_ids.tolist() == batch.completion_ids[2:].tolist()
    assert take_rows(half, [1]).rows == (3,)


def test_a_supervised_batch_trains_every_completion_token_with_weight_one():
    batch = make_supervised_batch([A, B], [[7, 9], [8]])
    assert np.array(batch.mask).sum() == 3
    assert batch.advantages.tolist() == [1, 1]
