"""AdamW as PyTorch's, clipping, and the learning rate by step."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_grpo.training.optimizer import apply_update, learning_rate_at, make_optimizer


class One(nn.Module):
    def __init__(self, weight: list[float]):
        super().__init__()
        self.weight = mx.array(weight)


def rates(schedule: str, warmup: int = 0) -> list[float]:
    options = {"peak": 1.0, "schedule": schedule, "warmup_steps": warmup, "max_steps": 4}
    return [learning_rate_at(step, **options) for step in range(4)]


def test_learning_rates_of_each_schedule():
    assert rates("constant") == [1, 1, 1, 1]
    assert rates("linear") == [1, 0.75, 0.5, 0.25]
    assert rates("cosine") == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert rates("linear", warmup=2) == pytest.approx([1 / 3, 2 / 3, 1, 0.5])


def test_first_step_moves_by_the_full_rate_because_the_bias_is_corrected():
    model = One([1.0, -1.0])
    optimizer = make_optimizer(beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0)
    apply_update(model, optimizer, {"weight": mx.array([0.3, -0.001])}, 0.01, 0.0)
    np.testing.assert_allclose(np.array(model.weight), [0.99, -0.99], rtol=1e-5)


def test_norm_is_returned_before_clipping_and_clipping_scales_all_gradients():
    model = One([0.0, 0.0])
    optimizer = make_optimizer(beta1=0.9, beta2=0.999, epsilon=1.0, weight_decay=0.0)  # a step about lr * gradient
    norm = apply_update(model, optimizer, {"weight": mx.array([3.0, 4.0])}, 1.0, 0.1)
    assert norm == pytest.approx(5.0)
    clipped = np.array([0.06, 0.08])
    np.testing.assert_allclose(np.array(model.weight), -clipped / (clipped + 1), rtol=1e-4)


def test_three_steps_equal_pytorchs_adamw():
    torch = pytest.importorskip("torch", reason="needs torch as the oracle")
    settings = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6, "weight_decay": 0.1}
    model, optimizer = One([0.5, -2.0, 3.0]), make_optimizer(**settings)
    theirs = torch.nn.Parameter(torch.tensor([0.5, -2.0, 3.0]))
    adamw = torch.optim.AdamW([theirs], lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    for gradient in ([1.0, -2.0, 0.5], [0.1, 0.2, -0.3], [3.0, 0.0, 1.0]):
        theirs.grad = torch.tensor(gradient)
        norm = torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        adamw.step()
        assert apply_update(model, optimizer, {"weight": mx.array(gradient)}, 0.01, 1.0) == pytest.approx(norm.item())
    np.testing.assert_allclose(np.array(model.weight), theirs.detach().numpy(), rtol=1e-6)


def test_non_finite_gradient_changes_neither_weights_nor_moments():
    model = nn.Linear(2, 1, bias=False)
    optimizer = make_optimizer(beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.1)
    apply_update(model, optimizer, {"weight": mx.array([[1.0, 2.0]])}, 0.1, 1.0)
    before = dict(tree_flatten([model.parameters(), optimizer.state]))
    norm = apply_update(model, optimizer, {"weight": mx.array([[1.0, mx.nan]])}, 0.1, 1.0)
    assert math.isnan(norm)
    after = dict(tree_flatten([model.parameters(), optimizer.state]))
    assert all(mx.array_equal(after[name], value) for name, value in before.items())
