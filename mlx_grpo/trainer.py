"""One step and the loop, read top to bottom.

prompts     = sample_prompts(seed, step)                          P prompts
rollouts    = generate(policy, prompts)                           N = P·G completions
scores      = reward(rollouts)                                    r          [N]
advantages  = (r - mean_g) / (std_g + 1e-4)                       A          [P, G]
batch       = make_batch(rollouts, advantages)                    ids, mask  [N, T]
logps       = log softmax(logits / temperature)[ids]              policy, old, reference [N, T]
loss        = sum w (-min(rho A, clip(rho) A) + beta KL)          rho = exp(logps - old)
update      : gradients by micro-batch, clipping, AdamW
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from mlx_grpo import grpo, runs
from mlx_grpo.accumulate import accumulate
from mlx_grpo.batch import make_batch, split_batch
from mlx_grpo.config import Config
from mlx_grpo.data import dataset_files, load_prompts, sample_prompts
from mlx_grpo.errors import UserError
from mlx_grpo.logps import score_tokens
from mlx_grpo.metrics import loss_metrics, reward_metrics, samples
from mlx_grpo.optimizer import apply_update, learning_rate_at, make_optimizer
from mlx_grpo.policy import Policy, load_policy, save_adapter, swapped
from mlx_grpo.prefix import shares_prompt
from mlx_grpo.progress import Reporter
from mlx_grpo.rollout import generate
from mlx_grpo.sampling import Sampling
from mlx_grpo.scoring import Reward, Scores, check_columns, load_reward
from mlx_grpo.sft import check_completions, warm_start
from mlx_grpo.types import Batch, Prompt, Rollout

UNREACHED_STEP = 2**32


@dataclass(slots=True)
class Learner:
    """What a GRPO step reads and changes."""

    policy: Policy
    config: Config
    reward: Reward
    optimizer: optim.AdamW
    reference: dict[str, Any] | None
    """The trainable parameters at GRPO's first step; None when beta is 0 and no reference is needed."""


def train(config: Config, reporter: Reporter) -> Path:
    """Train as configured and return the run's folder.

    Raises UserError for anything wrong with the model, the data or the reward, before a run folder is made.
    """
    reward = load_reward(config.reward)
    policy = load_policy(config)
    prompts = load_prompts(dataset_files(config.data)[0], policy.tokenizer, config.data.enable_thinking)
    check_lengths(policy, prompts, config.max_completion_length)
    check_columns(config.reward, prompts)
    if config.warm_start.steps:
        check_completions(prompts)
    run = runs.create_run(config)
    reporter.note(f"run folder: {run}")
    if not shares_prompt(policy.model):
        reporter.note(f"{policy.model.model_type} keeps no plain key-value cache: each completion runs its own prompt")
    if config.warm_start.steps:
        warm_start(policy, prompts, config, run, reporter)
        save_adapter(policy, config, run / runs.WARM_START)
    reference = policy.model.trainable_parameters() if config.beta > 0 else None
    learner = Learner(policy, config, reward, grpo_optimizer(config), reference)
    reporter.begin("GRPO", config.max_steps)
    tokens_seen = 0
    for step in range(config.max_steps):
        metrics, rollouts, scores = train_step(learner, prompts, step, reporter)
        tokens_seen += metrics["num_tokens"]
        metrics["num_tokens"] = tokens_seen
        runs.append_jsonl(run / runs.SAMPLES, *samples(step, rollouts, scores))
        runs.append_jsonl(run / runs.METRICS, metrics)
        reporter.step(metrics)
        if (step + 1) % config.save_steps == 0 or step + 1 == config.max_steps:
            save_adapter(policy, config, run / runs.ADAPTER)
    return run


