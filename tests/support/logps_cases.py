"""Random groups of rows, and their gradients."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_grpo.data.batch import make_batch
from mlx_grpo.data.types import Batch, Prompt, Rollout
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.policy import Policy


def make_rows(prompt_lengths: list[int], completion_lengths: list[int]) -> Batch:
    """Make groups of random prompts and completions of given lengths."""
    rng = np.random.default_rng(0)
    rows = []
    for i, length in enumerate(prompt_lengths):
        prompt = Prompt(str(i), "", tuple(rng.integers(0, 250, length).tolist()))
        rows += [Rollout(prompt, tuple(rng.integers(0, 250, n).tolist()), "", "stop") for n in completion_lengths]
    return make_batch(rows, mx.array(rng.normal(size=(len(prompt_lengths), len(completion_lengths)))))


def gradients(policy: Policy, batch: Batch, **options: object) -> dict[str, np.ndarray]:
    """Return the gradient of a loss on the batch's log-probabilities, by parameter."""

    def loss(part: Batch) -> mx.array:
        return -(score_tokens(policy.model, part, 0.7, **options).logps * part.advantages[:, None]).sum()

    _, result = nn.value_and_grad(policy.model, loss)(batch)
    return {name: np.array(gradient) for name, gradient in tree_flatten(result)}


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Fail if a gradient differs from the expected one, or if that one is zero."""
    for name, gradient in expected.items():
        np.testing.assert_allclose(actual[name], gradient, atol=1e-4 * np.abs(gradient).max(), err_msg=name)
        assert np.abs(gradient).max() > 0, name
