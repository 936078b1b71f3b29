"""What mlx-lm needs beyond config.json to compute the model that transformers does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx_grpo.backend.openblas  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.gemma2 import Attention
from mlx_lm.models.gemma3_text import Gemma3Model

from convert.adapter import read_tensors
from convert.layout import is_shifted_norm, mlx_name
from convert.rope import rope_changes
from mlx_grpo.errors import UserError

INTERVALS = {
    "gemma3_text": ("sliding_window_pattern", "sliding_attention"),
    "qwen3_5_text": ("full_attention_interval", "linear_attention"),
}
"""Families whose every n-th layer has full attention: mlx-lm's key for n, and the type of all other layers.

transformers 5 writes `layer_types` in its place.
"""


def config_changes(config: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of config.json to change or add for mlx-lm to compute the model that transformers does."""
    text = config.get("text_config")
    if isinstance(text, dict):
        inner = config_changes(text)
        return {"text_config": text | inner} if inner else {}
    wanted = {}
    if config.get("model_type") == "lfm2":
        wanted["block_dim"] = config.get("block_dim", config["hidden_size"])
    key, other = INTERVALS.get(config.get("model_type", ""), ("", ""))
    if key and config.get("layer_types"):
        wanted[key] = _interval(config["layer_types"], other)
    return rope_changes(config) | {name: value for name, value in wanted.items() if config.get(name) != value}


def _interval(layer_types: Sequence[str], other: str) -> int:
    """Return n where layers n, 2n, ... have full attention and all others are of one type."""
    first = next((number for number, kind in enumerate(layer_types, start=1) if kind == "full_attention"), None)
    for number, layer_type in enumerate(layer_types, start=1):
        if first is None or layer_type != ("full_attention" if number % first == 0 else other):
            others = f"the first full attention in layer {first}" if first else "no full attention in any layer"
            raise UserError(
                f"config.json: layer_types: mlx-lm can't have {layer_type} in layer {number} with {others}; "
                "take another model"
            )
    return first or 1


def correct(model: nn.Module, folder: Path) -> None:
    """Change a model that mlx-lm loaded from a folder where it computes something else than transformers does."""
    if model.model_type == "gemma3_text":
        model.model.__class__ = _Gemma3Model
    if model.model_type == "gemma2":
        for layer in model.layers:
            layer.self_attn.__class__ = _Gemma2Attention
    if model.model_type == "qwen3_5":
        model.load_weights(list(_exact_norms(folder)), strict=False)


def _exact_norms(folder: Path) -> Iterator[tuple[str, mx.array]]:
    """Yield Qwen3.5's norms with 1 added in fp32; mlx-lm adds it in bfloat16, which rounds them to three digits."""
    for file in sorted(folder.glob("model*.safetensors")):
        for name, weight in read_tensors(file).items():
            if name.startswith("model.language_model.") and is_shifted_norm(name):
                yield mlx_name(name), weight.astype(mx.float32) + 1


class _Gemma3Model(Gemma3Model):
    """Layers whose embeddings are scaled in their own dtype; mlx-lm rounds the factor to bfloat16 in every dtype.

    For a width of 640, as Gemma-3-270M has it, that is 25.25 in place of 25.298.
    """

    def __call__(self, inputs: mx.array, cache: Any = None, input_embeddings: mx.array | None = None) -> mx.array:
        embeddings = self.embed_tokens(inputs) if input_embeddings is None else input_embeddings
        factor = mx.array(self.args.hidden_size**0.5)
        rounded = factor.astype(mx.bfloat16)  # what mlx-lm multiplies with
        if embeddings.dtype != mx.bfloat16:
            embeddings = embeddings * (factor / rounded).astype(embeddings.dtype)
        return super().__call__(inputs, cache, embeddings)


class _Gemma2Attention(Attention):
    """Attention with a mask for each row; mlx-lm takes the rows for key heads where several decode together."""

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
        if mask is not None and mask.ndim == 4 and self.repeats > 1:  # [B, 1, L, S] beside scores [B, K, r, L, S]
            mask = mask[:, :, None]
        return super().__call__(x, mask, cache)