def train_step(
    learner: Learner, prompts: Sequence[Prompt], step: int, reporter: Reporter | None = None
) -> tuple[dict[str, float], list[Rollout], Scores]:
    """One GRPO step: roll out, score, weigh, update. Returns the step's metrics, rollouts and scores."""
    started = time.perf_counter()
    config = learner.config
    mx.reset_peak_memory()
    rollouts, scores, redrawn = roll_out(learner, prompts, step, reporter)
    mx.clear_cache()  # decoding's buffers have other shapes than training's
    rewards = mx.array(scores.rewards.reshape(-1, config.num_generations), mx.float32)  # [P, G]
    advantages = grpo.group_advantages(rewards, config.scale_rewards)  # [P, G]
    kept = groups_with_signal(scores, config) if config.dynamic_sampling else np.ones(len(rewards), bool)  # [P]
    kept = kept if kept.any() else ~kept  # a batch cannot be empty
    batch = make_batch(
        [rollout for rollout, keep in zip(rollouts, np.repeat(kept, config.num_generations), strict=True) if keep],
        advantages[mx.array(np.flatnonzero(kept))],
        config.mask_truncated_completions,
    )
    rate = learning_rate_at(
        step,
        peak=config.learning_rate,
        schedule=config.lr_scheduler_type,
        warmup_steps=config.warmup_steps,
        max_steps=config.max_steps,
    )
    update = update_policy(learner, batch, rate)
    mx.clear_cache()
    metrics = {"step": step, **reward_metrics(rollouts, scores, rewards), **update, "learning_rate": rate}
    metrics |= {"groups/redrawn": float(redrawn), "groups/dropped": float((~kept).sum())}
    metrics["step_time"] = time.perf_counter() - started
    metrics["peak_memory_gb"] = mx.get_peak_memory() / 2**30
    return metrics, rollouts, scores


def roll_out(
    learner: Learner, prompts: Sequence[Prompt], step: int, reporter: Reporter | None
) -> tuple[list[Rollout], Scores, int]:
    """The step's N scored rollouts, prompt-major, and how many groups were redrawn because they had no signal."""
    config = learner.config
    rollouts, scores = draw_groups(
        learner,
        sample_prompts(prompts, config.prompts_per_step, config.seed, step, config.data.balance_by),
        step,
        reporter,
    )
    redrawn = 0
    for attempt in range(1, config.dynamic_sampling + 1):
        dead = np.flatnonzero(~groups_with_signal(scores, config))
        if dead.size == 0:
            break
        # Steps have streams of their own, so a redraw takes the stream of a step that no run reaches.
        stream = step + attempt * UNREACHED_STEP
        others = sample_prompts(
            prompts, dead.size, config.seed + attempt * UNREACHED_STEP, step, config.data.balance_by
        )
        fresh, fresh_scores = draw_groups(learner, others, stream, reporter)
        rows = (dead[:, None] * config.num_generations + np.arange(config.num_generations)).ravel()
        for row, rollout in zip(rows, fresh, strict=True):
            rollouts[row] = rollout
        scores = scores.replaced(rows, fresh_scores)
        redrawn += dead.size
    return rollouts, scores, redrawn


def draw_groups(
    learner: Learner, chosen: Sequence[Prompt], step: int, reporter: Reporter | None
) -> tuple[list[Rollout], Scores]:
    """A group of completions for each prompt, with what they earned."""
    config = learner.config
    rollouts = generate(
        learner.policy,
        chosen,
        config.num_generations,
        Sampling(config.max_completion_length, config.temperature, config.top_p, config.top_k, config.min_p),
        seed=config.seed,
        step=step,
        on_token=reporter.decoding if reporter else None,
    )
    return rollouts, learner.reward([r.prompt for r in rollouts], [r.completion for r in rollouts])


def groups_with_signal(scores: Scores, config: Config) -> np.ndarray:
    """Which groups hold two different rewards, [P]: the others' advantages are all 0 (DAPO, arXiv:2503.14476)."""
    groups = scores.rewards.reshape(-1, config.num_generations)
    lowest = np.where(np.isnan(groups), np.inf, groups).min(axis=1)
    return np.where(np.isnan(groups), -np.inf, groups).max(axis=1) > lowest


def update_policy(learner: Learner, batch: Batch, rate: float) -> dict[str, float]:
    """`num_iterations` optimizer steps on one batch; metrics are the means over them."""
    config, model = learner.config, learner.policy.model
    weights = grpo.token_weights(batch.mask, config.loss_type, config.max_completion_length)  # [N, T]
    parts = split_batch(batch, config.micro_batch_size or config.num_generations)
    old = score_parts(model, parts, config) if config.num_iterations > 1 else None
    reference = None
    if learner.reference is not None:
        with swapped(model, learner.reference):
            reference = score_parts(model, parts, config)
    updates = []
    for _ in range(config.num_iterations):
        gradients, metrics = gradients_of(learner, parts, weights, old, reference)
        norm = 0.0
        # Adam divides by the root of the second moment, so a step on nothing but rounding noise is a full-sized step.
        if gradients is not None:
            norm = apply_update(model, learner.optimizer, gradients, rate, config.max_grad_norm)
        mx.eval(model.trainable_parameters(), learner.optimizer.state)
        updates.append({**metrics, "grad_norm": norm})
    averaged = {name: float(np.mean([update[name] for update in updates])) for name in updates[0]}
    # Later iterations drift from the sampler by design; the first tells whether sampler and trainer compute alike.
    return averaged | {name: value for name, value in updates[0].items() if name.startswith("sampling/")}


