"""Mixtures of experts: mlx-lm stacks the experts of a layer into one array, which no export can write.

So their weights stay as they are, and attention, router and dense layers learn.
"""

from __future__ import annotations

import mlx.nn as nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.lora import LoRASwitchLinear

from mlx_grpo.errors import UserError


def has_experts(model: nn.Module) -> bool:
    """Return True if a model has stacked experts."""
    return any(isinstance(module, SwitchLinear | QuantizedSwitchLinear) for module in model.modules())


def lora_keys(model: nn.Module, keys: list[str] | None) -> list[str] | None:
    """Return the layers to adapt, by their names within a block; None for all, which mlx-lm finds itself."""
    if keys is not None or not has_experts(model):
        return keys
    names = {
        name.removesuffix(".linear")  # where an adapter keeps the layer that it adapts
        for layer in model.layers
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear | nn.QuantizedLinear)
    }
    return sorted(names)


def check_frozen_experts(model: nn.Module, fine_tune_type: str) -> None:
    """Raise UserError if experts would learn."""
    if fine_tune_type == "full" and has_experts(model):
        raise UserError(
            f"fine_tune_type: full, but {model.model_type} is a mixture of experts, and no export can write trained "
            "experts; use fine_tune_type lora"
        )
    adapted = {
        name for layer in model.layers for name, module in layer.named_modules() if isinstance(module, LoRASwitchLinear)
    }
    if adapted:
        raise UserError(
            f"lora.keys: {', '.join(sorted(adapted))}: no export can write adapted experts; name other layers, or "
            "leave lora.keys out for all others"
        )
