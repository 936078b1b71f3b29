"""Gradients of micro-batches, summed; those of one prompt share its pass, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlx_grpo.backend.device import splits_evaluations, this_device
from mlx_grpo.data.batch import by_prompt
from mlx_grpo.data.types import Batch
from mlx_grpo.models.prefix import KeysValues, Prefix, checkpointed_layers, prompt_prefixes, random_seed, shares_prompt

Values = tuple[mx.array, ...]
Gradients = dict[str, Any]


class Loss(Protocol):
    """A function from one micro-batch to its loss, and to whatever else is evaluated with it."""

    def __call__(self, part: Batch, prefixes: Sequence[Prefix | None] | None = None) -> Values:
        """Return the loss first; `prefixes` are those of the part's prompts, where they are computed already."""


def accumulate(
    model: nn.Module,
    loss: Loss,
    parts: Sequence[Batch],
    *,
    has_gradient: Callable[[Batch], bool] = lambda part: True,
    checkpointing: bool = False,
    share_prompt: bool = True,
    evaluate_each: bool | None = None,
) -> tuple[list[Values], Gradients | None]:
    """Return the loss's values for each part, and the sum of the parts' gradients; None where no part has one.

    The parts of one prompt share its pass where the model allows it, unless `share_prompt` is False. Only one part's
    activations exist at a time, besides those of its prompt. Parts without gradient are run forward only. Dropout is
    on. `evaluate_each` evaluates each part by itself; by default the device decides.
    """
    values: list[Values] = []
    total: Gradients | None = None
    share_prompt = share_prompt and shares_prompt(model)
    evaluate_each = splits_evaluations(this_device()) if evaluate_each is None else evaluate_each
    shared_gradients = _shared_prompt_part_by_part if evaluate_each else _shared_prompt
    model.train()
    with checkpointed_layers(model) if checkpointing else nullcontext():
        for group in by_prompt(parts):
            with_gradient = [has_gradient(part) for part in group]
            if len(group) > 1 and share_prompt and group[0].prompt_ids[0].size > 1:
                group_values, gradients = shared_gradients(model, loss, group, with_gradient)
            else:
                group_values, gradients = _without_sharing(model, loss, group, with_gradient)
            total = add(total, gradients)
            del gradients  # or they would exist beside the sum while the next group is computed
            mx.eval(group_values, total)
            values += group_values
    model.eval()
    return values, total


def add(a: Gradients | None, b: Gradients | None) -> Gradients | None:
    """Return the sum of two gradients, where None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return tree_map(mx.add, a, b)


def _without_sharing(
    model: nn.Module, loss: Loss, parts: Sequence[Batch], with_gradient: Sequence[bool]
) -> tuple[list[Values], Gradients | None]:
    """Run every part with its own pass over the prompt, one evaluation each."""
    values: list[Values] = []
    total: Gradients | None = None
    for part, differentiate in zip(parts, with_gradient, strict=True):
        part_values, gradients = nn.value_and_grad(model, loss)(part) if differentiate else (loss(part), None)
        total = add(total, gradients)
        del gradients
        mx.eval(part_values, total)
        values.append(part_values)
    return values, total


def _shared_prompt(
    model: nn.Module, loss: Loss, parts: Sequence[Batch], with_gradient: Sequence[bool]
) -> tuple[list[Values], Gradients | None]:
    """Run the pass over the parts' one prompt once and differentiate it once, in one evaluation.

    Each part's gradient is taken with respect to the parameters and to the prompt's keys and values. The sum of the
    latter then goes back through the prompt's pass. Every array here is lazy: of the prompt's pass only what its own
    backward pass needs is kept.
    """
    trainable = model.trainable_parameters()

    def all_parts(parameters: Gradients) -> tuple[mx.array, list[Values], Gradients | None]:
        model.update(parameters)
        (prefix,) = prompt_prefixes(model, parts[0])
        prompt_arrays = dict(tree_flatten(prefix))
        fixed_parameters = tree_map(mx.stop_gradient, parameters)
        fixed_arrays = tree_map(mx.stop_gradient, prompt_arrays)
        values: list[Values] = []
        total: Gradients | None = None
        prefix_total: Gradients | None = None
        for part, differentiate in zip(parts, with_gradient, strict=True):
            part_values, gradients = _part_gradients(model, loss, part, fixed_parameters, fixed_arrays, differentiate)
            values.append(part_values)
            total, prefix_total = add(total, gradients[0]), add(prefix_total, gradients[1])
            # The next part waits for this one and its backward pass, or all their activations could exist at once.
            done = [*part_values, *(array for _, array in tree_flatten((total or {}, prefix_total or {})))]
            fixed_arrays = dict(zip(fixed_arrays, mx.depends(list(fixed_arrays.values()), done), strict=True))
        if prefix_total is None:
            return mx.zeros(()), values, None
        # The derivative of this sum by the parameters is the gradient that goes through the prompt.
        through_prompt = sum((prompt_arrays[name] * mx.stop_gradient(g)).sum() for name, g in prefix_total.items())
        return through_prompt, values, total

    (_, values, total), through_prompt = mx.value_and_grad(all_parts)(trainable)
    model.update(trainable)
    return values, None if total is None else add(total, through_prompt)


def _shared_prompt_part_by_part(
    model: nn.Module, loss: Loss, parts: Sequence[Batch], with_gradient: Sequence[bool]
) -> tuple[list[Values], Gradients | None]:
    """Return the values and gradients of `_shared_prompt`, but evaluate each part by itself.

    This costs a second forward pass over the prompt.
    """
    trainable, seed_before = model.trainable_parameters(), random_seed()
    prompt_arrays = dict(tree_flatten(prompt_prefixes(model, parts[0])[0]))
    mx.eval(prompt_arrays)
    values: list[Values] = []
    total: Gradients | None = None
    prefix_total: Gradients | None = None
    for part, differentiate in zip(parts, with_gradient, strict=True):
        part_values, gradients = _part_gradients(model, loss, part, trainable, prompt_arrays, differentiate)
        total, prefix_total = add(total, gradients[0]), add(prefix_total, gradients[1])
        mx.eval(part_values, total, prefix_total)
        values.append(part_values)
    model.update(trainable)
    if prefix_total is None:
        return values, None

    def through_prompt() -> mx.array:
        recomputed = dict(tree_flatten(prompt_prefixes(model, parts[0])[0]))
        return sum((recomputed[name] * gradient).sum() for name, gradient in prefix_total.items())

    seed_after = random_seed()
    mx.random.seed(seed_before)  # dropout drops in this pass what it dropped in the first
    _, gradients = nn.value_and_grad(model, through_prompt)()
    mx.eval(gradients)
    mx.random.seed(seed_after)
    return values, add(total, gradients)


def _part_gradients(
    model: nn.Module,
    loss: Loss,
    part: Batch,
    parameters: Gradients,
    prompt_arrays: dict[str, mx.array],
    differentiate: bool,
) -> tuple[Values, tuple[Gradients | None, dict[str, mx.array] | None]]:
    """Return a part's values, and its gradients by the parameters and by its prompt's keys and values."""

    def part_loss(parameters: Gradients, prompt_arrays: dict[str, mx.array]) -> Values:
        model.update(parameters)
        prefix = [KeysValues(*layer) for layer in tree_unflatten(list(prompt_arrays.items()))]
        return loss(part, [prefix])

    if not differentiate:
        return part_loss(parameters, prompt_arrays), (None, None)
    return mx.value_and_grad(part_loss, argnums=(0, 1))(parameters, prompt_arrays)
