"""Measure a run's memory before its first step, where the prediction leaves open if it fits.

One micro-batch of the longest texts runs forward and backward with the loaded weights. Adam's moments, the reference
and the sum of other micro-batches' gradients do not exist yet, so they are added by count. The phases without a
backward pass, such as decoding, keep their prediction.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_grpo.data.batch import make_batch, make_supervised_batch
from mlx_grpo.data.types import Batch, Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import load_policy
from mlx_grpo.models.prefix import random_seed
from mlx_grpo.planning.architecture import count
from mlx_grpo.planning.memory import Estimate, Lengths, Workload, estimate, rows_at_once, supervised_rows
from mlx_grpo.planning.plan import REFUSE_ABOVE, available_memory, has_fused_norms, measured_lengths, verdict
from mlx_grpo.planning.remedy import cheapest_change
from mlx_grpo.rewards import load_reward
from mlx_grpo.training.state import TrainState, grpo_optimizer
from mlx_grpo.training.update import FixedLogps, loss_gradients
from mlx_grpo.training.warm_start import supervised_gradients

MEASURE_ABOVE = 0.8
"""The share of the device's limit above which a run is measured. On the CPU, where the constants of the prediction
were fitted, it is at most 5% too low; no Mac has been measured."""


def check_memory(
    state: TrainState,
    prompts: Sequence[Prompt],
    note: Callable[[str], None],
    *,
    force: bool = False,
    processes: int = 1,
) -> None:
    """Note a run's predicted peak before it starts, and its measured one if the prediction leaves open if it fits.

    Raises UserError, with the cheapest change that fits, if it does not, unless `force`. `processes` of the run share
    this machine's memory.
    """
    work = workload(state, prompts)
    predicted = needs = estimate(work.sizes, work.config, work.lengths, work.fused)
    available = available_memory() / processes
    note(f"memory: {verdict(predicted, available)}")
    if predicted.peak <= MEASURE_ABOVE * available:
        return
    if predicted.peak <= REFUSE_ABOVE * available:
        note("memory: one micro-batch of the longest texts runs now, to measure it")
        needs = measured(state, work, predicted)
        note(f"memory: {verdict(needs, available)}")
    if needs.peak <= available:
        return
    change = cheapest_change(state.policy.base, work, available, needs.ratios(predicted))
    remedy = f"set {change}" if change else "take a smaller model"
    if not force:
        raise UserError(f"memory: {verdict(needs, available)}; {remedy}, or train regardless with --force")
    note(f"memory: training regardless with --force; to fit, {remedy}")


def workload(state: TrainState, prompts: Sequence[Prompt]) -> Workload:
    """Return what decides the memory of a run whose model and prompts are loaded."""
    config, policy = state.config, state.policy
    texts = [prompt.columns["completion"] for prompt in prompts] if config.warm_start.steps_to_train else []
    lengths = measured_lengths(prompts, texts, policy.tokenizer)
    return Workload(count(policy.model, policy.base, config), config, lengths, has_fused_norms())


def load_and_measure(work: Workload, predicted: Estimate) -> Estimate:
    """Load a run's weights and return its estimate with measured peaks."""
    config = work.config
    state = TrainState(load_policy(config), config, load_reward(config.reward), grpo_optimizer(config), None)
    return measured(state, work, predicted)


def measured(state: TrainState, work: Workload, predicted: Estimate) -> Estimate:
    """Return a run's estimate with measured peaks; the parameters and all random states stay as they are."""
    alone = replace(state, ranks=Ranks())  # other processes do not take part
    held, config = work.held, state.config
    with restored(state.policy.model):
        batch = longest_batch(work)
        logps = zero_logps(work, batch)
        peak = peak_while(lambda: loss_gradients(alone, batch, logps))
        earlier = held.weights if config.prompts_per_step > groups_measured(work) else 0
        peaks = {"gradient": peak + held.optimizer + held.reference + earlier}
        if config.warm_start.steps_to_train:
            supervised = longest_supervised_batch(work)
            peak = peak_while(lambda: supervised_gradients(alone, supervised))
            earlier = held.weights if config.warm_start.batch_size > supervised_rows(config) else 0
            peaks["warm start"] = peak + held.optimizer + earlier
    return predicted.with_measured(peaks)


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Give the model its parameters back after the block, and every global random state its value."""
    parameters, seed = model.trainable_parameters(), random_seed()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        model.update(parameters)
        mx.random.seed(seed)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def peak_while(run: Callable[[], object]) -> int:
    """Return the bytes at the peak of a computation, with all that lived before; leave nothing of it in memory."""
    mx.clear_cache()
    mx.reset_peak_memory()
    run()
    peak = mx.get_peak_memory()
    gc.collect()
    mx.clear_cache()
    mx.reset_peak_memory()
    return peak


def longest_batch(work: Workload) -> Batch:
    """Return the groups of a GRPO step's largest micro-batch with the longest texts."""
    config = work.config
    prompts = longest_prompts(work.lengths, groups_measured(work))
    tokens, zeros = (0,) * config.max_completion_length, (0.0,) * config.max_completion_length
    rollouts = [
        Rollout(prompt, tokens, "", "length", zeros, zeros) for prompt in prompts for _ in range(config.num_generations)
    ]
    return make_batch(rollouts, mx.ones(len(rollouts)))  # advantages [N]; without any there is no backward pass


def groups_measured(work: Workload) -> int:
    """Return how many groups the largest micro-batch of a GRPO step takes rows from."""
    return -(-rows_at_once(work) // work.config.num_generations)


def longest_supervised_batch(work: Workload) -> Batch:
    """Return a micro-batch of a supervised step with the longest texts."""
    prompts = longest_prompts(work.lengths, supervised_rows(work.config))
    return make_supervised_batch(prompts, [(0,) * work.lengths.target for _ in prompts])


def longest_prompts(lengths: Lengths, rows: int) -> list[Prompt]:
    """Return prompts of the longest one's length, with as many tokens in common as the run's prompts have."""
    own = lengths.prompt - lengths.shared
    return [Prompt(str(row), "", (0,) * lengths.shared + (1 + row % 2,) * own) for row in range(rows)]


def zero_logps(work: Workload, batch: Batch) -> FixedLogps:
    """Return zeros [N, T] for the log-probabilities that the loss needs beside the policy's."""
    zeros = mx.zeros(batch.mask.shape)
    return FixedLogps(zeros if work.config.num_iterations > 1 else None, zeros if work.config.beta > 0 else None)