def gradients_of(
    learner: Learner,
    parts: Sequence[Batch],
    weights: mx.array,
    old: mx.array | None,
    reference: mx.array | None,
) -> tuple[dict[str, Any] | None, dict[str, float]]:
    """The step's gradient, summed over micro-batches, and its metrics; None where nothing gives a gradient.

    `weights`, `old` and `reference` are [N, T] for the whole batch; the parts' losses add up to its loss.
    """
    config, model = learner.config, learner.policy.model
    term_mask = entropy_mask(model, parts, config)  # [N, T]

    def loss(part: Batch) -> tuple[mx.array, ...]:
        rows = slice(*part.rows)
        logps, entropies = score_tokens(model, part, config.temperature)  # [B, T]
        terms = grpo.grpo_loss(
            logps,
            mx.stop_gradient(logps) if old is None else old[rows],
            part.advantages,
            part.mask,
            weights[rows],
            ref_logps=None if reference is None else reference[rows],
            term_mask=None if term_mask is None else term_mask[rows],
            **loss_options(config),
        )
        return *terms, (entropies * part.mask).sum(), mx.stop_gradient(logps)

    values, gradients = accumulate(
        model,
        loss,
        parts,
        # Without advantage and KL a part's gradient is exactly 0, so it need not be computed.
        has_gradient=lambda part: bool(mx.any(part.mask * (part.advantages[:, None] != 0 if reference is None else 1))),
        checkpointing=config.gradient_checkpointing,
    )
    sums = np.array([[value.item() for value in part[:5]] for part in values]).sum(axis=0)
    logps = mx.concatenate([part[5] for part in values])  # [N, T]
    return gradients, loss_metrics(sums, parts, logps, config.importance_sampling_level == "sequence")


def score_parts(model: nn.Module, parts: Sequence[Batch], config: Config) -> mx.array:
    """Log-probabilities [N, T] of the whole batch, without gradient, a micro-batch at a time."""
    scored = []
    for part in parts:
        scored.append(score_tokens(model, part, config.temperature).logps)
        mx.eval(scored[-1])
    return mx.concatenate(scored)


def entropy_mask(model: nn.Module, parts: Sequence[Batch], config: Config) -> mx.array | None:
    """The tokens [N, T] whose entropy is high enough to learn from; the threshold spans the whole step."""
    if config.top_entropy_quantile == 1:
        return None
    entropies = []
    for part in parts:
        entropies.append(score_tokens(model, part, config.temperature).entropies)
        mx.eval(entropies[-1])
    mask = mx.concatenate([part.mask for part in parts])
    return grpo.high_entropy_mask(mx.concatenate(entropies), mask, config.top_entropy_quantile)


def loss_options(config: Config) -> dict[str, Any]:
    """The keyword arguments of `grpo_loss` that come from the configuration."""
    return {
        "loss_type": config.loss_type,
        "importance_sampling_level": config.importance_sampling_level,
        "epsilon": config.epsilon,
        "epsilon_high": config.clip_high,
        "delta": config.delta,
        "beta": config.beta,
        "use_bias_correction_kl": config.use_bias_correction_kl,
    }


def grpo_optimizer(config: Config) -> optim.AdamW:
    """The optimizer of the GRPO phase, with fresh moments."""
    return make_optimizer(
        beta1=config.adam_beta1,
        beta2=config.adam_beta2,
        epsilon=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )


def check_lengths(policy: Policy, prompts: Sequence[Prompt], max_completion_length: int) -> None:
    """Raise UserError where a prompt and its completion can't fit the model's context."""
    context = policy.model.args.max_position_embeddings
    for prompt in prompts:
        if context and len(prompt.token_ids) + max_completion_length > context:
            raise UserError(
                f"row {prompt.id}: {len(prompt.token_ids)} prompt tokens and max_completion_length "
                f"{max_completion_length} exceed the model's context of {context}; shorten the prompt or the completion"
            )
