"""Data parallelism: each process (rank) computes its share of a step, and the results are gathered or summed.

Every rank holds the whole model and takes the same step with the same summed gradient, so their parameters
stay equal without being sent. Only rank 0 writes files.
"""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from mlx_grpo.data.types import Batch
from mlx_grpo.errors import UserError

Item = TypeVar("Item")

LONGEST_MESSAGE = 2**30
LOST = "the processes of this run have lost each other"


class Ranks:
    """The processes of a run; a single one where no launcher started it."""

    def __init__(self, group: mx.distributed.Group | None = None):
        self.group = group
        self.rank = group.rank() if group else 0
        self.size = group.size() if group else 1

    @property
    def leads(self) -> bool:
        """Return True if this process writes the run's files and the output that the user reads."""
        return self.rank == 0

    def on_this_machine(self) -> int:
        """Return how many of the ranks run on this one's machine; every rank calls it together."""
        machines = self.gather(machine())
        return machines.count(machines[self.rank])

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this rank's contiguous part of items that all ranks hold; parts differ in length by one at most."""
        return items[len(items) * self.rank // self.size : len(items) * (self.rank + 1) // self.size]

    def gather(self, value: Any) -> list[Any]:
        """Return each rank's value, of anything that JSON holds, in the order of the ranks.

        Raises RuntimeError where a rank is lost.
        """
        if self.size == 1:
            return [value]
        data = np.frombuffer(json.dumps(value).encode(), np.uint8)
        gathered = mx.distributed.all_gather(mx.array([data.size], mx.int32), group=self.group)
        lengths = [int(length) for length in np.array(gathered)]
        if lengths[self.rank] != data.size or not 0 < min(lengths) <= max(lengths) < LONGEST_MESSAGE:
            raise RuntimeError(LOST)
        padded = np.zeros(max(lengths), np.uint8)
        padded[: data.size] = data
        rows = np.array(mx.distributed.all_gather(mx.array(padded)[None], group=self.group))
        try:
            return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]
        except ValueError:
            raise RuntimeError(LOST) from None

    def from_leader(self, make: Callable[[], Any]) -> Any:
        """Return what rank 0 makes, of anything that JSON holds, on every rank; the others make nothing.

        Raises RuntimeError where a rank is lost.
        """
        return self.gather(make() if self.leads else None)[0]

    def confirm(self, value: Any) -> None:
        """Raise RuntimeError unless every rank calls this with the same value.

        Where a rank dies within a collective, MLX's ring raises, or hangs, or returns uninitialized memory. So a sum
        is trusted only after a later gather succeeds.
        """
        if self.gather(value) != [value] * self.size:
            raise RuntimeError(LOST)

    def sum(self, tree: Any) -> Any:
        """Return the sum over ranks of each fp32 array of a tree; all ranks get the same bits."""
        if self.size == 1:
            return tree
        # MLX averages many small arrays in few messages; there is no such function for the sum.
        total = tree_map(lambda mean: mean * self.size, nn.average_gradients(tree, self.group))
        mx.eval(total)  # messages have no names: every rank must send them in the order of the program
        return total

    def sum_gradients(self, gradients: Any | None, like: Any) -> Any | None:
        """Return the sum of gradients over ranks; None stands for zero, and is returned where all are None.

        `like` has the parameters' shapes.
        """
        if not any(self.gather(gradients is not None)):
            return None
        return self.sum(tree_map(mx.zeros_like, like) if gradients is None else gradients)

    def assemble(self, parts: Iterable[Batch], values: Sequence[mx.array], shape: tuple[int, ...]) -> mx.array:
        """Return a whole batch's array [N, T] from the rows [B, T] that each rank computed for its micro-batches."""
        whole = mx.zeros(shape)
        for part, rows in zip(parts, values, strict=True):
            whole[mx.array(part.rows)] = rows
        return self.sum(whole)


def machine() -> list[str | int]:
    """Return a name for this machine that no other has, not even a clone of it."""
    return [socket.gethostname(), uuid.getnode()]


def join_ranks() -> Ranks:
    """Join the ranks that a launcher started; raise UserError where another one can't be reached."""
    try:
        group = mx.distributed.init()
    except RuntimeError as error:
        raise UserError(f"the other processes of this run can't be reached: {error}; see their messages") from None
    return Ranks(group if group.size() > 1 else None)
