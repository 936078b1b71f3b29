"""Random groups of rows, and their gradients."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_grpo.data.batch import make_batch
from mlx_grpo.data.types import Batch, Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.models.logps import score_tokens, score_tree
from mlx_grpo.models.policy import Policy
from mlx_grpo.models.prefix import Chain
from mlx_grpo.models.tree import token_tree
from mlx_grpo.training.accumulate import accumulate


def make_rows(prompt_lengths: list[int], completion_lengths: list[int]) -> Batch:
    """Make groups of random prompts and completions of given lengths."""
    rng = np.random.default_rng(0)
    rows = []
    for i, length in enumerate(prompt_lengths):
        prompt = Prompt(str(i), "", tuple(rng.integers(0, 250, length).tolist()))
        rows += [Rollout(prompt, tuple(rng.integers(0, 250, n).tolist()), "", "stop") for n in completion_lengths]
    return make_batch(rows, mx.array(rng.normal(size=(len(prompt_lengths), len(completion_lengths)))))


def gradients(policy: Policy, batch: Batch, *, share: bool = True, **options: Any) -> dict[str, np.ndarray]:
    """Return the gradient of a loss on the batch's log-probabilities, by parameter, as training takes it."""

    def loss(part: Batch, chain: Chain = ()) -> tuple[mx.array, ...]:
        return (-(score_tokens(policy.model, part, 0.7, chain).logps * part.advantages[:, None]).sum(),)

    rows = options.pop("rows", None)
    _, result = accumulate(policy.model, loss, token_tree(batch, rows, share=share), **options)
    return {name: np.array(gradient) for name, gradient in tree_flatten(result)}


def logps(policy: Policy, batch: Batch, *, share: bool = True, temperature: float = 1.0) -> np.ndarray:
    """Return the log-probabilities [B, T] of a batch's tokens, as the reference takes them."""
    tree = token_tree(batch, share=share)
    parts, scored = list(tree.every_part()), score_tree(policy.model, tree, temperature)
    return np.array(Ranks().assemble(parts, [scores.logps for scores in scored], batch.mask.shape))


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Fail if a gradient differs from the expected one, or if that one is zero."""
    for name, gradient in expected.items():
        np.testing.assert_allclose(actual[name], gradient, atol=1e-4 * np.abs(gradient).max(), err_msg=name)
        assert np.abs(gradient).max() > 0, name


def count_tokens(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the number of tokens in each call of the model's layers from now on."""
    passes: list[int] = []
    forward = type(model.model).__call__

    def counted(layers: nn.Module, ids: mx.array, *args: object) -> mx.array:
        passes.append(ids.size)
        return forward(layers, ids, *args)

    monkeypatch.setattr(type(model.model), "__call__", counted)
    return passes
