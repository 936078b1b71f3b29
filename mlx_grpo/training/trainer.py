"""GRPO from beginning to end: `grpo_steps` is the algorithm, the rest starts, logs and saves a run.

P prompts, G completions each, N = P·G rows, T padded completion length. The mathematics is in mlx_grpo/grpo.py.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import make_batch
from mlx_grpo.data.dataset import (
    check_lengths,
    dataset_files,
    load_prompts,
    untemplated,
    with_full_paths,
)
from mlx_grpo.data.sampling import sample_prompts
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.distributed.signals import Stop, StopStep, catch_signals
from mlx_grpo.errors import UserError
from mlx_grpo.generation.rollout import OnToken
from mlx_grpo.generation.sampling import seed_step
from mlx_grpo.grpo import group_advantages
from mlx_grpo.models.experts import has_experts
from mlx_grpo.models.policy import load_adapter, load_policy
from mlx_grpo.models.prefix import prompt_path, shares_prompt
from mlx_grpo.rewards import Scores, check_columns, column_warnings, load_judge, load_reward
from mlx_grpo.runs import ADAPTER, WARM_START, Run
from mlx_grpo.training.checkpoint import RunPosition, load_checkpoint
from mlx_grpo.training.groups import (
    RewardFailed,
    generate_groups,
    groups_to_train,
    redraw_zero_variance,
    score_groups,
    select_groups,
    training_rewards,
)
from mlx_grpo.training.measure import check_memory
from mlx_grpo.training.metrics import group_metrics, mean_update, reward_metrics, samples, token_records
from mlx_grpo.training.optimizer import grpo_learning_rate
from mlx_grpo.training.progress import Reporter, SilentReporter
from mlx_grpo.training.run_logger import RunLogger
from mlx_grpo.training.state import TrainState, begin_grpo
from mlx_grpo.training.trackers import check_trackers
from mlx_grpo.training.update import entropy_mask, loss_gradients, token_logps, update_policy
from mlx_grpo.training.validation import validate, validation_prompts
from mlx_grpo.training.warm_start import check_completions, find_warm_start, train_warm_start, warm_start_optimizer

OnScores = Callable[[Sequence[Rollout], Scores], None]
"""Called with the rollouts and scores of each step before its update."""


class Step(NamedTuple):
    """The result of one GRPO step: its metrics, and the N rollouts with their scores."""

    metrics: dict[str, Any]
    rollouts: list[Rollout]
    scores: Scores


def grpo_steps(
    state: TrainState,
    dataset: Sequence[Prompt],
    steps: Iterable[int],
    on_token: OnToken | None = None,
    on_scores: OnScores | None = None,
) -> Iterator[Step]:
    """Take the GRPO steps of the given numbers in order, and yield each after its update."""
    config = state.config
    for step in steps:
        started = time.perf_counter()
        mx.reset_peak_memory()
        seed_step(config.seed, 1, step, state.ranks.rank)

        prompts = sample_prompts(dataset, config.prompts_per_step, config.seed, step, config.data)  # P
        rollouts = generate_groups(state, prompts, step, on_token)  # N, prompt-major
        scores = score_groups(state, rollouts, step)  # rewards and components [N]
        rollouts, scores, redrawn = redraw_zero_variance(state, dataset, rollouts, scores, step, on_token)
        if on_scores:
            on_scores(rollouts, scores)
        mx.clear_cache()  # the buffers of decoding have other shapes than those of training
        advantages = group_advantages(training_rewards(scores, config, step), config.advantage_scale)  # [P, G]
        kept = groups_to_train(scores, config)  # indices of P or fewer groups
        batch = make_batch(
            select_groups(rollouts, kept, config.num_generations),
            advantages[mx.array(kept)],
            config.mask_truncated_completions,
        )  # completion_ids, mask [N, T]
        logps = token_logps(state, batch)  # old and reference [N, T], where the loss needs them
        rate = grpo_learning_rate(config, step)
        updates = []
        for iteration in range(config.num_iterations):
            term_mask = entropy_mask(state, batch, iteration)  # [N, T], or None for all tokens
            loss = loss_gradients(state, batch, logps, term_mask)  # grpo_loss and its gradient, by micro-batch
            updates.append(update_policy(state, loss, rate))  # clipping, AdamW
            del loss  # or its gradients would exist beside the next ones
        mx.clear_cache()

        yield Step(
            {
                "step": step,
                **reward_metrics(rollouts, scores, config),
                **mean_update(updates),
                "learning_rate": rate,
                **group_metrics(rollouts, redrawn, len(prompts) - len(kept)),
                "step_time": time.perf_counter() - started,
                "peak_memory_gb": mx.get_peak_memory() / 2**30,
            },
            rollouts,
            scores,
        )


def train(
    config: Config,
    reporter: Reporter,
    resumed: Run | None = None,
    *,
    force: bool = False,
    ranks: Ranks | None = None,
    until: int | None = None,
) -> Run:
    """Train as configured and return the run: a new one, or `resumed`, bit for bit as if it had never stopped.

    `until` ends the run after that many of its `max_steps` GRPO steps, as if it had been interrupted there. Raises
    UserError, before a run folder is made, for any fault in the model, the data or the reward, and (unless `force`) for
    too little memory. Raises Interrupted where Ctrl-C or SIGTERM ended the run; its state is saved then.
    """
    ranks = ranks or Ranks()
    reporter = reporter if ranks.leads else SilentReporter()
    # Of a run's first day, on every machine: a template may write the date.
    today = ranks.from_leader(lambda: resumed.today if resumed else date.today().isoformat())
    state, dataset, validation = prepare(config, ranks, today)
    if not resumed:
        find_warm_start(state.config)  # raises UserError before a folder is made
    config = state.config  # with absolute paths: `runs/latest` names another run once this one has its folder
    processes = ranks.on_this_machine()
    if ranks.leads:
        check_memory(state, dataset, reporter.note, force=force, processes=processes)
    run = Run(Path(ranks.from_leader(lambda: str((resumed or Run.create(config, today)).folder))))
    _report_setup(run, state, dataset, reporter)
    gc.freeze()  # all that is loaded now stays; scanning it took the garbage collector 5% of a step
    with run.locked() if ranks.leads else nullcontext(), catch_signals() as stop:
        if resumed and ranks.leads:
            run.update_config(config)
        logger = _open_logger(run, state, reporter, stop, resumes=resumed is not None)
        with logger.tracking():
            if logger.position.phase == "warm_start":
                run_warm_start(logger, dataset)
            run_grpo(logger, dataset, validation, min(until or config.max_steps, config.max_steps))
    return run


def _open_logger(run: Run, state: TrainState, reporter: Reporter, stop: Stop, resumes: bool) -> RunLogger:
    """Load the newest checkpoint of a run that is resumed, and return the logger at its position."""
    loaded = load_checkpoint(run, state, reporter.note) if resumes else None
    position, changes = loaded or (RunPosition("warm_start"), {})
    history = run.metrics() if loaded and state.ranks.leads else []
    return RunLogger(run, state, reporter, stop, position, history, changes)


def prepare(config: Config, ranks: Ranks, today: str | None = None) -> tuple[TrainState, list[Prompt], list[Prompt]]:
    """Load and check a run's state, its dataset, and its validation split (empty without `eval_steps`).

    `today` is the date in its prompts. Raises UserError for any fault in the model, the data or the reward.
    """
    reward = load_reward(config.reward)
    load_judge(config)  # raises UserError before the model is loaded
    check_trackers(config)
    policy = load_policy(config)
    dataset = load_prompts(dataset_files(config.data)[0], policy.tokenizer, config.data.enable_thinking, today)
    check_lengths(dataset, config.max_completion_length, policy.length_limit)
    check_columns(config.reward, dataset)
    if config.warm_start.steps:
        check_completions(policy, dataset)
    validation = validation_prompts(config, policy, today) if config.eval_steps else []
    config = with_full_paths(config)  # after the checks, whose messages name paths as the user wrote them
    return TrainState(policy, config, reward, warm_start_optimizer(), None, ranks), dataset, validation


def _report_setup(run: Run, state: TrainState, dataset: Sequence[Prompt], reporter: Reporter) -> None:
    """Report the run's folder, its processes, dropped columns, and what its prompts or its model can't do."""
    model = state.policy.model
    reporter.note(f"run folder: {run.folder}")
    if plain := untemplated(dataset, state.policy.tokenizer):
        reporter.note(f"data.train: {plain}")
    if state.ranks.size > 1:
        reporter.note(f"{state.ranks.size} processes share each step")
    if has_experts(model):
        reporter.note(f"{model.model_type} is a mixture of experts: the experts stay as they are, all else learns")
    if not shares_prompt(model):
        reporter.note(prompt_path(model))
    for warning in column_warnings(state.config.reward, dataset):
        reporter.note(warning)


def run_warm_start(logger: RunLogger, dataset: Sequence[Prompt]) -> None:
    """Load another run's warm start or train one, save its adapter, and begin the GRPO phase from it."""
    state, config = logger.state, logger.state.config
    adapter = find_warm_start(config)
    if adapter is not None:
        load_adapter(state.policy, adapter)
        logger.reporter.note(f"warm start: that of {adapter.parent}")
    elif config.warm_start.steps:
        train_warm_start(logger, dataset)
    if config.warm_start.steps:
        logger.save_adapter(WARM_START)
    begin_grpo(state)
    logger.position = RunPosition("grpo")
    logger.save()


