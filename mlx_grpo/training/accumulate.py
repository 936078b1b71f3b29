"""Gradients of a tree's micro-batches, summed; rows that begin alike share that beginning, forward and backward.

Each micro-batch's gradient is taken with respect to the parameters and to the keys and values of the nodes that it
continues. A node sums what its micro-batches and children send back to its keys and values, and takes that sum back
through its own pass, to the parameters and to the nodes before it. Every pass is made once in each direction.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlx_grpo.backend.device import splits_evaluations, this_device
from mlx_grpo.data.types import Batch
from mlx_grpo.models.prefix import Chain, KeysValues, Prefix, checkpointed_layers, extend, random_seed
from mlx_grpo.models.tree import Node

Values = tuple[mx.array, ...]
Gradients = dict[str, Any]

NodeArrays = dict[str, mx.array]
"""A node's keys and values by "layer.0" and "layer.1", since MLX differentiates dictionaries and lists."""


class Loss(Protocol):
    """A function from one micro-batch to its loss, and to whatever else is evaluated with it."""

    def __call__(self, part: Batch, chain: Chain = ()) -> Values:
        """Return the loss first; `chain` holds the keys and values of what the part's rows continue."""


@dataclass(slots=True)
class Sums:
    """The values of the micro-batches so far, and the sums of their gradients; None where none has one."""

    values: list[Values] = field(default_factory=list)
    gradients: Gradients | None = None
    """By the parameters."""
    chain: list[NodeArrays] | None = None
    """By the keys and values of the nodes that the micro-batches continue."""

    def add(self, other: Sums) -> None:
        """Add the values and gradients of further micro-batches."""
        self.values += other.values
        self.gradients = add(self.gradients, other.gradients)
        self.chain = add(self.chain, other.chain)

    def arrays(self) -> list[mx.array]:
        """Return all arrays."""
        return [array for _, array in tree_flatten([self.values, self.gradients or {}, self.chain or []])]


@dataclass(frozen=True, slots=True)
class Accumulation:
    """What every pass over a tree needs."""

    model: nn.Module
    loss: Loss
    has_gradient: Callable[[Batch], bool]
    evaluate_each: bool


def accumulate(
    model: nn.Module,
    loss: Loss,
    tree: Node,
    *,
    has_gradient: Callable[[Batch], bool] = lambda part: True,
    checkpointing: bool = False,
    evaluate_each: bool | None = None,
) -> tuple[list[Values], Gradients | None]:
    """Return the loss's values for each micro-batch, and the sum of their gradients; None where none has one.

    Only one micro-batch's activations exist at a time, besides those of the nodes that it continues. Micro-batches
    without gradient are run forward only. Dropout is on. `evaluate_each` evaluates each pass by itself; by default
    the device decides.
    """
    evaluate_each = splits_evaluations(this_device()) if evaluate_each is None else evaluate_each
    task = Accumulation(model, loss, has_gradient, evaluate_each)
    trainable = model.trainable_parameters()
    sums = Sums()
    model.train()
    with checkpointed_layers(model) if checkpointing else nullcontext():
        for child in tree.children:
            sums.add(_node_sums(task, child, trainable, []))
            mx.eval(sums.arrays())
        for part in tree.parts:
            sums.add(_part_sums(task, part, trainable, []))
            mx.eval(sums.arrays())
    model.update(trainable)
    model.eval()
    return sums.values, sums.gradients


def add(a: Any | None, b: Any | None) -> Any | None:
    """Return the sum of two gradients, where None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return tree_map(mx.add, a, b)


def _node_sums(task: Accumulation, node: Node, parameters: Gradients, chain: list[NodeArrays]) -> Sums:
    """Return the sums of a node: those of all micro-batches below it, taken back through the node's own pass."""
    if not any(map(task.has_gradient, node.every_part())):
        sums = _below(task, node, parameters, [*chain, _run(task, node, parameters, chain)])
        return Sums(sums.values)
    return _in_parts(task, node, parameters, chain) if task.evaluate_each else _at_once(task, node, parameters, chain)


