"""A model's head: from the hidden states after its last layer to the logits."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import mlx.core as mx
import mlx.nn as nn

from mlx_grpo.errors import UserError
from mlx_grpo.models.checks import SUPPORTED

NESTED = ("qwen3_5",)
"""Families with a text model inside one that also reads images, which are known to train and to export."""

SIZES = {"hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size"}
"""The names under which a model's sizes are counted."""

Projection = Callable[[mx.array], mx.array]
"""Hidden states to logits."""


def text_model(model: nn.Module) -> nn.Module:
    """Return the part of a model that has layers, head and sizes of its own: all of it, unless it also reads images."""
    return model.language_model if model.model_type in NESTED else model


def output_head(model: nn.Module) -> tuple[nn.Module, Projection]:
    """Return the module that holds the head's weights, and the model's own way from hidden states to logits.

    The way includes all that follows the product with the weights: Granite scales its logits, Gemma 2 caps them.
    """
    text = text_model(model)
    head = copy(text)  # shares its modules and their arrays
    head.model = copy(text.model)
    head.model.__class__ = _Passing
    return text.lm_head if "lm_head" in text else text.model.embed_tokens, head


class _Passing(nn.Module):
    """Layers that return the hidden states that they are given."""

    def __call__(self, hidden: mx.array, *_: object, **__: object) -> mx.array:
        return hidden


def check_layout(model: nn.Module) -> None:
    """Raise UserError if a model keeps its layers elsewhere than in `model.model`, or has other names for its sizes."""
    text = text_model(model)
    if "model" not in text or not vars(text.args).keys() >= SIZES:
        raise _unsupported(model, "its layers are not in model.model, or its sizes have other names")


def check_head(model: nn.Module) -> None:
    """Raise UserError if a model's logits are not its head on the hidden states of `model.model`.

    Trained on other log-probabilities than its own, it would go wrong in silence.
    """
    ids = mx.array([[0, 1, 2]])
    try:
        _, project = output_head(model)
        same = mx.allclose(project(model.model(ids)), model(ids), rtol=1e-3, atol=1e-3).item()
    except AttributeError:
        same = False
    if not same:
        raise _unsupported(model, "its logits are not a head on model.model's hidden states")


def _unsupported(model: nn.Module, reason: str) -> UserError:
    return UserError(f"model: the {model.model_type} architecture is not supported: {reason}; {SUPPORTED}")
