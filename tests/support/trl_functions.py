"""Reward functions of many kinds, which run in TRL and here, on chat rows and on plain ones."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from trl.rewards import get_repetition_penalty_reward, get_soft_overlong_punishment

Completion = str | list[dict[str, str]]

overlong = get_soft_overlong_punishment(max_completion_len=12, soft_punish_cache=8)
"""TRL's own, reads completion_ids."""
repetition = get_repetition_penalty_reward(ngram_size=2)
"""TRL's own, reads completion_ids."""


def text_of(completion: Completion) -> str:
    return completion if isinstance(completion, str) else completion[0]["content"]


def brevity(completions: list[Completion], **columns: Any) -> list[float]:
    """Reads the shape that it is given: a message for a chat row, text for a plain one."""
    return [1 / (1 + len(text_of(completion))) for completion in completions]


def shape(completions: list[Completion], prompts: list[Any], **columns: Any) -> list[float]:
    """Tells the shapes apart that brevity allows: the lengths of both arguments, and the roles."""
    roles = [0 if isinstance(prompt, str) else len({message["role"] for message in prompt}) for prompt in prompts]
    return [10 * len(c) + len(p) + r / 10 for c, p, r in zip(completions, prompts, roles, strict=True)]


def last_words(prompts: list[Any], completions: list[Completion], **columns: Any) -> list[float]:
    """Reads the prompt's last message as it is in the row."""
    asked = [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in prompts]
    return [len(set(ask) & set(text_of(completion))) for ask, completion in zip(asked, completions, strict=True)]


def gold_where_it_is(completions: list[Completion], gold: list[int | None], **columns: Any) -> list[float | None]:
    """Reads a column that some rows lack."""
    return [
        None if right is None else float(text_of(c).count("a") == right)
        for c, right in zip(completions, gold, strict=True)
    ]


def names_of_columns(completions: list[Completion], **columns: Any) -> list[int]:
    """Counts what it is handed besides TRL's loggers."""
    return [len(columns.keys() - {"log_extra", "log_metric"})] * len(completions)


def by_id(completions: list[Completion], id: list[int], **columns: Any) -> list[int]:
    """Reads the rows' own ids, which are numbers."""
    return [number % 3 for number in id]


def warming(completions: list[Completion], trainer_state: Any, **columns: Any) -> list[float]:
    """Grows with the progress of training."""
    return [len(text_of(c)) * trainer_state.global_step / trainer_state.max_steps for c in completions]


def mixed_types(completions: list[Completion], **columns: Any) -> list[Any]:
    """Returns a bool, an int, a numpy number, a tensor and None in turn."""
    values: list[Any] = [True, 2, np.float32(0.25), torch.tensor(0.5), None]
    return [values[i % 5] for i in range(len(completions))]


def tensor(completions: list[Completion], **columns: Any) -> torch.Tensor:
    """Returns no list."""
    return torch.tensor([float(len(text_of(c))) for c in completions])


async def awaited(completions: list[Completion], **columns: Any) -> list[float | None]:
    """Waits, as for a service."""
    await asyncio.sleep(0)
    return [None if not text_of(c) else float(ord(text_of(c)[0])) for c in completions]


class Counter:
    """A callable object, async."""

    __name__ = "counter"

    async def __call__(self, completion_ids: list[list[int]], **columns: Any) -> list[int]:
        return [len(set(ids)) for ids in completion_ids]


counter = Counter()


def _scaled(completions: list[Completion], factor: float, **columns: Any) -> list[float]:
    return [factor * len(text_of(c)) for c in completions]


half = functools.partial(_scaled, factor=0.5)

NAMES: Sequence[str] = (
    *("overlong", "repetition", "brevity", "shape", "last_words", "gold_where_it_is", "names_of_columns", "by_id"),
    *("warming", "mixed_types", "tensor", "awaited", "counter", "half"),
)
