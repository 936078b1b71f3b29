"""Decisions about a device, from real reports of MLX: dtype, limits, and whether long work is split."""

from __future__ import annotations

from pathlib import Path

from support.devices import CPU, H100, M1, M4_PRO, M5_MAX, T4, VIRTUAL_MAC

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import pytest
from support.tiny_models import tiny_config
from support.tiny_runs import make_state, reward_by, take_step

from mlx_grpo.backend.device import (
    Limits,
    auto_dtype,
    describe,
    memory_limits,
    multiplies_packed,
    set_memory_limits,
    splits_evaluations,
    this_device,
)
from mlx_grpo.data.dataset import make_prompt
from mlx_grpo.rewards import Scores
from mlx_grpo.training import trainer
from mlx_grpo.training.update import LossGradients

GIB = 2**30


@pytest.mark.parametrize(
    ("info", "dtype"),
    [
        (M1, "float16"),
        ({**M1, "architecture": "applegpu_g14s"}, "float16"),  # M2
        ({**M1, "architecture": "applegpu_g15d"}, "bfloat16"),  # M3 Ultra
        (M4_PRO, "bfloat16"),
        (M5_MAX, "bfloat16"),
        (VIRTUAL_MAC, "float32"),
        (H100, "bfloat16"),
        (T4, "float16"),
        (CPU, "float32"),
    ],
)
def test_auto_dtype_is_bfloat16_only_where_the_hardware_multiplies_it(info: dict, dtype: str):
    assert auto_dtype(describe(info))[0] == dtype


def test_mac_limits_are_the_recommended_working_set_and_half_of_it_for_the_cache():
    assert memory_limits(describe(M1)) == Limits(wired=11453251584, cache=5726625792)
    for info in (M1, M4_PRO, M5_MAX):
        limits = memory_limits(describe(info))
        assert limits.wired < info["memory_size"]  # MLX refuses more, and the rest is the system's
        assert limits.wired <= info["max_recommended_working_set_size"]


@pytest.mark.parametrize("info", [H100, CPU])
def test_other_devices_keep_mlxs_own_limits(info: dict):
    assert memory_limits(describe(info)) is None


def test_describe_reads_backend_generation_and_memory():
    mac, cuda, cpu = describe(M4_PRO), describe(H100), describe(CPU)
    assert (mac.backend, mac.name, mac.generation, mac.memory // GIB) == ("metal", "Apple M4 Pro", 16, 48)
    assert (cuda.backend, cuda.generation, cuda.memory) == ("cuda", 9, 85520809984)
    assert (cpu.backend, cpu.generation, cpu.memory) == ("cpu", None, None)
    assert describe(VIRTUAL_MAC).backend == "metal"


def test_only_a_macs_gpu_splits_evaluations():
    assert [splits_evaluations(describe(info)) for info in (M1, H100, CPU)] == [True, False, False]


def test_only_a_cpu_does_not_multiply_packed_weights():
    assert [multiplies_packed(describe(info)) for info in (M1, H100, CPU)] == [True, True, False]


@pytest.mark.skipif(mx.metal.is_available(), reason="concerns devices other than a Mac's")
def test_setting_limits_off_a_mac_changes_nothing():
    before = mx.set_cache_limit(12345)
    assert set_memory_limits() is None
    assert mx.set_cache_limit(before) == 12345


@pytest.mark.skipif(not mx.metal.is_available(), reason="needs a Mac's GPU")
def test_setting_limits_on_a_mac_sets_them():
    limits = set_memory_limits()
    assert mx.set_wired_limit(limits.wired) == limits.wired
    assert mx.set_cache_limit(limits.cache) == limits.cache


def test_this_device_has_a_backend_and_a_reason_for_its_dtype():
    device = this_device()
    assert device.backend in ("metal", "cuda", "cpu")
    assert auto_dtype(device)[1]


def test_training_starts_after_the_buffers_of_generation_are_freed(tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch):
    state = make_state(tiny_config(tiny_qwen3, reward=reward_by("share_of_letters")))
    prompts = [make_prompt({"id": "0", "prompt": "say something"}, state.policy.tokenizer)]
    cached = []
    score_groups, loss_gradients = trainer.score_groups, trainer.loss_gradients

    def generation(*arguments: object) -> Scores:
        result = score_groups(*arguments)
        cached.append(mx.get_cache_memory())
        return result

    def training(*arguments: object) -> LossGradients:
        cached.append(mx.get_cache_memory())
        return loss_gradients(*arguments)

    monkeypatch.setattr(trainer, "score_groups", generation)
    monkeypatch.setattr(trainer, "loss_gradients", training)
    take_step(state, prompts, 0)
    after_generation, before_training = cached
    assert before_training < after_generation / 10
