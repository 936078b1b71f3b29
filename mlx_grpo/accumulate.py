"""Gradients of micro-batches, summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlx_grpo.prefix import checkpointed_layers
from mlx_grpo.types import Batch

Loss = Callable[[Batch], tuple[mx.array, ...]]
"""One micro-batch to its loss, and whatever else should be evaluated with it."""


def accumulate(
    model: nn.Module,
    loss: Loss,
    parts: Sequence[Batch],
    *,
    has_gradient: Callable[[Batch], bool] = lambda part: True,
    checkpointing: bool = False,
) -> tuple[list[tuple[mx.array, ...]], dict[str, Any] | None]:
    """The loss's values for each part, and the sum of the parts' gradients; None where no part has one.

    Only one part's activations exist at a time. Parts without gradient are run forward alone. Dropout is on.
    """
    differentiate = nn.value_and_grad(model, loss)
    values, total = [], None
    model.train()
    with checkpointed_layers(model) if checkpointing else nullcontext():
        for part in parts:
            part_values, gradients = differentiate(part) if has_gradient(part) else (loss(part), None)
            if gradients is not None:
                total = gradients if total is None else tree_map(mx.add, total, gradients)
            mx.eval(part_values, total)
            values.append(part_values)
    model.eval()
    return values, total
