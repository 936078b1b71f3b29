"""Rollouts to arrays: the only place where tokens, targets and masks are aligned.

A prompt "a b c" with the completion "d e <stop>" gives, before padding,

    prompt_ids      a b c
    completion_ids  d e <stop>
    mask            1 1 1

Position t of `completion_ids` is the target of the hidden state one token earlier: of c for t = 0, of d for
t = 1. A completion cut at the length limit has no stop token; `mask_truncated` gives it mask 0 throughout,
and it still counts as a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import mlx.core as mx
import numpy as np

from mlx_grpo.data.types import Batch, Prompt, Rollout

T = TypeVar("T")
LENGTH_BUCKET = 16
"""T is rounded up to a multiple of this, so that the buffer cache sees few shapes."""


def make_batch(rollouts: Sequence[Rollout], advantages: mx.array, mask_truncated: bool = False) -> Batch:
    """Make one Batch of N rollouts, prompt-major, and their advantages [P, G] or [N]."""
    completions = [rollout.completion_ids for rollout in rollouts]
    hidden = [mask_truncated and rollout.finish_reason == "length" for rollout in rollouts]
    sampled = [rollout.sampled_logps for rollout in rollouts]
    entropies = [rollout.sampled_entropies for rollout in rollouts]
    prompts = [rollout.prompt for rollout in rollouts]
    return _assemble(prompts, completions, advantages.flatten(), hidden, sampled, entropies)


def make_supervised_batch(prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> Batch:
    """Make a Batch of prompts with given completions, stop tokens included.

    Every advantage is 1, so that the loss is the cross-entropy.
    """
    nothing = [()] * len(prompts)
    return _assemble(prompts, completions, mx.ones(len(prompts)), [False] * len(prompts), nothing, nothing)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield consecutive items in lists of `size`, the last one shorter where they do not come out even."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def take_rows(batch: Batch, rows: Sequence[int]) -> Batch:
    """Return some rows of a batch, with the prompts that they continue; rows of one prompt must be neighbours."""
    index = [batch.prompt_index[row] for row in rows]
    kept = list(dict.fromkeys(index))
    places = mx.array(list(rows))
    return Batch(
        prompt_ids=tuple(batch.prompt_ids[i] for i in kept),
        prompt_index=tuple(kept.index(i) for i in index),
        completion_ids=batch.completion_ids[places],
        mask=batch.mask[places],
        advantages=batch.advantages[places],
        sampled_logps=batch.sampled_logps[places],
        sampled_entropies=batch.sampled_entropies[places],
        rows=tuple(batch.rows[row] for row in rows),
    )


def _assemble(
    prompts: Sequence[Prompt],
    completions: Sequence[Sequence[int]],
    advantages: mx.array,
    hidden: Sequence[bool],
    sampled: Sequence[Sequence[float]],
    uncertain: Sequence[Sequence[float]],
) -> Batch:
    longest = max(1, *(len(ids) for ids in completions))
    width = -(-longest // LENGTH_BUCKET) * LENGTH_BUCKET
    ids = np.zeros((len(prompts), width), np.int32)  # [B, T]
    mask = np.zeros((len(prompts), width), np.float32)  # [B, T]
    logps = np.zeros((len(prompts), width), np.float32)  # [B, T]
    entropies = np.zeros((len(prompts), width), np.float32)  # [B, T]
    prompt_ids: list[mx.array] = []
    prompt_index = []
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids[row, : len(completion)] = completion
        mask[row, : len(completion)] = not hidden[row]
        logps[row, : len(sampled[row])] = sampled[row]
        entropies[row, : len(uncertain[row])] = uncertain[row]
        if row == 0 or prompts[row - 1] is not prompt:
            prompt_ids.append(mx.array(prompt.given_ids, mx.int32))
        prompt_index.append(len(prompt_ids) - 1)
    return Batch(
        prompt_ids=tuple(prompt_ids),
        prompt_index=tuple(prompt_index),
        completion_ids=mx.array(ids),
        mask=mx.array(mask),
        advantages=advantages,
        sampled_logps=mx.array(logps),
        sampled_entropies=mx.array(entropies),
        rows=tuple(range(len(prompts))),
    )
