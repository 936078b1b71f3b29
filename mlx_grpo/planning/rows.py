"""How many rows to decode together, by the memory that is free."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_grpo.backend.device import this_device
from mlx_grpo.models.head import text_model
from mlx_grpo.planning.activations import FP32
from mlx_grpo.planning.architecture import head_size, norm_dtype, state_bytes
from mlx_grpo.planning.memory import SAMPLER_ARRAYS
from mlx_grpo.planning.plan import available_memory

MOST_ROWS = {"cpu": 64, "metal": 128, "cuda": 128}
"""Beyond these a row costs about as much as in a batch of its own: products are bound by operations, not by memory."""

FREE_SHARE = 0.5
"""The share of the free memory that rows may take; the rest serves prompts, buffers and other programs."""


def rows_that_fit(model: nn.Module, tokens: int, limit: int | None = None, processes: int = 1) -> int:
    """Return how many rows of up to `tokens` tokens, prompt and completion, decode together; at least 1.

    The memory is that of the device without what MLX holds, divided by the `processes` of this machine. `limit` is the
    most that the user allows; None stands for the device's own.
    """
    most = limit or MOST_ROWS[this_device().backend]
    free = FREE_SHARE * (available_memory() - mx.get_active_memory()) / processes
    return max(1, min(most, int(free / row_bytes(model, tokens))))


def row_bytes(model: nn.Module, tokens: int) -> int:
    """Return the bytes of a row of so many tokens: its keys and values, its recurrent states, and its logits."""
    args = text_model(model).args
    heads = args.num_key_value_heads or args.num_attention_heads
    keys_values = 2 * heads * head_size(model) * norm_dtype(model).size * len(model.layers)
    states = sum(map(state_bytes, model.layers))
    return tokens * keys_values + states + SAMPLER_ARRAYS * args.vocab_size * FP32
