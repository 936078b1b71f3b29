"""`mlx-grpo plan`: will a run fit, how long will it take, and what is the cheapest change that makes it fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_grpo.backend.device import multiplies_packed, physical_memory, this_device
from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import dataset_files, make_prompt, read_rows
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import (
    TOKENIZER_FILES,
    Policy,
    compute_dtype,
    find_model,
    load_tokenizer_of,
    model_name,
    stores_packed,
)
from mlx_grpo.models.prefix import common_start
from mlx_grpo.planning.architecture import Architecture, count
from mlx_grpo.planning.flops import Shape, forward_flops, matrix_speed, training_flops
from mlx_grpo.planning.memory import Lengths, estimate
from mlx_grpo.planning.traffic import traffic

GB = 2**30
LONGEST_TEXTS = 8
"""Rows whose text is longest; one of them has the most tokens."""
LARGE_MAC = 36 * GB


def plan(
    config: Config, memory: str | None, prompt_tokens: int | None, gflops: float | None, machines: int = 1
) -> dict[str, Any]:
    """A run's memory, operations and hours, for a Mac with `memory` or, by default, for this machine.

    With several `machines`, each like it, also what they send each other. `gflops` is the speed to reckon with; by
    default a matrix product is timed here, which no step outruns. Raises UserError where neither a tokenizer nor
    `prompt_tokens` says how long the prompts are.
    """
    path = find_model(config.model, TOKENIZER_FILES)
    on_gpu = memory is not None or mx.default_device() == mx.Device(mx.gpu)
    if memory is not None and config.dtype == "auto":  # a Mac that is not here
        config = config.model_copy(update={"dtype": "bfloat16"})
    lengths = read_lengths(config, path) if prompt_tokens is None else given_lengths(config, prompt_tokens)
    sizes, model = count(path, config, packed=memory is not None or multiplies_packed(this_device()))
    needs = estimate(sizes, config, lengths, on_gpu)
    given = parse_memory(memory) if memory else None
    available = available_memory() if given is None else working_set(given)
    fits = needs.peak <= available
    speed = gflops * 1e9 if gflops else None if memory else matrix_speed(compute_dtype(config.dtype))
    return {
        "model": model_name(config.model),
        "fine_tune_type": config.fine_tune_type,
        "dtype": "float32" if sizes.full else str(compute_dtype(config.dtype)).rpartition(".")[2],
        "parameters": sizes.parameters,
        "trainable": sizes.trainable,
        "lengths": asdict(lengths),
        "prompts_per_step": config.prompts_per_step,
        "bytes": needs.parts,
        "phases": needs.phases,
        "peak": needs.peak,
        "peak_in": needs.where,
        "memory": given,
        "available": available,
        "fits": fits,
        "change": None if fits else cheapest_change(path, config, lengths, on_gpu, available),
        **time_needs(config, operations(model, config, lengths), speed, sizes.trainable, machines),
    }


def time_needs(
    config: Config, work: dict[str, float], speed: float | None, trainable: int, machines: int
) -> dict[str, Any]:
    """The `work` in operations, and at a speed [FLOP/s], where one is known, hours and what machines send."""
    step = speed and work["step_flops"] / speed
    return {
        **work,
        "gflops": speed and speed / 1e9,
        "hours": speed and work["run_flops"] / speed / 3600,
        "traffic": traffic(trainable, machines, step, config.num_iterations),
    }


def check_memory(
    config: Config,
    policy: Policy,
    prompts: Sequence[Prompt],
    note: Callable[[str], None],
    *,
    force: bool = False,
    processes: int = 1,
) -> None:
    """Note what a run will need before it takes it; raise UserError where it can't fit, unless `force`.

    `processes` of the run share this machine's memory.
    """
    fused = mx.default_device() == mx.Device(mx.gpu)
    texts = [prompt.columns["completion"] for prompt in prompts] if config.warm_start.steps_to_train else []
    lengths = measured_lengths(prompts, texts, policy.tokenizer)
    sizes, _ = count(policy.path, config, packed=multiplies_packed(this_device()))
    needs = estimate(sizes, config, lengths, fused)
    available = available_memory() / processes
    note(f"memory: {verdict(needs.peak, needs.where, available)}")
    if needs.peak > available and not force:
        change = cheapest_change(policy.path, config, lengths, fused, available)
        remedy = f"set {change}" if change else "take a smaller model"
        raise UserError(
            f"memory: {verdict(needs.peak, needs.where, available)}; {remedy}, or go on regardless with --force"
        )


def verdict(peak: float, where: str, available: float) -> str:
    """Whether it fits, in a line."""
    word = "fits" if peak <= available else "does not fit"
    return f"{peak / GB:.1f} GB predicted at the peak ({where}), {available / GB:.1f} GB available: {word}"


def parse_memory(text: str) -> int:
    """`16GB`, `16 GiB` or `16` as bytes; a Mac's memory is sold in GiB."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:g|gb|gib)?\s*", text.lower())
    if not found or not float(found[1]):
        raise UserError(f"--memory: {text!r} is no size; give one such as 16GB")
    return round(float(found[1]) * GB)


def working_set(memory: int) -> int:
    """What Metal recommends to stay below on a Mac of so much unified memory, the rest being left to macOS.

    Two thirds up to 36 GB and three quarters above, as Macs report `recommendedMaxWorkingSetSize` by default;
    newer versions of macOS give somewhat more.
    """
    return memory * 2 // 3 if memory <= LARGE_MAC else memory * 3 // 4


def available_memory() -> int:
    """This machine's: Metal's recommended working set, a GPU's memory, or all physical memory."""
    info = mx.device_info()
    for name in ("max_recommended_working_set_size", "total_memory"):
        if name in info:
            return info[name]
    return physical_memory()


