"""The device that MLX computes on: its dtype, its memory limits, and whether long work on it must be split.

Decisions are functions of the report of `mx.device_info()`, so they can be tested for devices that are not at hand.

1. bfloat16. Apple GPUs multiply it in hardware from the M3 on (generation 15 of `applegpu_gNN`); on the M1 and M2
   Metal emulates it: float16 generated 1.6 times as fast on an M2 Ultra (ml-explore/mlx-examples#186).
2. The wired limit is the working set that Metal recommends, as in mlx-lm; the cache of freed buffers, which MLX
   lets grow to as much as 1.5 times that, gets half of it.
3. macOS kills a GPU's command buffer that keeps the display waiting ("Impacting Interactivity", ml-explore/mlx#3267).
   MLX begins a new buffer after 40 or 50 operations or megabytes of whatever is evaluated. This package bounds
   each operation (the head by 512 positions, attention by 256 queries, a prompt's prefill by 512 tokens) and, on
   Metal, evaluates each micro-batch by itself: `micro_batch_size` sets how long one evaluation takes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
"""MLX's dtype for each of `DTYPE_NAMES`."""

Info = Mapping[str, str | int]
"""The report of `mx.device_info()`."""

FIRST_WITH_BFLOAT16 = {"metal": 15, "cuda": 8}
"""The first GPU generation that multiplies bfloat16 in hardware: Apple's M3, NVIDIA's compute capability 8.0."""


@dataclass(frozen=True, slots=True)
class Device:
    """The device that MLX computes on; sizes in bytes, None if MLX does not report them."""

    backend: Literal["metal", "cuda", "cpu"]
    name: str
    generation: int | None
    """Of an Apple GPU (13 is the M1, 16 the M4), or a CUDA device's major compute capability."""
    memory: int | None
    working_set: int | None
    """The most that Metal recommends to use: about 70% of a 16 GB Mac's memory, 80 to 85% of larger ones'."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes that MLX keeps resident, and bytes of freed buffers that it keeps for reuse."""

    wired: int
    cache: int


def describe(info: Info) -> Device:
    """Read the device from a report of MLX."""
    name, architecture = str(info.get("device_name", "unknown")), str(info.get("architecture", ""))
    if "max_recommended_working_set_size" in info:
        apple = re.match(r"applegpu_g(\d+)", architecture)
        generation = int(apple[1]) if apple else None
        working_set = int(info["max_recommended_working_set_size"])
        return Device("metal", name, generation, int(info["memory_size"]), working_set)
    if "compute_capability_major" in info:
        return Device("cuda", name, int(info["compute_capability_major"]), int(info["total_memory"]), None)
    return Device("cpu", name, None, None, None)


def this_device() -> Device:
    """Return the device that MLX computes on by default."""
    return describe(mx.device_info())


def physical_memory() -> int:
    """Return all of the machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def auto_dtype(device: Device) -> tuple[str, str]:
    """Return the dtype that `auto` chooses, and the reason.

    On a device that emulates bfloat16, float16 has its size and float32's speed. Its range ends at 65,504, but it
    rounds more finely: on SmolLM2-135M a LoRA's gradient was 0.7% from float32's in float16, 4.9% in bfloat16.
    """
    if device.backend == "cpu":
        return "float32", "CPUs are slow in half precision"
    if device.generation is None:
        return "float32", "this GPU's generation is unknown, and every GPU multiplies float32"
    if device.generation >= FIRST_WITH_BFLOAT16[device.backend]:
        return "bfloat16", "this GPU multiplies it in hardware"
    return "float16", "this GPU emulates bfloat16; set dtype: float32 if a run's figures are not finite"


def memory_limits(device: Device) -> Limits | None:
    """Return the limits to set on a Mac's GPU; None elsewhere, where MLX's own are right."""
    if device.working_set is None:
        return None
    return Limits(wired=device.working_set, cache=device.working_set // 2)


def set_memory_limits() -> Limits | None:
    """Set this device's limits; before macOS 15 MLX ignores the wired one."""
    limits = memory_limits(this_device())
    if limits is not None:
        mx.set_wired_limit(limits.wired)
        mx.set_cache_limit(limits.cache)
    return limits


def splits_evaluations(device: Device) -> bool:
    """Return True if long work must be evaluated in parts even at a cost: a Mac's GPU draws the display as well."""
    return device.backend == "metal"


def multiplies_packed(device: Device) -> bool:
    """Return True if products with packed 4- or 8-bit weights are as fast as with plain ones.

    MLX's CPU back end takes them one by one: 512 rows by a 1536 x 576 matrix at 4 bits took 40 to 90 times as long as
    unpacking the matrix and multiplying by it.
    """
    return device.backend != "cpu"
