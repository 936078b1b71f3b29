"""The prompts of a step: a pure function of the seed and the step, so that a resumed run draws the same ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from mlx_grpo.config.schema import DataConfig
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError


def sample_prompts(
    prompts: Sequence[Prompt], count: int, seed: int, step: int, data: DataConfig | None = None
) -> list[Prompt]:
    """Return the `count` prompts of a step: every prompt once per epoch, in a new order each epoch.

    `data.balance_by` names a column whose values take turns, so that no step is pulled towards a label that it has more
    of. `data.cluster_by` names one whose equal values tie prompts together: a step takes `data.cluster_size` prompts of
    each of its clusters, and a cluster of twice as many prompts comes twice as often. Raises UserError where a row
    lacks a column.
    """
    data = data or DataConfig()
    if data.cluster_by is None:
        return _in_turns(prompts, count, seed, step, data.balance_by)
    clusters = _by_column(prompts, data.cluster_by, "data.cluster_by")
    size = data.cluster_size
    visits = [(value, visit) for value in sorted(clusters) for visit in range(-(-len(clusters[value]) // size))]
    chosen: list[Prompt] = []
    for position in range(step * count // size, (step + 1) * count // size):
        epoch, index = divmod(position, len(visits))
        value, visit = visits[_epoch_order(len(visits), seed, epoch)[index]]
        earlier = epoch * -(-len(clusters[value]) // size)  # the visits to this cluster in the epochs before
        chosen += _in_turns(clusters[value], size, seed, earlier + visit, data.balance_by)
    return chosen


def sample_instead(
    prompts: Sequence[Prompt], replaced: Sequence[Prompt], seed: int, step: int, data: DataConfig
) -> list[Prompt]:
    """Return a prompt in place of each of `replaced`, of the same cluster where there are clusters."""
    if data.cluster_by is None:
        return sample_prompts(prompts, len(replaced), seed, step, data)
    clusters = _by_column(prompts, data.cluster_by, "data.cluster_by")
    wanted = [str(prompt.columns[data.cluster_by]) for prompt in replaced]
    drawn = {
        value: iter(_in_turns(clusters[value], wanted.count(value), seed, step, data.balance_by))
        for value in set(wanted)
    }
    return [next(drawn[value]) for value in wanted]


def _in_turns(prompts: Sequence[Prompt], count: int, seed: int, step: int, balance_by: str | None) -> list[Prompt]:
    """Return the `count` prompts of a step, with the values of `balance_by` in turn."""
    strata = _by_column(prompts, balance_by, "data.balance_by") if balance_by else {"": list(prompts)}
    groups = [strata[value] for value in sorted(strata)]
    chosen = []
    for position in range(step * count, (step + 1) * count):
        turn, which = divmod(position, len(groups))
        epoch, index = divmod(turn, len(groups[which]))
        chosen.append(groups[which][_epoch_order(len(groups[which]), seed, epoch)[index]])
    return chosen


def _by_column(prompts: Sequence[Prompt], column: str, key: str) -> dict[str, list[Prompt]]:
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        if column not in prompt.columns:
            raise UserError(f"{key}: row {prompt.id} has no column {column!r}; name a column of every row")
        groups.setdefault(str(prompt.columns[column]), []).append(prompt)
    return groups


@lru_cache(maxsize=64)  # every prompt of a step asks for the order of its group
def _epoch_order(size: int, seed: int, epoch: int) -> list[int]:
    order = list(range(size))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order
