"""Tokens, targets and masks are aligned in one place, and these are its facts."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlx_grpo.data.batch import LENGTH_BUCKET, make_batch, make_supervised_batch, split_batch
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


def test_micro_batches_cover_every_row_once_and_keep_to_one_prompt_when_small():
    batch = make_batch(*batch_of_two_groups())
    for rows, expected in ((1, [1, 1, 1, 1]), (2, [2, 2]), (3, [2, 2]), (4, [4]), (100, [4])):
        parts = split_batch(batch, rows)
        assert [part.mask.shape[0] for part in parts] == expected
        assert mx.concatenate([part.completion_ids for part in parts]).tolist() == batch.completion_ids.tolist()
        assert [part.rows for part in parts][-1][1] == 4
    halves = split_batch(batch, 2)
    assert [ids.tolist() for ids in halves[1].prompt_ids] == [[4, 5]]
    assert halves[1].prompt_index == (0, 0)
    assert halves[1].rows == (2, 4)


def test_a_group_larger_than_the_micro_batch_is_cut_within_the_group():
    rows = [rollout(A, [7])] * 3 + [rollout(B, [8])] * 3
    parts = split_batch(make_batch(rows, mx.zeros((2, 3))), 2)
    assert [part.rows for part in parts] == [(0, 2), (2, 3), (3, 5), (5, 6)]
    assert [len(part.prompt_ids) for part in parts] == [1, 1, 1, 1]


def test_a_supervised_batch_trains_every_completion_token_with_weight_one():
    batch = make_supervised_batch([A, B], [[7, 9], [8]])
    assert np.array(batch.mask).sum() == 3
    assert batch.advantages.tolist() == [1, 1]