def given_lengths(config: Config, prompt_tokens: int) -> Lengths:
    """Lengths where only the prompts' is known: completions to imitate count as long as sampled ones may be."""
    return Lengths(prompt_tokens, config.max_completion_length if config.warm_start.steps_to_train else 0)


def read_lengths(config: Config, path: Path) -> Lengths:
    """The longest lengths in the configured training data, by the model's own tokenizer."""
    if not (path / "tokenizer_config.json").is_file():
        raise UserError(f"model: {path} has no tokenizer to count the prompts with; give --prompt-tokens")
    tokenizer = load_tokenizer_of(path)
    rows = read_rows(dataset_files(config.data)[0])
    by_text = sorted(rows, key=lambda row: str(row["prompt"]))  # what the first and last share, all share
    chosen = [*longest(rows, lambda row: str(row["prompt"])), by_text[0], by_text[-1]]
    prompts = [make_prompt(row, tokenizer, config.data.enable_thinking) for row in chosen]
    texts = [str(row.get("completion", "")) for row in rows] if config.warm_start.steps_to_train else []
    return measured_lengths(prompts, texts, tokenizer)


def measured_lengths(prompts: Sequence[Prompt], completions: Sequence[str], tokenizer: TokenizerWrapper) -> Lengths:
    """The longest prompt, the longest completion to imitate with its stop token, and what all prompts begin with."""
    ids = [prompt.token_ids for prompt in prompts]
    imitated = [len(tokenizer.encode(text, add_special_tokens=False)) + 1 for text in longest(completions, str)]
    alike = common_start([mx.array(min(ids)), mx.array(max(ids))])  # what the first and last in order share, all do
    return Lengths(max(map(len, ids)), max(imitated, default=0), alike)


def longest(items: Sequence[Any], text: Any) -> list[Any]:
    """The few items whose text is longest."""
    return sorted(items, key=lambda item: len(text(item)))[-LONGEST_TEXTS:]


def operations(model: nn.Module, config: Config, lengths: Lengths) -> dict[str, float]:
    """Tokens and floating point operations of a step, and of the run, were all prompts and completions the longest."""
    shape = Shape(lengths.prompt, config.num_generations, config.max_completion_length)
    full = config.fine_tune_type == "full"
    forward, training = sum(forward_flops(model, shape)), training_flops(model, shape, full)
    again = forward if config.gradient_checkpointing else 0
    again_uncertain = (config.num_iterations - 1) * (config.top_entropy_quantile < 1)
    stem = sum(forward_flops(model, replace(shape, num_generations=1))) if config.branch_at else 0
    scored = (config.beta > 0) + (config.num_iterations > 1) + again_uncertain
    step = config.prompts_per_step * (stem + forward * (1 + scored) + config.num_iterations * (training + again))
    warm = Shape(lengths.prompt, 1, max(1, lengths.imitated))
    warm_step = config.warm_start.batch_size * training_flops(model, warm, full)
    completions = config.prompts_per_step * config.num_generations * config.max_completion_length
    return {
        "step_tokens": config.prompts_per_step * lengths.prompt + completions,
        "step_flops": step,
        "run_flops": step * config.max_steps + warm_step * config.warm_start.steps_to_train,
    }


def cheapest_change(path: Path, config: Config, lengths: Lengths, fused: bool, available: float) -> str | None:
    """The overrides that make a run fit, the least costly first; None where none of them does."""

    @lru_cache
    def sizes(kind: str, bits: int | None) -> Architecture:
        changed = validate({**config.model_dump(), "fine_tune_type": kind})
        return count(path, changed, bits)[0]

    for overrides, bits in changes(config):
        if bits and (stores_packed(path) or not fused):  # quantized already, or unpacked when loaded
            continue
        values = config.model_dump()
        for key, value in overrides.items():
            section, _, name = key.rpartition(".")
            (values[section] if section else values)[name] = value
        changed = validate(values)
        if estimate(sizes(changed.fine_tune_type, bits), changed, lengths, fused).peak <= available:
            words = [f"{key}={str(value).lower()}" for key, value in overrides.items()]
            return " ".join([*words, *([f"model=<the model in {bits} bits, by mlx_lm.convert -q>"] if bits else [])])
    return None


def changes(config: Config) -> Iterator[tuple[dict[str, Any], int | None]]:
    """Overrides from the least to the most costly, and the base's bits.

    First those that leave what is learned as it is and cost time alone, then those that change it.
    """
    group = config.micro_batch_size or config.num_generations
    # A whole group at once needs no sum of its parts' gradients, which for a full fine-tune weighs more.
    others = [config.num_generations] if group < config.num_generations else []
    others += [group // 2**i for i in range(1, group.bit_length())]
    same: list[dict[str, Any]] = [{}, *({"micro_batch_size": n} for n in others)]
    if not config.gradient_checkpointing:
        same += [{"gradient_checkpointing": True, **exact} for exact in list(same)]
    if config.warm_start.steps_to_train and config.warm_start.batch_size > 1:
        same += [{**exact, "warm_start.batch_size": 1} for exact in list(same)]
    fewer: dict[str, Any] = {"prompts_per_step": max(1, config.prompts_per_step // 2)}
    shorter: dict[str, Any] = {"max_completion_length": max(16, config.max_completion_length // 2)}
    lora: dict[str, Any] = {"fine_tune_type": "lora"} if config.fine_tune_type == "full" else {}
    for other, bits in (({}, None), (fewer, None), (lora, None), (lora, 8), (lora, 4), ({**lora, **shorter}, 4)):
        yield from (({**other, **exact}, bits) for exact in same)
