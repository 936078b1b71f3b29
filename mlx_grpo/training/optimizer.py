"""AdamW with bias correction, gradient clipping, and a learning rate that is a pure function of the step."""

from __future__ import annotations

import math
from typing import Any, Literal

import mlx.nn as nn
import mlx.optimizers as optim

from mlx_grpo.config.schema import Config

Schedule = Literal["constant", "linear", "cosine"]


def make_optimizer(*, beta1: float, beta2: float, epsilon: float, weight_decay: float) -> optim.AdamW:
    """Return PyTorch's AdamW: decoupled weight decay, and bias correction (which MLX leaves off by default)."""
    return optim.AdamW(0.0, betas=[beta1, beta2], eps=epsilon, weight_decay=weight_decay, bias_correction=True)


def grpo_learning_rate(config: Config, step: int) -> float:
    """Return the learning rate of a GRPO step, as configured."""
    return learning_rate_at(
        step,
        peak=config.learning_rate,
        schedule=config.lr_scheduler_type,
        warmup_steps=config.warmup_steps,
        max_steps=config.max_steps,
    )


def learning_rate_at(step: int, *, peak: float, schedule: Schedule, warmup_steps: int, max_steps: int) -> float:
    """Return the rate of step 0, 1, ...: a linear rise over `warmup_steps`, then the schedule up to `max_steps`.

    Unlike in Hugging Face's schedulers the first warmup step's rate is not 0, which would waste the step.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return peak
    done = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return peak * (1 - done) if schedule == "linear" else peak * 0.5 * (1 + math.cos(math.pi * done))


def apply_update(
    model: nn.Module, optimizer: optim.AdamW, gradients: dict[str, Any], rate: float, max_grad_norm: float
) -> float:
    """Clip the gradients to `max_grad_norm` (0: don't), take one step, and return their norm before clipping.

    Where the norm is not finite no step is taken: a NaN in the moments would stay there.
    """
    clipped, total_norm = optim.clip_grad_norm(gradients, max_grad_norm or math.inf)
    norm = float(total_norm)
    if math.isfinite(norm):
        optimizer.learning_rate = rate
        optimizer.update(model, clipped)
    return norm
