"""On Linux without a GPU, MLX multiplies with a real BLAS."""

from __future__ import annotations

import time

import pytest

import mlx_grpo
from mlx_grpo.cpu import load_openblas, on_linux_cpu

# isort: split
import mlx.core as mx

needs_linux_cpu = pytest.mark.skipif(not on_linux_cpu(), reason="concerns MLX's CPU back end on Linux")


@needs_linux_cpu
def test_an_openblas_is_found_and_a_product_is_faster_than_reference_blas_ever_is():
    assert mlx_grpo.BLAS is not None
    a = mx.random.normal((768, 768))
    mx.eval(a @ a)
    started = time.perf_counter()
    mx.eval([a @ a for _ in range(5)])
    speed = 5 * 2 * 768**3 / (time.perf_counter() - started) / 1e9
    assert speed > 8  # GFLOP/s; the reference BLAS reaches 2 to 4, an OpenBLAS on two idle cores 150


def test_a_path_that_is_no_library_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLX_GRPO_BLAS", __file__)
    assert load_openblas() != __file__
