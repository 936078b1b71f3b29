"""On Linux without a GPU, MLX multiplies with a real BLAS."""

from __future__ import annotations

import ctypes
import time

import pytest

from mlx_grpo.backend import openblas
from mlx_grpo.backend.openblas import AVX512, core_name, kernels_for, load_openblas, on_linux_cpu

# isort: split
import mlx.core as mx

needs_linux_cpu = pytest.mark.skipif(not on_linux_cpu(), reason="concerns MLX's CPU back end on Linux")


@needs_linux_cpu
def test_openblas_multiplies_faster_than_the_reference_blas():
    assert openblas.BLAS is not None
    a = mx.random.normal((768, 768))
    mx.eval(a @ a)
    started = time.perf_counter()
    mx.eval([a @ a for _ in range(5)])
    speed = 5 * 2 * 768**3 / (time.perf_counter() - started) / 1e9
    assert speed > 8  # GFLOP/s; the reference BLAS reaches 2 to 4, an OpenBLAS on two idle cores 150


def test_a_path_that_is_no_library_is_skipped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLX_GRPO_BLAS", __file__)
    assert load_openblas() != __file__


@needs_linux_cpu
def test_old_openblas_is_loaded_with_the_kernels_of_the_cpus_instructions():
    with open("/proc/cpuinfo") as file:
        if " avx2 " not in file.read():
            pytest.skip("the CPU has no AVX2")
    assert core_name(ctypes.CDLL(openblas.BLAS)) in {"Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids"}


@pytest.mark.parametrize(
    ("chosen", "flags", "kernels"),
    [
        ("Prescott", {"avx2", "fma", *AVX512}, "SkylakeX"),  # Intel's of 2023, to an OpenBLAS of 2021
        ("Barcelona", {"avx2", "fma"}, "Haswell"),
        ("SkylakeX", {"avx2", "fma", *AVX512}, None),
        ("Zen", {"avx2", "fma", *AVX512}, None),
        ("Prescott", {"sse3"}, None),
        ("ARMV8", set(), None),
    ],
)
def test_wider_kernels_are_requested_only_if_openblas_chose_narrower_ones(chosen, flags, kernels):
    assert kernels_for(chosen, flags) == kernels
