"""Tensors as mlx-lm holds them, under the names and in the shapes in which transformers stores them."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

KERNELS = (".conv.conv.weight", ".conv1d.weight")
"""Depthwise convolutions over positions: [channels, 1, width] on the Hub, [channels, width, 1] in MLX."""
SHIFTED_NORMS = (
    ".input_layernorm.weight",
    ".post_attention_layernorm.weight",
    ".model.norm.weight",
    ".language_model.norm.weight",
    ".q_norm.weight",
    ".k_norm.weight",
)
"""Norms of Qwen3.5 that mlx-lm holds with 1 added, in MLX and on the Hub."""
NESTED = "language_model."
"""Begins the names of Qwen3.5's text model in MLX, whose layers are `language_model.model`."""
NESTED_ON_THE_HUB = "model.language_model."
"""Begins the names of its layers on the Hub."""


def hub_name(name: str) -> str:
    """Return the Hub's name of a tensor in MLX."""
    if not name.startswith(NESTED):
        return name
    inner = name.removeprefix(NESTED)
    return NESTED_ON_THE_HUB + inner.removeprefix("model.") if inner.startswith("model.") else inner


def mlx_name(name: str) -> str:
    """Return the name in MLX of a tensor of Qwen3.5's layers on the Hub."""
    return f"{NESTED}model.{name.removeprefix(NESTED_ON_THE_HUB)}"


def is_shifted_norm(name: str) -> bool:
    """Return True if mlx-lm adds 1 to a tensor of Qwen3.5's text model."""
    return name.startswith((NESTED, NESTED_ON_THE_HUB)) and name.endswith(SHIFTED_NORMS)


def on_the_hub(name: str, weight: mx.array) -> Iterator[tuple[str, mx.array]]:
    """Yield a weight as the Hub has it; experts that mlx-lm stacked, [experts, out, in], one by one."""
    layer, stacked, leaf = name.partition(".switch_mlp.")
    if stacked:
        for expert in range(weight.shape[0]):
            yield f"{layer}.experts.{expert}.{leaf}", weight[expert]
        return
    if name.endswith(KERNELS) and weight.ndim == 3 and weight.shape[-1] == 1:
        weight = weight.swapaxes(1, 2)
    if name.startswith(NESTED) and is_shifted_norm(name):
        weight = weight.astype(mx.float32) - 1
    yield hub_name(name), weight
