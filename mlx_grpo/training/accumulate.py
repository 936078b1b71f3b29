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
    """One micro-batch to its loss, and whatever else should be evaluated with it."""

    def __call__(self, part: Batch, prefixes: Sequence[Prefix | None] | None = None) -> Values:
        """`prefixes` are those of the part's prompts, where they are known already."""


def accumulate(
    model: nn.Module,
    loss: Loss,
    parts: Sequence[Batch],
    *,
    has_gradient: Callable[[Batch], bool] = lambda part: True,
    checkpointing: bool = False,
    share: bool = True,
    apart: bool | None = None,
) -> tuple[list[Values], Gradients | None]:
    """The loss's values for each part, and the sum of the parts' gradients; None where no part has one.

    Only one part's activations exist at a time, besides those of its prompt, whose pass the parts share where
    the model allows it (`share`). Parts without gradient are run forward alone. Dropout is on. `apart` evaluates
    each part by itself; None does where the device asks for it.
    """
    values, total = [], None
    share = share and shares_prompt(model)
    apart = splits_evaluations(this_device()) if apart is None else apart
    shared = _shared_prompt_apart if apart else _shared_prompt
    model.train()
    with checkpointed_layers(model) if checkpointing else nullcontext():
        for group in by_prompt(parts):
            learning = [has_gradient(part) for part in group]
            if len(group) > 1 and share and group[0].prompt_ids[0].size > 1:
                group_values, gradients = shared(model, loss, group, learning)
            else:
                group_values, gradients = _one_by_one(model, loss, group, learning)
            total = add(total, gradients)
            del gradients  # or they would live on beside the sum while the next group is computed
            mx.eval(group_values, total)
            values += group_values
    model.eval()
    return values, total


def add(a: Gradients | None, b: Gradients | None) -> Gradients | None:
    """The sum of two gradients, where None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return tree_map(mx.add, a, b)


def _one_by_one(
    model: nn.Module, loss: Loss, parts: Sequence[Batch], learning: Sequence[bool]
) -> tuple[list[Values], Gradients | None]:
    values, total = [], None
    for part, learns in zip(parts, learning, strict=True):
        part_values, gradients = nn.value_and_grad(model, loss)(part) if learns else (loss(part), None)
        total = add(total, gradients)
        del gradients
        mx.eval(part_values, total)
        values.append(part_values)
    return values, total


def _shared_prompt(
    model: nn.Module, loss: Loss, parts: Sequence[Batch], learning: Sequence[bool]
) -> tuple[list[Values], Gradients | None]:
    """Micro-batches of one prompt, whose pass is run once and differentiated once.

    Each part's gradient is taken with respect to the parameters and to the prompt's keys and values; the sum
    of the latter then goes back through the prompt's pass. Every array here is lazy: nothing is kept of the
    prompt's pass but what its own backward pass needs.
    """
    trainable = model.trainable_parameters()

    def whole(parameters: Gradients) -> tuple[mx.array, list[Values], Gradients | None]:
        model.update(parameters)
        (prefix,) = prompt_prefixes(model, parts[0])
        remembered = dict(tree_flatten(prefix))
        fixed, known = tree_map(mx.stop_gradient, parameters), tree_map(mx.stop_gradient, remembered)
        values, total, prefix_total = [], None, None
        for part, learns in zip(parts, learning, strict=True):
            part_values, gradients = _part_gradients(model, loss, part, fixed, known, learns)
            values.append(part_values)
            total, prefix_total = add(total, gradients[0]), add(prefix_total, gradients[1])
            # The next part waits for this one and its backward pass, or all their activations could exist at once.
            done = [*part_values, *(array for _, array in tree_flatten((total or {}, prefix_total or {})))]
            known = dict(zip(known, mx.depends(list(known.values()), done), strict=True))
        if prefix_total is None:
            return mx.zeros(()), values, None
        through_prompt = sum((remembered[name] * mx.stop_gradient(g)).sum() for name, g in prefix_total.items())
        return through_prompt, values, total

    (_, values, total), through_prompt = mx.value_and_grad(whole)(trainable)
    model.update(trainable)
    return values, None if total is None else add(total, through_prompt)


def _shared_prompt_apart(
    model: nn.Module, loss: Loss, parts: Sequence[Batch], learning: Sequence[bool]
) -> tuple[list[Values], Gradients | None]:
    """The same in evaluations of one part each, at the price of a second forward pass over the prompt."""
    trainable, before = model.trainable_parameters(), random_seed()
    known = dict(tree_flatten(prompt_prefixes(model, parts[0])[0]))
    mx.eval(known)
    values, total, prefix_total = [], None, None
    for part, learns in zip(parts, learning, strict=True):
        part_values, gradients = _part_gradients(model, loss, part, trainable, known, learns)
        total, prefix_total = add(total, gradients[0]), add(prefix_total, gradients[1])
        mx.eval(part_values, total, prefix_total)
        values.append(part_values)
    model.update(trainable)
    if prefix_total is None:
        return values, None

    def through_prompt() -> mx.array:
        remembered = dict(tree_flatten(prompt_prefixes(model, parts[0])[0]))
        return sum((remembered[name] * gradient).sum() for name, gradient in prefix_total.items())

    after = random_seed()
    mx.random.seed(before)  # dropout drops in this pass what it dropped in the first
    _, gradients = nn.value_and_grad(model, through_prompt)()
    mx.eval(gradients)
    mx.random.seed(after)
    return values, add(total, gradients)


def _part_gradients(
    model: nn.Module, loss: Loss, part: Batch, parameters: Gradients, known: dict[str, mx.array], learns: bool
) -> tuple[Values, tuple[Gradients | None, dict[str, mx.array] | None]]:
    """A part's values, and its gradients with respect to the parameters and to its prompt's keys and values."""

    def of(parameters: Gradients, known: dict[str, mx.array]) -> Values:
        model.update(parameters)
        prefix = [KeysValues(*layer) for layer in tree_unflatten(list(known.items()))]
        return loss(part, [prefix])

    if not learns:
        return of(parameters, known), (None, None)
    return mx.value_and_grad(of, argnums=(0, 1))(parameters, known)
