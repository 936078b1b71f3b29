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
from itertools import groupby, islice, pairwise
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


def split_batch(batch: Batch, rows: int) -> list[Batch]:
    """Split a batch into micro-batches of at most `rows` rows; one spans several groups only if they fit whole."""
    index = batch.prompt_index
    starts = [i for i in range(len(index)) if i == 0 or index[i] != index[i - 1]] + [len(index)]
    largest = max(b - a for a, b in pairwise(starts))
    if largest <= rows:
        bounds = [*starts[: -1 : rows // largest], len(index)]
    else:
        bounds = [i for a, b in pairwise(starts) for i in range(a, b, rows)] + [len(index)]
    return [slice_batch(batch, a, b) for a, b in pairwise(bounds)]


def by_prompt(parts: Sequence[Batch]) -> list[list[Batch]]:
    """Group consecutive micro-batches that continue the same prompt; one with several prompts is a group by itself."""
    runs = groupby(parts, key=lambda part: id(part.prompt_ids[0]) if len(part.prompt_ids) == 1 else id(part))
    return [list(run) for _, run in runs]


def slice_batch(batch: Batch, start: int, stop: int) -> Batch:
    """Return rows start to stop of a batch, with the prompts that they continue."""
    index = batch.prompt_index[start:stop]
    kept = sorted(set(index))
    return Batch(
        prompt_ids=tuple(batch.prompt_ids[i] for i in kept),
        prompt_index=tuple(kept.index(i) for i in index),
        completion_ids=batch.completion_ids[start:stop],
        mask=batch.mask[start:stop],
        advantages=batch.advantages[start:stop],
        sampled_logps=batch.sampled_logps[start:stop],
        sampled_entropies=batch.sampled_entropies[start:stop],
        rows=(batch.rows[0] + start, batch.rows[0] + stop),
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
        rows=(0, len(prompts)),
    )
