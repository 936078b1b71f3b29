"""`mlx-grpo bench`: the time of each part of a step on this machine, and what sharing the prompt saves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from statistics import median
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_grpo.backend.device import physical_memory, this_device
from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import batched, make_batch, take_rows
from mlx_grpo.data.dataset import check_lengths, dataset_files, load_prompts
from mlx_grpo.data.types import Batch, Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.generation.rollout import generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.policy import load_policy
from mlx_grpo.models.prefix import Chain, shares_prompt
from mlx_grpo.models.tree import token_tree
from mlx_grpo.planning.architecture import norm_dtype
from mlx_grpo.planning.flops import Shape, matrix_speed, timed, training_flops
from mlx_grpo.rewards import load_reward
from mlx_grpo.training.accumulate import accumulate, add
from mlx_grpo.training.groups import score_rollouts
from mlx_grpo.training.optimizer import apply_update
from mlx_grpo.training.state import TrainState, grpo_optimizer
from mlx_grpo.user_functions import TrainerState

PARTS = ("prefill", "decode", "reward", "train", "update")
"""The parts of a step in order; the update begins with the sum of all processes' gradients."""


def bench(
    config: Config,
    shapes: Sequence[Shape],
    repeats: int,
    plain: bool,
    on_progress: Callable[[str], None],
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Time each part of a step for each shape; return medians of `repeats`, in seconds and GiB of one process.

    The configured policy samples completions to their full length, past any stop token. Of several processes each
    takes prompts of its own; the times are the first one's, waiting included. With `plain` the training half is
    also timed with the prompt run for each completion, and, of several prompts, with each group by itself.
    """
    policy = load_policy(config)
    state = TrainState(policy, config, load_reward(config.reward), grpo_optimizer(config), None, ranks or Ranks())
    row = load_prompts(dataset_files(config.data)[0], policy.tokenizer, config.data.enable_thinking)[0]
    for shape in shapes:
        check_lengths(prompts_of(row, shape), shape.completion_tokens, policy.length_limit)
    speed = matrix_speed(norm_dtype(policy.model))
    device, results = this_device(), []
    for shape in shapes:
        on_progress(str(shape))
        results.append(time_shape(state, prompts_of(row, shape), shape, repeats, plain, speed))
    return {
        "model": config.model,
        "fine_tune_type": config.fine_tune_type,
        "micro_batch_size": config.micro_batch_size,
        "gradient_checkpointing": config.gradient_checkpointing,
        "processes": state.ranks.size,
        "mlx": version("mlx"),
        "mlx_grpo": version("mlx-grpo"),
        "device": str(mx.default_device()),
        "machine": device.name,
        "memory_gb": (device.memory or physical_memory()) / 2**30,
        "matrix_gflops": speed / 1e9,
        "shapes": results,
    }


def time_shape(
    state: TrainState, prompts: Sequence[Prompt], shape: Shape, repeats: int, plain: bool, speed: float
) -> dict[str, float]:
    """Return the median seconds of each part of a step, its rates, and the share of `speed` [FLOP/s] reached.

    `speed` is that of a matrix product. Rollout tokens are those of all completions, per second of sampling.
    """
    repeated = [time_step(state, prompts, shape, plain) for _ in range(repeats + 1)][1:]  # the first one warms up
    result = {name: median(times[name] for times in repeated) for name in repeated[0]}
    completions = state.ranks.size * shape.prompts * shape.num_generations
    flops = training_flops(state.policy.model, shape, state.config.fine_tune_type == "full")
    tokens = completions * shape.completion_tokens
    result["tokens_per_s"] = tokens / result["step"]
    result["rollout_tokens_per_s"] = tokens / (result["prefill"] + result["decode"])
    result["steps_per_s"] = 1 / result["step"]
    result["share_of_matrix_speed"] = flops / result["train"] / speed
    return {**asdict(shape), **result}


def prompts_of(row: Prompt, shape: Shape) -> list[Prompt]:
    """Return a row of the dataset with its tokens repeated or cut to a shape's lengths, once for each prompt."""
    own = shape.prompt_tokens - shape.shared_tokens
    ids = row.token_ids * -(-(shape.prompt_tokens + shape.prompts) // len(row.token_ids))
    shared, rest = ids[: shape.shared_tokens], ids[shape.shared_tokens :]
    # The first token of their own differs, so they have no more in common.
    return [
        replace(row, id=str(n), token_ids=(*shared, *([n] if shape.prompts > 1 else []), *rest)[: len(shared) + own])
        for n in range(shape.prompts)
    ]


def time_step(state: TrainState, prompts: Sequence[Prompt], shape: Shape, plain: bool) -> dict[str, float]:
    """Return the seconds of each part of one step, and the peak memory in GiB of it and of its training half.

    With `plain` the training half is timed in the other ways too. The prefill ends with the first token.
    """
    config, policy, ranks = state.config, state.policy, state.ranks
    result: dict[str, float] = {}
    sampling = Sampling(shape.completion_tokens, config.temperature, ignore_stop=True)
    token_times: list[float] = []  # when each position was decoded
    ranks.gather(None)  # so that all processes begin together
    mx.clear_cache()
    mx.reset_peak_memory()
    started = time.perf_counter()
    rollouts = generate(
        policy,
        prompts,
        shape.num_generations,
        sampling,
        first_row=ranks.rank * len(prompts) * shape.num_generations,
        on_token=lambda _: token_times.append(time.perf_counter()),
    )
    result["prefill"] = token_times[0] - started
    result["decode"] = time.perf_counter() - token_times[0]
    decode_peak = mx.get_peak_memory()
    result["reward"], _ = timed(lambda: score_rollouts(state.reward, rollouts, TrainerState(0, config.max_steps)))
    batch = batch_of(rollouts, len(prompts))
    shares = shares_prompt(policy.model)
    result["train"], gradients, result["train_peak_gb"] = time_gradient(state, [batch], shares)
    result["update"], _ = timed(lambda: _update(state, gradients))
    result["peak_gb"] = max(decode_peak, mx.get_peak_memory()) / 2**30  # the second is that of gradient and update
    result["step"] = sum(result[part] for part in PARTS)
    if plain and shares and len(prompts) > 1:
        groups = [take_rows(batch, rows) for rows in batched(range(len(rollouts)), shape.num_generations)]
        result["train_groups"], _, result["train_groups_peak_gb"] = time_gradient(state, groups, True)
    if plain and shares:
        result["train_plain"], _, result["train_plain_peak_gb"] = time_gradient(state, [batch], False)
    return result


def batch_of(rollouts: Sequence[Rollout], prompts: int = 1) -> Batch:
    """Return a batch of these rollouts with advantages from -1 to 1."""
    advantages = np.linspace(-1, 1, len(rollouts), dtype=np.float32).reshape(prompts, -1)
    return make_batch(rollouts, mx.array(advantages))


def time_gradient(state: TrainState, batches: Sequence[Batch], shared: bool) -> tuple[float, Any, float]:
    """Return the seconds of a forward and backward pass over batches, their gradients, and the peak memory in GiB."""
    config, model = state.config, state.policy.model

    def loss(part: Batch, chain: Chain = ()) -> tuple[mx.array, ...]:
        scores = score_tokens(model, part, config.temperature, chain)
        return -(scores.logps * part.advantages[:, None]).sum(), scores.entropies

    def gradients() -> Any:
        total = None
        for batch in batches:
            tree = token_tree(batch, config.micro_batch_size or config.num_generations, share=shared)
            total = add(total, accumulate(model, loss, tree, checkpointing=config.gradient_checkpointing)[1])
            mx.eval(total)
        return total

    mx.clear_cache()
    mx.reset_peak_memory()
    seconds, total = timed(gradients)
    return seconds, total, mx.get_peak_memory() / 2**30


def _update(state: TrainState, gradients: Any) -> None:
    model = state.policy.model
    gradients = state.ranks.sum_gradients(gradients, model.trainable_parameters())
    apply_update(model, state.optimizer, gradients, 0.0, state.config.max_grad_norm)
    mx.eval(model.trainable_parameters(), state.optimizer.state)
