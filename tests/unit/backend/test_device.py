"""Decisions about a device, on what MLX really reports of some: dtype, limits, and whether long work is split."""

from __future__ import annotations

from pathlib import Path

from support.devices import CPU, H100, M1, M4_PRO, M5_MAX, T4, VIRTUAL_MAC

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import pytest
from support.tiny_models import tiny_config
from support.tiny_runs import make_state, paid_for, take_step

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
def test_the_dtype_is_bfloat16_only_where_the_hardware_multiplies_it(info: dict, dtype: str):
    assert auto_dtype(describe(info))[0] == dtype


def test_a_mac_wires_what_metal_recommends_and_caches_half_of_it():
    assert memory_limits(describe(M1)) == Limits(wired=11453251584, cache=5726625792)
    for info in (M1, M4_PRO, M5_MAX):
        limits = memory_limits(describe(info))
        assert limits.wired < info["memory_size"]  # MLX refuses more, and the rest is the system's
        assert limits.wired <= info["max_recommended_working_set_size"]


@pytest.mark.parametrize("info", [H100, CPU])
def test_elsewhere_mlxs_own_limits_stay(info: dict):
    assert memory_limits(describe(info)) is None


def test_a_device_is_described_by_what_mlx_reports():
    mac, cuda, cpu = describe(M4_PRO), describe(H100), describe(CPU)
    assert (mac.backend, mac.name, mac.generation, mac.memory // GIB) == ("metal", "Apple M4 Pro", 16, 48)
    assert (cuda.backend, cuda.generation, cuda.memory) == ("cuda", 9, 85520809984)
    assert (cpu.backend, cpu.generation, cpu.memory) == ("cpu", None, None)
    assert describe(VIRTUAL_MAC).backend == "metal"


def test_only_a_gpu_that_draws_a_macs_display_has_its_work_split():
    assert [splits_evaluations(describe(info)) for info in (M1, H100, CPU)] == [True, False, False]


def test_only_a_cpu_unpacks_quantized_weights():
    assert [multiplies_packed(describe(info)) for info in (M1, H100, CPU)] == [True, True, False]


@pytest.mark.skipif(mx.metal.is_available(), reason="concerns devices other than a Mac's")
def test_setting_limits_here_changes_nothing():
    before = mx.set_cache_limit(12345)
    assert set_memory_limits() is None
    assert mx.set_cache_limit(before) == 12345


@pytest.mark.skipif(not mx.metal.is_available(), reason="needs a Mac's GPU")
def test_setting_limits_on_a_mac_sets_them():
    limits = set_memory_limits()
    assert mx.set_wired_limit(limits.wired) == limits.wired
    assert mx.set_cache_limit(limits.cache) == limits.cache


def test_this_device_is_described():
    device = this_device()
    assert device.backend in ("metal", "cuda", "cpu")
    assert auto_dtype(device)[1]


def test_training_starts_without_the_buffers_of_generation(tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch):
    state = make_state(tiny_config(tiny_qwen3, reward=paid_for("share_of_letters")))
    prompts = [make_prompt({"id": "0", "prompt": "say something"}, state.policy.tokenizer)]
    held = []
    score_groups, update_policy = trainer.score_groups, trainer.update_policy

    def generation(*arguments: object) -> Scores:
        result = score_groups(*arguments)
        held.append(mx.get_cache_memory())
        return result

    def training(*arguments: object) -> dict:
        held.append(mx.get_cache_memory())
        return update_policy(*arguments)

    monkeypatch.setattr(trainer, "score_groups", generation)
    monkeypatch.setattr(trainer, "update_policy", training)
    take_step(state, prompts, 0)
    after_generation, before_training = held
    assert before_training < after_generation / 10
