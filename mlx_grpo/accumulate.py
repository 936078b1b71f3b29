"""Gradients of micro-batches, summed: on a GPU one at a time, on a CPU one to a core."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlx_grpo import BLAS
from mlx_grpo.cpu import single_threaded_blas
from mlx_grpo.prefix import checkpointed_layers

MOST_STREAMS = 4
"""Micro-batches in flight on a CPU; each holds its own activations."""

Loss = Callable[[Any], tuple[mx.array, ...]]
"""One micro-batch to its loss, and whatever else should be evaluated with it."""


def accumulate(
    model: nn.Module,
    loss: Loss,
    parts: Sequence[Any],
    *,
    has_gradient: Callable[[Any], bool] = lambda part: True,
    checkpointing: bool = False,
) -> tuple[list[tuple[mx.array, ...]], dict[str, Any] | None]:
    """The loss's values for each part, and the sum of the parts' gradients; None where no part has one.

    Parts without gradient are only run forward. The order of summation is fixed, so equal inputs give equal bits.
    """
    differentiate = nn.value_and_grad(model, loss)
    streams = cpu_streams()
    values, total = [], None
    model.train()
    with single_threaded_blas(BLAS), checkpointed_layers(model) if checkpointing else nullcontext():
        for start in range(0, len(parts), len(streams)):
            launched = []
            for stream, part in zip(streams, parts[start:], strict=False):
                with mx.stream(stream):
                    launched.append(differentiate(part) if has_gradient(part) else (loss(part), None))
                mx.async_eval(launched[-1])
            for part_values, gradients in launched:
                values.append(part_values)
                if gradients is not None:
                    total = gradients if total is None else tree_map(mx.add, total, gradients)
            mx.eval(values[start:], total)
    model.eval()
    return values, total


@cache  # streams are never freed, so they are made once
def cpu_streams() -> list[mx.Stream]:
    """One stream for each core where MLX computes on the CPU, whose elementwise operations use one thread each."""
    device = mx.default_device()
    if device != mx.Device(mx.cpu):
        return [mx.default_stream(device)]
    return [mx.new_stream(device) for _ in range(min(MOST_STREAMS, os.cpu_count() or 1))]