def run_grpo(logger: RunLogger, dataset: Sequence[Prompt], validation: Sequence[Prompt], until: int) -> None:
    """Take, log and save the GRPO steps up to `until`; with a validation split, keep the best adapter on it."""
    state, position, config = logger.state, logger.position, logger.state.config
    if validation and not position.steps:
        seed_step(config.seed, 1, 0, state.ranks.rank)
        logger.record({"step": -1, **save_best(logger, validation, 0)})  # before the first step, which is number 0
        logger.reporter.note(f"held-out reward before GRPO: {position.best.reward:.3f}")
    logger.begin("GRPO", config.max_steps)
    if until < config.max_steps:
        logger.reporter.note(f"  to end after step {until}")
    steps = grpo_steps(state, dataset, range(position.steps, until), logger.decoding, logger.first_rollouts)
    try:
        for metrics, rollouts, scores in steps:
            step = metrics["step"]
            position.tokens_seen += metrics["num_tokens"]
            metrics["num_tokens"] = position.tokens_seen
            if validation and ((step + 1) % config.eval_steps == 0 or step + 1 == config.max_steps):
                metrics |= save_best(logger, validation, step + 1)
            last = step + 1 == until
            logger.end_step(metrics, samples(step, rollouts, scores), token_records(rollouts, scores), last)
    except StopStep as stopped:
        logger.interrupt(stopped.signal)
    except RewardFailed as failure:
        logger.save()
        advice = [logger.resume_advice()] if state.ranks.leads else []  # others save nothing
        raise UserError(*failure.problems, *advice) from failure
    if position.steps < config.max_steps:
        logger.reporter.note(logger.resume_advice())
    if validation:
        best = position.best
        logger.reporter.note(f"kept the adapter of step {best.steps}: held-out reward {best.reward:.3f}")


def save_best(logger: RunLogger, validation: Sequence[Prompt], steps: int) -> dict[str, float]:
    """Evaluate on the validation split and save the adapter if it is the best so far; return the metrics.

    `steps` is the number of GRPO steps taken.
    """
    best = logger.position.best
    metrics, rewards = validate(logger.state, validation)
    if best.replace_if_better(rewards, steps):
        logger.save_adapter(ADAPTER)
    return {**metrics, "eval/best_step": float(best.steps)}
