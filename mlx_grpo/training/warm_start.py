"""The supervised warm start: cross-entropy on the dataset's own completions, prompts excluded from the loss."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from mlx_grpo import runs
from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import make_supervised_batch
from mlx_grpo.data.chat import turn_end
from mlx_grpo.data.dataset import check_lengths
from mlx_grpo.data.sampling import sample_prompts
from mlx_grpo.data.thinking import CLOSE, EMPTY_REST
from mlx_grpo.data.types import Batch, Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.generation.sampling import seed_step
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.policy import Policy
from mlx_grpo.models.prefix import Chain, shares_prompt
from mlx_grpo.models.tree import rows_in_order, token_tree
from mlx_grpo.training.accumulate import accumulate
from mlx_grpo.training.optimizer import apply_update, learning_rate_at, make_optimizer
from mlx_grpo.training.run_logger import RunLogger
from mlx_grpo.training.state import TrainState

WARM_START_KEYS = (
    *("model", "dtype", "fine_tune_type", "lora.", "data.train", "data.enable_thinking"),
    *("data.split", "data.subset", "data.columns", "data.as_messages", "data.system"),
    *("warm_start.", "max_grad_norm"),
)
"""Prefixes of the keys that a warm start depends on, besides the seed."""


def train_warm_start(logger: RunLogger, prompts: Sequence[Prompt]) -> None:
    """Train on the dataset's own completions for `warm_start.steps` steps, before GRPO."""
    state = logger.state
    policy, config = state.policy, state.config
    settings = config.warm_start
    logger.begin("warm start", settings.steps)
    for step in range(logger.position.steps, settings.steps):
        started = time.perf_counter()
        seed_step(config.seed, 0, step, state.ranks.rank)
        # The warm start orders its prompts by a seed of its own, or GRPO would begin with the same prompts.
        sampled = sample_prompts(prompts, settings.batch_size, config.seed + 1, step)
        batch = make_supervised_batch(sampled, [target_ids(policy, prompt) for prompt in sampled])
        rate = learning_rate_at(
            step,
            peak=settings.learning_rate,
            schedule="linear",
            warmup_steps=settings.warmup_steps,
            max_steps=settings.steps,
        )
        metrics = {"phase": "warm_start", "step": step, **supervised_step(state, batch, rate), "learning_rate": rate}
        metrics["step_time"] = time.perf_counter() - started
        records = [{"prompt_id": prompt.id, "completion": prompt.columns["completion"]} for prompt in sampled]
        logger.end_step(metrics, [], records, last=step + 1 == settings.steps)
    mx.clear_cache()  # the buffers of decoding, which comes next, have other shapes


def find_warm_start(config: Config) -> Path | None:
    """Return the warm start's adapter of the run that `warm_start.run` names; None where no run is named.

    Raises UserError where that run has none, or trained it with other settings than these.
    """
    if config.warm_start.run is None:
        return None
    try:
        run = runs.Run.find(config.warm_start.run)
        adapter = run.adapter(runs.WARM_START)
    except UserError as error:
        raise UserError(*(f"warm_start.run: {problem}" for problem in error.problems)) from None
    others = [
        f"warm_start.run: {key} was {was!r} in {run.name}, {now!r} here"
        for key, (was, now) in runs.changed_keys(run.config, config).items()
        if key.startswith(WARM_START_KEYS) and key != "warm_start.run"
    ]
    if others:
        remedy = "warm_start.run: give these keys the values they have there, or leave it out to train a warm start"
        raise UserError(*others, remedy)
    return adapter


def warm_start_optimizer() -> optim.AdamW:
    """Return the optimizer of the warm start, with fresh moments."""
    return make_optimizer(beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0)


def check_completions(policy: Policy, prompts: Sequence[Prompt]) -> None:
    """Raise UserError where rows lack the `completion` that a warm start trains on, or it is no single text.

    So too where a prompt with it is longer than the model's limit.
    """
    several = [prompt.id for prompt in prompts if isinstance(prompt.columns.get("completion"), list)]
    if several:
        raise UserError(
            f"row {several[0]}: `completion` is a list, but not of one assistant message; write text, or "
            '[{"role": "assistant", "content": ...}]'
        )
    lacking = [prompt.id for prompt in prompts if not isinstance(prompt.columns.get("completion"), str)]
    if lacking:
        raise UserError(
            f"row {lacking[0]}: has no `completion` to imitate (nor have {len(lacking) - 1} others); "
            "add the column, or set warm_start.steps to 0"
        )
    for prompt in prompts:
        check_lengths([prompt], len(target_ids(policy, prompt)), policy.length_limit, "a `completion` of")


def supervised_step(state: TrainState, batch: Batch, rate: float) -> dict[str, float]:
    """Take one optimizer step on the batch's completions; return the mean token loss and the gradient's norm."""
    model = state.policy.model
    gradients, mean = supervised_gradients(state, batch)
    norm = math.nan
    if gradients is not None and math.isfinite(mean):
        norm = apply_update(model, state.optimizer, gradients, rate, state.config.max_grad_norm)
    mx.eval(model.trainable_parameters(), state.optimizer.state)
    return {"loss": mean, "grad_norm": norm, "update_skipped": float(not math.isfinite(norm))}


def supervised_gradients(state: TrainState, batch: Batch) -> tuple[dict[str, Any] | None, float]:
    """Return the gradient of the mean token loss, summed over micro-batches and ranks, and that loss."""
    config, ranks, model = state.config, state.ranks, state.policy.model
    tokens = batch.mask.sum()

    def loss(part: Batch, chain: Chain = ()) -> tuple[mx.array, ...]:
        return (-score_tokens(model, part, chain=chain).logps.sum() / tokens,)

    own = ranks.share(rows_in_order(batch))
    tree = token_tree(batch, config.micro_batch_size, rows=own, share=shares_prompt(model))
    values, gradients = accumulate(model, loss, tree, checkpointing=config.gradient_checkpointing)
    gradients = ranks.sum_gradients(gradients, model.trainable_parameters())
    return gradients, float(ranks.sum(sum((value for (value,) in values), mx.zeros(()))))


def target_ids(policy: Policy, prompt: Prompt) -> list[int]:
    """Return the tokens of a row's own completion, and the one that ends a turn in the chat template.

    Where the template ends none, the tokenizer's eos_token follows. A thought that the prompt began is closed first,
    unless the completion closes it.
    """
    tokenizer, text = policy.tokenizer, prompt.columns["completion"]
    if prompt.opens_thought and CLOSE not in text:
        text = EMPTY_REST + text
    end = turn_end(tokenizer)
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id if end is None else end]
