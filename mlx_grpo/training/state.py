"""The state that a GRPO step reads and changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.optimizers as optim

from mlx_grpo.config.schema import Config
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.models.policy import Policy
from mlx_grpo.rewards import Reward
from mlx_grpo.training.optimizer import make_optimizer


@dataclass(slots=True)
class TrainState:
    """What one process holds of a run in training."""

    policy: Policy
    config: Config
    reward: Reward
    optimizer: optim.AdamW
    reference: dict[str, Any] | None
    """The trainable parameters at GRPO's first step; None when beta is 0 and no reference is needed."""
    ranks: Ranks = field(default_factory=Ranks)


def begin_grpo(state: TrainState) -> None:
    """Begin the GRPO phase: a fresh optimizer, and (where beta > 0) the present parameters as the reference."""
    state.optimizer = grpo_optimizer(state.config)
    state.reference = state.policy.model.trainable_parameters() if state.config.beta > 0 else None


def grpo_optimizer(config: Config) -> optim.AdamW:
    """Return the optimizer of the GRPO phase, with fresh moments."""
    return make_optimizer(
        beta1=config.adam_beta1,
        beta2=config.adam_beta2,
        epsilon=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )
