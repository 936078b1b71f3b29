"""The cheapest change to a configuration that makes a run fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.policy import outline
from mlx_grpo.planning.architecture import Architecture, count
from mlx_grpo.planning.memory import Workload, estimate

NOT_MEASURED: Mapping[str, float] = {}
"""The ratios of a run whose peaks are predicted alone."""


def cheapest_change(
    folder: ModelFolder, work: Workload, available: float, ratios: Mapping[str, float] = NOT_MEASURED
) -> str | None:
    """Return the least costly overrides that make a run fit, None if none of them does.

    `ratios` are measured to predicted peaks by phase, and scale each prediction.
    """

    @lru_cache
    def sizes(kind: str, bits: int | None) -> Architecture:
        changed = validate({**work.config.model_dump(), "fine_tune_type": kind})
        return count(outline(folder, changed, bits), folder, changed, bits)

    for overrides, bits in changes(work.config):
        if bits and (folder.is_packed or not work.fused):  # quantized already, or unpacked when loaded
            continue
        changed = overridden(work.config, overrides)
        needs = estimate(sizes(changed.fine_tune_type, bits), changed, work.lengths, work.fused)
        if max(peak * ratios.get(phase, 1) for phase, peak in needs.phases.items()) <= available:
            words = [f"{key}={str(value).lower()}" for key, value in overrides.items()]
            if bits:
                words.append(f"model=<the model in {bits} bits, by mlx_lm.convert -q>")
            return " ".join(words)
    return None


def overridden(config: Config, overrides: dict[str, Any]) -> Config:
    """Return the configuration with some keys replaced; `section.key` names a nested one."""
    values = config.model_dump()
    for key, value in overrides.items():
        section, _, name = key.rpartition(".")
        (values[section] if section else values)[name] = value
    return validate(values)


def changes(config: Config) -> Iterator[tuple[dict[str, Any], int | None]]:
    """Yield overrides and the base's bits, from the least to the most costly.

    The first ones cost only time and change nothing that is learned; the later ones change it.
    """
    group = config.micro_batch_size or config.num_generations
    # A whole group at once needs no sum of its parts' gradients, which for a full fine-tune takes more memory.
    others = [config.num_generations] if group < config.num_generations else []
    others += [group // 2**i for i in range(1, group.bit_length())]
    exact: list[dict[str, Any]] = [{}, *({"micro_batch_size": n} for n in others)]
    if not config.gradient_checkpointing:
        exact += [{"gradient_checkpointing": True, **change} for change in list(exact)]
    if config.warm_start.steps_to_train and config.warm_start.batch_size > 1:
        exact += [{**change, "warm_start.batch_size": 1} for change in list(exact)]
    fewer: dict[str, Any] = {"prompts_per_step": max(1, config.prompts_per_step // 2)}
    shorter: dict[str, Any] = {"max_completion_length": max(16, config.max_completion_length // 2)}
    lora: dict[str, Any] = {"fine_tune_type": "lora"} if config.fine_tune_type == "full" else {}
    for other, bits in (({}, None), (fewer, None), (lora, None), (lora, 8), (lora, 4), ({**lora, **shorter}, 4)):
        yield from (({**other, **change}, bits) for change in exact)
