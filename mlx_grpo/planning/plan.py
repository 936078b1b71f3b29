"""Plan a run for `mlx-grpo plan`: its memory and its time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_grpo.backend.device import multiplies_packed, physical_memory, this_device
from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import completion_text, dataset_files, make_prompt, read_rows
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.policy import (
    TOKENIZER_FILES,
    compute_dtype,
    find_model,
    load_tokenizer_in,
    model_name,
    outline,
    trained_dtype,
)
from mlx_grpo.models.prefix import prompt_path
from mlx_grpo.models.tree import common_start
from mlx_grpo.planning.architecture import count
from mlx_grpo.planning.flops import Shape, forward_flops, matrix_speed, training_flops
from mlx_grpo.planning.memory import Estimate, Lengths, Workload, estimate
from mlx_grpo.planning.remedy import cheapest_change

GB = 2**30
REFUSE_ABOVE = 1.5
"""The share of the device's limit above which a prediction refuses a run; its constants were fitted on the CPU."""
LONGEST_TEXTS = 8
"""Rows with the longest texts to tokenize; one of them has the most tokens."""
Item = TypeVar("Item")
LARGE_MAC = 36 * GB
"""Up to this much memory, Metal recommends two thirds of it; above, three quarters."""


def plan(
    config: Config,
    memory: str | None,
    prompt_tokens: int | None,
    gflops: float | None,
    measure: Callable[[Workload, Estimate], Estimate] | None = None,
) -> dict[str, Any]:
    """Predict a run's memory, operations and hours, for a Mac with `memory` or, by default, for this machine.

    `measure` replaces predicted peaks by measured ones. `gflops` is the speed to assume; by default a matrix product
    is timed here, which no step outruns. Raises UserError if there is neither a tokenizer to measure the prompts with
    nor `prompt_tokens`.
    """
    folder = ModelFolder.read(find_model(config.model, TOKENIZER_FILES))
    if memory is not None and config.dtype == "auto":  # a Mac that is not here
        config = config.model_copy(update={"dtype": "bfloat16"})
    lengths = read_lengths(config, folder) if prompt_tokens is None else given_lengths(config, prompt_tokens)
    model = outline(folder, config, packed=memory is not None or multiplies_packed(this_device()))
    work = Workload(count(model, folder, config), config, lengths, fused=memory is not None or has_fused_norms())
    predicted = estimate(work.sizes, config, lengths, work.fused)
    given = parse_memory(memory) if memory else None
    available = available_memory() if given is None else working_set(given)
    return {
        "model": model_name(config.model),
        "fine_tune_type": config.fine_tune_type,
        "dtype": trained_dtype(config.fine_tune_type, config.dtype),
        "parameters": work.sizes.parameters,
        "trainable": work.sizes.trainable,
        "lengths": asdict(lengths),
        "prompts_per_step": config.prompts_per_step,
        "path": prompt_path(model),
        "bytes": predicted.parts,
        "phases": predicted.phases,
        "memory": given,
        "available": available,
        **memory_needs(folder, work, predicted, measure(work, predicted) if measure else predicted, available),
        **time_needs(operations(model, config, lengths), assumed_speed(config, memory, gflops)),
    }


def memory_needs(
    folder: ModelFolder, work: Workload, predicted: Estimate, needs: Estimate, available: float
) -> dict[str, Any]:
    """Return the largest peak of `needs`, which measures some of `predicted`, and what makes the run fit."""
    fits = needs.peak <= available
    return {
        "measured": {phase: needs.phases[phase] for phase in needs.measured},
        "peak": needs.peak,
        "peak_in": needs.peak_phase,
        "verdict": verdict(needs, available),
        "fits": fits,
        "change": None if fits else cheapest_change(folder, work, available, needs.ratios(predicted)),
    }


def assumed_speed(config: Config, memory: str | None, gflops: float | None) -> float | None:
    """Return the speed [FLOP/s] to plan with: the given one, or this machine's; None for a Mac that is not here."""
    if gflops:
        return gflops * 1e9
    return None if memory else matrix_speed(compute_dtype(config.dtype))


def time_needs(work: dict[str, float], speed: float | None) -> dict[str, Any]:
    """Return `work` in operations and, if a speed [FLOP/s] is known, the run's hours."""
    return {
        **work,
        "gflops": speed and speed / 1e9,
        "hours": speed and work["run_flops"] / speed / 3600,
    }


