"""Exponentials and SwiGLU through `mx.power` equal MLX's own, with their gradients."""

from __future__ import annotations

import sys
from pathlib import Path

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.activations import swiglu as library_swiglu
from support.tiny_models import tiny_policy

from mlx_grpo.backend import exponential
from mlx_grpo.backend.exponential import exp, swiglu

RNG = np.random.default_rng(0)


@pytest.fixture(params=[True, False], ids=["power", "exp"])
def slow_exp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(exponential, "SLOW_EXP", request.param)
    return request.param


@pytest.mark.usefixtures("slow_exp")
def test_exp_is_within_two_millionths_of_the_exact_one_over_all_of_float32():
    x = np.linspace(-85, 85, 10_001, dtype=np.float32)
    np.testing.assert_allclose(np.array(exp(mx.array(x))), np.exp(x.astype(np.float64)), rtol=6e-6)
    near = np.linspace(-20, 20, 10_001, dtype=np.float32)
    np.testing.assert_allclose(np.array(exp(mx.array(near))), np.exp(near.astype(np.float64)), rtol=2e-6)
    assert exp(mx.array([-1e30, -np.inf, 0.0, 1e30])).tolist() == [0, 0, 1, np.inf]


@pytest.mark.usefixtures("slow_exp")
def test_gradient_of_exp_is_exp_itself():
    x = mx.array([-100.0, -3.0, 0.0, 2.0])
    gradient = mx.grad(lambda x: exp(x).sum())(x)
    np.testing.assert_allclose(np.array(gradient), np.array(exp(x)), rtol=1e-6)


def test_exp_keeps_half_precision(slow_exp: bool):
    assert exp(mx.zeros(3, dtype=mx.float16)).dtype == mx.float16


@pytest.mark.usefixtures("slow_exp")
def test_swiglu_and_its_gradients_equal_the_ones_of_mlx_lm():
    gate, x, cotangent = (mx.array(RNG.normal(size=(64, 96)).astype(np.float32)) for _ in range(3))
    gate[0, :4] = mx.array([-200.0, -50.0, 50.0, 200.0])
    ours, theirs = mx.vjp(swiglu, [gate, x], [cotangent]), mx.vjp(library_swiglu, [gate, x], [cotangent])
    for actual, expected in zip((ours[0][0], *ours[1]), (theirs[0][0], *theirs[1]), strict=True):
        np.testing.assert_allclose(np.array(actual), np.array(expected), rtol=2e-6, atol=1e-5)


@pytest.mark.usefixtures("slow_exp")
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_swiglu_is_mlx_lms_own_in_half_precision(dtype: mx.Dtype):
    gate, x = (mx.array(RNG.normal(size=(8, 16))).astype(dtype) for _ in range(2))
    ours, theirs = swiglu(gate, x), library_swiglu(gate, x)
    assert ours.dtype == dtype
    assert mx.array_equal(ours, theirs)


@pytest.mark.skipif(not exponential.SLOW_EXP, reason="MLX's own exponential is fast here")
@pytest.mark.parametrize("folder", ["tiny_qwen3", "tiny_llama"])
def test_loaded_models_use_the_fast_swiglu(folder: str, request: pytest.FixtureRequest):
    folder_path: Path = request.getfixturevalue(folder)
    model = tiny_policy(folder_path).model
    assert sys.modules[type(model.layers[0]).__module__].swiglu is swiglu
