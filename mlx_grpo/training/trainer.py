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

import gc
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_grpo import grpo, runs
from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import make_batch
from mlx_grpo.data.dataset import check_lengths, dataset_files, load_prompts, with_full_paths
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.distributed.signals import StopStep, catch_signals
from mlx_grpo.generation.rollout import OnToken
from mlx_grpo.generation.sampling import seed_step
from mlx_grpo.models.policy import load_adapter, load_policy
from mlx_grpo.models.prefix import shares_prompt
from mlx_grpo.planning.plan import check_memory
from mlx_grpo.rewards import Scores, check_columns, load_reward
from mlx_grpo.training.checkpoint import RunPosition, load_checkpoint
from mlx_grpo.training.groups import nonzero_variance, roll_out, training_rewards
from mlx_grpo.training.metrics import reward_metrics, samples, token_records
from mlx_grpo.training.optimizer import learning_rate_at
from mlx_grpo.training.progress import Reporter, SilentReporter
from mlx_grpo.training.run_logger import RunLogger
from mlx_grpo.training.state import TrainState, begin_grpo
from mlx_grpo.training.update import update_policy
from mlx_grpo.training.validation import validate, validation_prompts
from mlx_grpo.training.warm_start import check_completions, finished_warm_start, warm_start, warm_start_optimizer


def train(
    config: Config,
    reporter: Reporter,
    resumed: runs.Run | None = None,
    force: bool = False,
    ranks: Ranks | None = None,
    until: int | None = None,
) -> runs.Run:
    """Train as configured and return the run: a new one, or `resumed`, gone on with as if it had not stopped.

    `until` ends it after so many GRPO steps of its `max_steps`, in the state of one interrupted there. Raises UserError
    for anything wrong with the model, the data or the reward, or (unless `force`) memory that can't suffice, before a
    run folder is made, and Interrupted where Ctrl-C or SIGTERM ended the run, its state saved.
    """
    ranks = ranks or Ranks()
    reporter = reporter if ranks.leads else SilentReporter()
    state, prompts, heldout = prepare(config, ranks)
    if not resumed:
        finished_warm_start(config)  # what is wrong with it is told before a folder is made
    config = state.config
    processes = ranks.on_this_machine()
    if ranks.leads:
        check_memory(state.config, state.policy, prompts, reporter.note, force=force, processes=processes)
    run = runs.Run(Path(ranks.from_leader(lambda: str((resumed or runs.Run.create(config)).folder))))
    reporter.note(f"run folder: {run.folder}")
    if ranks.size > 1:
        reporter.note(f"{ranks.size} processes share each step")
    if not shares_prompt(model := state.policy.model):
        reporter.note(f"{model.model_type} keeps no plain key-value cache: each completion runs its own prompt")
    gc.freeze()  # what is loaded now stays; walking it again and again took 5% of a step
    with run.locked() if ranks.leads else nullcontext(), catch_signals() as stop:
        if resumed and ranks.leads:
            run.update_config(config)
        position = load_checkpoint(run, state, reporter.note) if resumed else None
        history = run.metrics() if position and ranks.leads else []
        logger = RunLogger(run, state, reporter, stop, position or RunPosition("warm_start"), history)
        if logger.position.phase == "warm_start":
            run_warm_start(logger, prompts)
        learn(logger, prompts, heldout, min(until or config.max_steps, config.max_steps))
    return run


def run_warm_start(logger: RunLogger, prompts: Sequence[Prompt]) -> None:
    """What comes before the first GRPO step: the warm start, taken from another run or trained, and its adapter."""
    state = logger.state
    config = state.config
    if taken := finished_warm_start(config):
        load_adapter(state.policy, taken)
        logger.reporter.note(f"warm start: that of {taken.parent}")
    elif config.warm_start.steps:
        warm_start(logger, prompts)
    if config.warm_start.steps:
        logger.save_adapter(runs.WARM_START)
    begin_grpo(state)
    logger.position = RunPosition("grpo")
    logger.save()