def verdict(needs: Estimate, available: float) -> str:
    """Return the line that says if a run fits; a prediction alone is certain above `REFUSE_ABOVE`."""
    peak = needs.peak
    how = "measured" if needs.peak_phase in needs.measured else "predicted"
    if peak <= available:
        word = "fits"
    elif needs.measured or peak > REFUSE_ABOVE * available:
        word = "does not fit"
    else:
        word = "may not fit"
    return f"{peak / GB:.1f} GB {how} at the peak ({needs.peak_phase}), {available / GB:.1f} GB available: {word}"


def parse_memory(text: str) -> int:
    """Read `16GB`, `16 GiB` or `16` as bytes; a Mac's memory is sold in GiB."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:g|gb|gib)?\s*", text.lower())
    if not match or not float(match[1]):
        raise UserError(f"--memory: {text!r} is no size; give one such as 16GB")
    return round(float(match[1]) * GB)


def working_set(memory: int) -> int:
    """Return the bytes that Metal recommends to stay below on a Mac of so much unified memory.

    Macs report `recommendedMaxWorkingSetSize` as two thirds up to 36 GB and three quarters above. Newer versions of
    macOS give somewhat more.
    """
    return memory * 2 // 3 if memory <= LARGE_MAC else memory * 3 // 4


def available_memory() -> int:
    """Return this machine's available bytes: Metal's recommended working set, a GPU's memory, or physical memory."""
    info = mx.device_info()
    for name in ("max_recommended_working_set_size", "total_memory"):
        if name in info:
            return int(info[name])
    return physical_memory()


def has_fused_norms() -> bool:
    """Return True if the default device's norms have a kernel of their own."""
    return mx.default_device() == mx.Device(mx.gpu)


def given_lengths(config: Config, prompt_tokens: int) -> Lengths:
    """Return the lengths for given prompts; the warm start's completions count as long as sampled ones may be."""
    return Lengths(prompt_tokens, config.max_completion_length if config.warm_start.steps_to_train else 0)


def read_lengths(config: Config, folder: ModelFolder) -> Lengths:
    """Measure the longest texts of the configured training data by the model's own tokenizer."""
    if not (folder.path / "tokenizer_config.json").is_file():
        raise UserError(f"model: {folder.path} has no tokenizer to count the prompts with; give --prompt-tokens")
    tokenizer = load_tokenizer_in(folder)
    rows = read_rows(dataset_files(config.data)[0])
    by_text = sorted(rows, key=lambda row: str(row["prompt"]))  # all share what the first and last share
    chosen = [*longest(rows, lambda row: str(row["prompt"])), by_text[0], by_text[-1]]
    prompts = [make_prompt(row, tokenizer, config.data.enable_thinking) for row in chosen]
    texts = [str(completion_text(row) or "") for row in rows] if config.warm_start.steps_to_train else []
    return measured_lengths(prompts, texts, tokenizer)


def measured_lengths(prompts: Sequence[Prompt], completions: Sequence[str], tokenizer: TokenizerWrapper) -> Lengths:
    """Measure the longest prompt, the longest completion with its stop token, and the prompts' common start."""
    ids = [prompt.token_ids for prompt in prompts]
    targets = [len(tokenizer.encode(text, add_special_tokens=False)) + 1 for text in longest(completions, str)]
    return Lengths(max(map(len, ids)), max(targets, default=0), common_start(ids))


def longest(items: Sequence[Item], text: Callable[[Item], str]) -> list[Item]:
    """Return the few items with the longest texts."""
    return sorted(items, key=lambda item: len(text(item)))[-LONGEST_TEXTS:]


def operations(model: nn.Module, config: Config, lengths: Lengths) -> dict[str, float]:
    """Count the tokens and floating point operations of a step and of the run, with every text the longest."""
    shape = Shape(lengths.prompt, config.num_generations, config.max_completion_length)
    full = config.fine_tune_type == "full"
    forward, training = sum(forward_flops(model, shape)), training_flops(model, shape, full)
    recomputed = forward if config.gradient_checkpointing else 0
    entropies = (config.num_iterations - 1) * (config.top_entropy_quantile < 1)  # passes that choose tokens by entropy
    branch = sum(forward_flops(model, replace(shape, num_generations=1))) if config.branch_at else 0
    scored = (config.beta > 0) + (config.num_iterations > 1) + entropies
    updates = config.num_iterations * (training + recomputed)
    step = config.prompts_per_step * (branch + forward * (1 + scored) + updates)
    warm = Shape(lengths.prompt, 1, max(1, lengths.target))
    warm_step = config.warm_start.batch_size * training_flops(model, warm, full)
    completions = config.prompts_per_step * config.num_generations * config.max_completion_length
    return {
        "step_tokens": config.prompts_per_step * lengths.prompt + completions,
        "step_flops": step,
        "run_flops": step * config.max_steps + warm_step * config.warm_start.steps_to_train,
    }
