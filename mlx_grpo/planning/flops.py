"""Floating point operations of a step, and the speed of this machine's matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import mlx.core as mx

from mlx_grpo.models.head import output_head, text_model
from mlx_grpo.planning.architecture import head_size, weights_in

MATRIX = 1024
"""Side of the square matrices whose product is the machine's measured speed."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Prompts of P tokens, `shared_tokens` of them in common; G completions of each, of T tokens."""

    prompt_tokens: int
    num_generations: int
    completion_tokens: int
    shared_tokens: int = 0
    prompts: int = 1

    @classmethod
    def parse(cls, text: str, prompts: int = 1) -> Shape:
        """Read `750x8x96` as P = 750, G = 8, T = 96, and `2000/250x8x96` as P = 2250 with 2000 tokens in common.

        Raises ValueError for anything else.
        """
        prompt, num_generations, completion_tokens = text.split("x")
        *shared, own = map(int, prompt.split("/"))
        shape = cls(own + sum(shared), int(num_generations), int(completion_tokens), sum(shared), prompts)
        if min(own, shape.num_generations, shape.completion_tokens, *shared) < 1 or len(shared) > 1:
            raise ValueError(text)
        return shape

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Shape:
        """Return the shape whose fields a result of `bench` holds among its figures."""
        return cls(*(result[field.name] for field in fields(cls)))

    def __str__(self) -> str:
        """Return the shape as a table names it."""
        own = self.prompt_tokens - self.shared_tokens
        prompt = f"{self.shared_tokens}/{own}" if self.shared_tokens else own
        return f"{prompt} x {self.num_generations} x {self.completion_tokens}"


def matrix_speed(dtype: mx.Dtype, side: int = MATRIX) -> float:
    """Measure the floating point operations a second of a large matrix product."""
    a = mx.random.normal((side, side)).astype(dtype)
    mx.eval(a)
    times = [timed(lambda: mx.eval([a @ a for _ in range(8)]))[0] for _ in range(4)]
    return 8 * 2 * side**3 / min(times)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Run a function; return its seconds and its result."""
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def training_flops(model: Any, shape: Shape, full: bool) -> float:
    """Return the operations of one forward and backward pass in which what is shared is run once.

    Only matrix products count, without LoRA's own. A frozen weight takes part in two, with the activations and with
    their gradient; a trained weight in a third, for its own gradient.
    """
    weights, attention = forward_flops(model, shape)
    return weights * (3 if full else 2) + attention * 3


def forward_flops(model: Any, shape: Shape) -> tuple[float, float]:
    """Return the operations of a forward pass: products with weights, and within attention."""
    shared, own = shape.shared_tokens, shape.prompt_tokens - shape.shared_tokens
    completions = shape.prompts * shape.num_generations
    tokens = shared + shape.prompts * own + completions * shape.completion_tokens
    head, _ = output_head(model)
    linear = 2 * sum(map(weights_in, (module for layer in model.layers for module in layer.modules()))) * tokens
    vocabulary = 2 * weights_in(head) * completions * shape.completion_tokens
    pairs_of_prompt = own**2 / 2 + own * shared
    pairs_of_row = shape.completion_tokens**2 / 2 + shape.completion_tokens * shape.prompt_tokens
    pairs = shared**2 / 2 + shape.prompts * pairs_of_prompt + completions * pairs_of_row
    heads = text_model(model).args.num_attention_heads * head_size(model)
    return linear + vocabulary, sum("self_attn" in layer for layer in model.layers) * 4 * heads * pairs