def _at_once(task: Accumulation, node: Node, parameters: Gradients, chain: list[NodeArrays]) -> Sums:
    """Run a node's pass once and differentiate it once, in one evaluation with all below it.

    Every array here is lazy: of the node's pass only what its own backward pass needs is kept.
    """

    def whole(parameters: Gradients, chain: list[NodeArrays]) -> tuple:
        own = _run(task, node, parameters, chain)
        fixed = tree_map(mx.stop_gradient, [*chain, own])
        below = _below(task, node, tree_map(mx.stop_gradient, parameters), fixed)
        assert below.chain is not None, "some micro-batch has a gradient"
        *before, back = below.chain
        return _through(own, back), below.values, below.gradients, before

    (_, values, gradients, before), through = mx.value_and_grad(whole, argnums=(0, 1))(parameters, chain)
    return Sums(values, add(gradients, through[0]), add(before, through[1]))


def _in_parts(task: Accumulation, node: Node, parameters: Gradients, chain: list[NodeArrays]) -> Sums:
    """Return the sums of `_at_once`, but evaluate each pass by itself.

    This costs a second forward pass over the node.
    """
    seed_before = random_seed()
    own = _run(task, node, parameters, chain)
    mx.eval(own)
    below = _below(task, node, parameters, [*chain, own])
    assert below.chain is not None, "some micro-batch has a gradient"
    *before, back = below.chain

    def again(parameters: Gradients, chain: list[NodeArrays]) -> mx.array:
        return _through(_run(task, node, parameters, chain), back)

    seed_after = random_seed()
    mx.random.seed(seed_before)  # dropout drops in this pass what it dropped in the first
    through = mx.grad(again, argnums=(0, 1))(parameters, chain)
    sums = Sums(below.values, add(below.gradients, through[0]), add(before, through[1]))
    mx.eval(sums.arrays())
    mx.random.seed(seed_after)
    return sums


def _below(task: Accumulation, node: Node, parameters: Gradients, chain: list[NodeArrays]) -> Sums:
    """Return the sums of a node's children and micro-batches, which continue `chain`, one after the other."""
    sums = Sums()
    for item in (*node.children, *node.parts):
        run = _node_sums if isinstance(item, Node) else _part_sums
        sums.add(run(task, item, parameters, chain))  # type: ignore[arg-type]  # mypy does not pair them
        if task.evaluate_each:
            mx.eval(sums.arrays())
        else:
            # The next pass waits for this one and its backward pass, or all their activations could exist at once.
            chain = _after(chain, sums.arrays())
    return sums


def _part_sums(task: Accumulation, part: Batch, parameters: Gradients, chain: list[NodeArrays]) -> Sums:
    """Return a micro-batch's values, and its gradients by the parameters and by the nodes that it continues."""

    def part_loss(parameters: Gradients, chain: list[NodeArrays]) -> Values:
        task.model.update(parameters)
        return task.loss(part, _to_chain(chain))

    if not task.has_gradient(part):
        return Sums([part_loss(parameters, chain)])
    values, gradients = mx.value_and_grad(part_loss, argnums=(0, 1))(parameters, chain)
    return Sums([values], *gradients)


def _run(task: Accumulation, node: Node, parameters: Gradients, chain: list[NodeArrays]) -> NodeArrays:
    """Run a node's own tokens after a chain."""
    task.model.update(parameters)
    return dict(tree_flatten(extend(task.model, mx.array(node.token_ids), _to_chain(chain))))


def _to_chain(chain: list[NodeArrays]) -> Chain:
    nodes: list[Prefix] = [[KeysValues(*layer) for layer in tree_unflatten(list(arrays.items()))] for arrays in chain]
    return tuple(nodes)


def _through(own: NodeArrays, back: NodeArrays) -> mx.array:
    """Return a number whose derivative takes the gradients `back` through the pass that made `own`."""
    return sum(((own[name] * mx.stop_gradient(back[name])).sum() for name in own), mx.zeros(()))


def _after(chain: list[NodeArrays], done: list[mx.array]) -> list[NodeArrays]:
    """Return the same chain, to be computed after the arrays in `done`."""
    later = iter(mx.depends([array for node in chain for array in node.values()], done))
    return [{name: next(later) for name in node} for node in chain]