def learn(logger: RunLogger, prompts: Sequence[Prompt], heldout: Sequence[Prompt], until: int) -> None:
    """The GRPO steps up to `until`; with `heldout` prompts, the adapter that earned most on them is the one kept."""
    state, position, reporter = logger.state, logger.position, logger.reporter
    config = state.config
    if heldout and not position.steps:
        seed_step(config.seed, 1, 0, state.ranks.rank)
        logger.record({"step": -1, **save_best(logger, heldout, 0)})  # before the first step, which is number 0
        reporter.note(f"held-out reward before GRPO: {position.best.reward:.3f}")
    logger.begin("GRPO", config.max_steps)
    if until < config.max_steps:
        reporter.note(f"  to end after step {until}")
    for step in range(position.steps, until):
        seed_step(config.seed, 1, step, state.ranks.rank)
        try:
            metrics, rollouts, scores = train_step(state, prompts, step, logger.decoding)
        except StopStep:
            logger.leave(logger.stop.signal)
        position.tokens_seen += metrics["num_tokens"]
        metrics["num_tokens"] = position.tokens_seen
        if heldout and ((step + 1) % config.eval_steps == 0 or step + 1 == config.max_steps):
            metrics |= save_best(logger, heldout, step + 1)
        last = step + 1 == until
        logger.end_step(metrics, samples(step, rollouts, scores), token_records(rollouts, scores), last)
    if position.steps < config.max_steps:
        reporter.note(logger.how_to_go_on())
    if heldout:
        reporter.note(f"kept the adapter of step {position.best.steps}: held-out reward {position.best.reward:.3f}")


def prepare(config: Config, ranks: Ranks) -> tuple[TrainState, list[Prompt], list[Prompt]]:
    """All that a run needs, loaded and checked: the state, its prompts, and held-out ones where `eval_steps` asks."""
    reward = load_reward(config.reward)
    policy = load_policy(config)
    prompts = load_prompts(dataset_files(config.data)[0], policy.tokenizer, config.data.enable_thinking)
    check_lengths(prompts, config.max_completion_length, policy.model.args.max_position_embeddings)
    check_columns(config.reward, prompts)
    if config.warm_start.steps:
        check_completions(prompts)
    heldout = validation_prompts(config, policy) if config.eval_steps else []
    config = with_full_paths(config)  # `runs/latest` is another run once this one has its folder
    return TrainState(policy, config, reward, warm_start_optimizer(), None, ranks), prompts, heldout


def save_best(logger: RunLogger, heldout: Sequence[Prompt], steps: int) -> dict[str, float]:
    """Look at held-out prompts after `steps` steps; save the adapter if it beats the best so far. Returns metrics."""
    state, best = logger.state, logger.position.best
    metrics, rewards = validate(state, heldout)
    if best.beaten_by(rewards, steps):
        logger.save_adapter(runs.ADAPTER)
    return {**metrics, "eval/best_step": float(best.steps)}


def train_step(
    state: TrainState, prompts: Sequence[Prompt], step: int, on_token: OnToken | None = None
) -> tuple[dict[str, float], list[Rollout], Scores]:
    """One GRPO step: roll out, score, weigh, update. Returns the step's metrics, rollouts and scores."""
    started = time.perf_counter()
    config = state.config
    mx.reset_peak_memory()
    rollouts, scores, redrawn = roll_out(state, prompts, step, on_token)
    mx.clear_cache()  # decoding's buffers have other shapes than training's
    rewards = mx.array(scores.rewards.reshape(-1, config.num_generations), mx.float32)  # [P, G]
    paid = mx.array(training_rewards(scores, config, step), mx.float32)  # [P, G]
    advantages = grpo.group_advantages(paid, config.scale_rewards)  # [P, G]
    kept = nonzero_variance(scores, config) if config.dynamic_sampling else np.ones(len(rewards), bool)  # [P]
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
    update = update_policy(state, batch, rate)
    mx.clear_cache()
    metrics = {"step": step, **reward_metrics(rollouts, scores, rewards), **update, "learning_rate": rate}
    metrics |= {"groups/redrawn": float(redrawn), "groups/dropped": float((~kept).sum())}
    metrics["groups/branched"] = float(np.mean([bool(rollout.prompt.shared_prefix_ids) for rollout in rollouts]))
    metrics["step_time"] = time.perf_counter() - started
    metrics["peak_memory_gb"] = mx.get_peak_memory() / 2**30
    return metrics, rollouts, scores
