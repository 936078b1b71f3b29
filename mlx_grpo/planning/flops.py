"""Floating point operations of a step, and the speed of this machine's matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_grpo.models.logps import output_head
from mlx_grpo.planning.architecture import head_size

MATRIX = 1024
"""Side of the square matrices whose product is the machine's measured speed."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One prompt of P tokens, G completions of T tokens each."""

    prompt_tokens: int
    num_generations: int
    completion_tokens: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """`750x8x96` as P = 750, G = 8, T = 96; raises ValueError for anything else."""
        prompt_tokens, num_generations, completion_tokens = (int(part) for part in text.split("x"))
        if min(prompt_tokens, num_generations, completion_tokens) < 1:
            raise ValueError(text)
        return cls(prompt_tokens, num_generations, completion_tokens)


def matrix_speed(dtype: mx.Dtype, side: int = MATRIX) -> float:
    """Floating point operations a second in a large matrix product."""
    a = mx.random.normal((side, side)).astype(dtype)
    mx.eval(a)
    times = [timed(lambda: mx.eval([a @ a for _ in range(8)]))[0] for _ in range(4)]
    return 8 * 2 * side**3 / min(times)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the function returned."""
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def training_flops(model: Any, shape: Shape, full: bool) -> float:
    """Operations of one forward and backward pass with a shared prompt: matrix products alone, LoRA's own left out.

    A frozen weight costs its product with the activations and one with their gradient; a trained one a third.
    """
    weights, attention = forward_flops(model, shape)
    return weights * (3 if full else 2) + attention * 3


def forward_flops(model: Any, shape: Shape) -> tuple[float, float]:
    """Operations of a forward pass with a shared prompt: products with weights, and within attention."""
    tokens = shape.prompt_tokens + shape.num_generations * shape.completion_tokens
    head, _ = output_head(model)
    linear = 2 * len(model.model.layers) * sum(map(weights_in, model.model.layers[0].modules())) * tokens
    vocabulary = 2 * weights_in(head) * shape.num_generations * shape.completion_tokens
    own = shape.completion_tokens**2 / 2 + shape.completion_tokens * shape.prompt_tokens
    pairs = shape.prompt_tokens**2 / 2 + shape.num_generations * own
    heads = model.args.num_attention_heads * head_size(model)
    return linear + vocabulary, len(model.model.layers) * 4 * heads * pairs


def weights_in(module: nn.Module) -> int:
    """The number of weights in a linear layer or embedding, packed or not; 0 for any other module."""
    if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return module.weight.size * 32 // module.bits
    return module.weight.size if isinstance(module, nn.Linear | nn.Embedding) else 0
