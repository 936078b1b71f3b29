"""The batch and the settings on which our loss and TRL's are compared, and our side of the comparison.

The batch is made to bite: prompts of different lengths, a row that was cut and masked whole, old and reference
log-probabilities away from the policy's so that clipping and KL act, advantages of both signs.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
from support.paths import FIXTURES

from mlx_grpo import grpo
from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import make_batch
from mlx_grpo.data.types import Batch, Prompt, Rollout
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.policy import Policy
from mlx_grpo.training.state import TrainState
from mlx_grpo.training.update import FixedLogps, loss_gradients, score_batch

FIXTURE = FIXTURES / "trl"
MAX_COMPLETION_LENGTH = 12
PROMPT_LENGTHS = [9, 4]
COMPLETION_LENGTHS = [[5, 7, 7, 3], [1, 7, 6, 4]]
CUT = (0, 2)  # group and row that did not end in the stop token
STOP = 2
VOCABULARY = 48


def cases() -> list[dict[str, Any]]:
    """Settings by config key, each a case: every loss type with each option that means something to it."""
    found = []
    for loss_type, level in itertools.product(
        ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo"), ("token", "sequence")
    ):
        base: dict[str, Any] = {"loss_type": loss_type, "importance_sampling_level": level}
        base["epsilon_high"] = 1.2 if loss_type == "cispo" else 0.28
        found += [
            base,
            {**base, "beta": 0.1, "use_bias_correction_kl": False},
            {**base, "beta": 0.1, "use_bias_correction_kl": True},
            {**base, "top_entropy_quantile": 0.4, "beta": 0.05},
            {**base, "epsilon": 0.05, "temperature": 0.7},
            {**base, "on_policy": True, "beta": 0.1},
        ]
        if loss_type not in ("cispo", "sapo"):
            found.append({**base, "delta": 1.5})
    return found


def name_of(case: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in case.items())


def rollouts() -> list[Rollout]:
    """Eight completions of two prompts, from a fixed generator."""
    rng = np.random.default_rng(11)
    made = []
    for group, length in enumerate(PROMPT_LENGTHS):
        prompt = Prompt(str(group), "", tuple(rng.integers(3, VOCABULARY, length).tolist()))
        for row, size in enumerate(COMPLETION_LENGTHS[group]):
            ids = rng.integers(3, VOCABULARY, size).tolist()
            cut = (group, row) == CUT
            made.append(Rollout(prompt, tuple(ids if cut else [*ids[:-1], STOP]), "", "length" if cut else "stop"))
    return made


ADVANTAGES = np.array([1.3, -0.7, 0.4, -1.1, 0.9, -0.2, 1.8, -1.5], np.float32)


def shifted(logps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Old and reference log-probabilities [N, T] at fixed distances from the policy's."""
    rng = np.random.default_rng(5)
    return tuple((logps + rng.normal(0, scale, logps.shape)).astype(np.float32) for scale in (0.3, 0.5))


def config_of(case: dict[str, Any]) -> Config:
    """A case as a configuration of ours."""
    settings = {key: value for key, value in case.items() if key != "on_policy"}
    return validate(
        {
            "model": "none",
            "fine_tune_type": "full",
            "mask_truncated_completions": True,
            "max_completion_length": MAX_COMPLETION_LENGTH,
            "num_generations": 4,
            **settings,
        }
    )


def load_state(folder: Path, config: Config) -> TrainState:
    """The fixture's model with every weight trained; no tokenizer is needed."""
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    return TrainState(Policy(model, None, ModelFolder.read(folder)), config, None, optim.SGD(0.0), None)


def batch_of(config: Config) -> Batch:
    return make_batch(rollouts(), mx.array(ADVANTAGES), config.mask_truncated_completions)


def ours(
    folder: Path, case: dict[str, Any], old: np.ndarray, reference: np.ndarray, rows: int = 4
) -> tuple[float, dict[str, np.ndarray], dict[str, float]]:
    """Our loss, gradients by parameter name, and metrics for a case; old and reference are [N, T]."""
    config = config_of({**case, "micro_batch_size": rows})
    state, batch = load_state(folder, config), batch_of(config)
    width = batch.mask.shape[1]

    def padded(values: np.ndarray) -> mx.array:
        return mx.array(np.pad(values, ((0, 0), (0, width - values.shape[1]))))

    uncertain = score_batch(state, batch).entropies
    logps = FixedLogps(
        old=None if case.get("on_policy") else padded(old), reference=padded(reference) if config.beta else None
    )
    gradients, metrics = loss_gradients(
        state,
        batch,
        logps,
        None
        if config.top_entropy_quantile == 1
        else grpo.high_entropy_mask(uncertain, batch.mask, config.top_entropy_quantile),
    )
    return metrics["loss"], {name: np.array(g) for name, g in tree_flatten(gradients)}, metrics


def fingerprint(gradient: np.ndarray) -> list[float]:
    """Three numbers that no other gradient is likely to share: largest entry, and two projections."""
    flat = gradient.astype(np.float64).ravel()
    place = np.arange(flat.size)
    return [float(np.abs(flat).max()), float(flat @ np.cos(place)), float(flat @ np.sin(1.7 * place))]


def trained_parameters(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: np.array(w) for name, w in tree_flatten(module.trainable_parameters())}
