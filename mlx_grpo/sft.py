"""The supervised warm start: cross-entropy on the dataset's own completions, prompts excluded from the loss."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim

from mlx_grpo import runs
from mlx_grpo.accumulate import accumulate
from mlx_grpo.batch import make_supervised_batch, slice_batch
from mlx_grpo.config import Config
from mlx_grpo.data import sample_prompts
from mlx_grpo.errors import UserError
from mlx_grpo.learner import Learner
from mlx_grpo.logps import score_tokens
from mlx_grpo.optimizer import apply_update, learning_rate_at, make_optimizer
from mlx_grpo.policy import Policy
from mlx_grpo.prefix import Prefix
from mlx_grpo.progress import Reporter
from mlx_grpo.ranks import Ranks
from mlx_grpo.types import Batch, Prompt


def warm_start(learner: Learner, prompts: Sequence[Prompt], run: Path, reporter: Reporter) -> None:
    """Teach the format by example for `warm_start.steps` steps, before any reward is seen."""
    policy, config = learner.policy, learner.config
    settings = config.warm_start
    optimizer = make_optimizer(beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0)
    reporter.begin("warm start", settings.steps)
    for step in range(settings.steps):
        started = time.perf_counter()
        # The warm start orders its prompts by a seed of its own, or GRPO would begin with the ones just imitated.
        chosen = sample_prompts(prompts, settings.batch_size, config.seed + 1, step)
        batch = make_supervised_batch(chosen, [imitated_ids(policy, prompt) for prompt in chosen])
        rate = learning_rate_at(
            step,
            peak=settings.learning_rate,
            schedule="linear",
            warmup_steps=settings.warmup_steps,
            max_steps=settings.steps,
        )
        loss, norm = supervised_step(policy, batch, optimizer, rate, config, learner.ranks)
        metrics = {"phase": "warm_start", "step": step, "loss": loss, "grad_norm": norm, "learning_rate": rate}
        metrics["step_time"] = time.perf_counter() - started
        if learner.ranks.leads:
            runs.append_jsonl(run / runs.METRICS, metrics)
        reporter.step(metrics)


def check_completions(prompts: Sequence[Prompt]) -> None:
    """Raise UserError where rows lack the `completion` to imitate."""
    lacking = [prompt.id for prompt in prompts if not isinstance(prompt.columns.get("completion"), str)]
    if lacking:
        raise UserError(
            f"row {lacking[0]}: has no `completion` to imitate (nor have {len(lacking) - 1} others); "
            "add the column, or set warm_start.steps to 0"
        )


def supervised_step(
    policy: Policy, batch: Batch, optimizer: optim.AdamW, rate: float, config: Config, ranks: Ranks
) -> tuple[float, float]:
    """One update towards the batch's completions; returns the mean token loss and the gradient's norm."""
    tokens = batch.mask.sum()

    def loss(part: Batch, prefixes: Sequence[Prefix | None] | None = None) -> tuple[mx.array, ...]:
        return (-score_tokens(policy.model, part, prefixes=prefixes).logps.sum() / tokens,)

    rows = ranks.share(range(batch.mask.shape[0]))
    size = config.micro_batch_size or len(rows)
    parts = [
        slice_batch(batch, mine[0], mine[-1] + 1) for i in range(0, len(rows), size) if (mine := rows[i : i + size])
    ]
    values, gradients = accumulate(policy.model, loss, parts, checkpointing=config.gradient_checkpointing)
    gradients = ranks.sum_gradients(gradients, policy.model.trainable_parameters())
    norm = apply_update(policy.model, optimizer, gradients, rate, config.max_grad_norm)
    mx.eval(policy.model.trainable_parameters(), optimizer.state)
    return ranks.sum(sum((value for (value,) in values), mx.zeros(()))).item(), norm


def imitated_ids(policy: Policy, prompt: Prompt) -> list[int]:
    """The tokens of a row's own completion, with the stop token that the chat template ends a turn with."""
    text = prompt.columns["completion"]
    return [*policy.tokenizer.encode(text, add_special_tokens=False), policy.tokenizer.eos_token_id]
