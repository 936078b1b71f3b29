"""Lines for the user from a run's metrics: a report before the first update, and warnings while it trains.

Warnings: equal rewards within groups, cut completions, no learning, a constant reward function, reward hacking,
entropy collapse, KL runaway, and the task's own. Each kind is raised once in a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mlx_grpo.tasks.base import Alarm
from mlx_grpo.user_functions import CHAT_SHAPE

REWARD_RISE = 0.03
"""Reward is up if its mean since one evaluation exceeds the mean before it by this much."""
ACCURACY_FALL = 0.1
"""Accuracy is down if the share of correct completions falls by this much: 4 of 32 prompts; fewer may be chance."""
ENTROPY_SHARE = 0.1
"""Entropy has collapsed below this share of the first step's."""
KL_BOUND = 1.0
"""Nats per token; above it the reference would hardly write the completions."""
KL_GROWTH = 10
"""KL runs away where it exceeds the median of the last `KL_WINDOW` steps this many times."""
KL_FLOOR = 0.05
"""Below it a KL may grow tenfold without harm, as in every run's first steps."""
KL_WINDOW = 10
MOST = 0.5
"""Groups with equal rewards, or completions cut off, are most of a step's above this share."""
PERSISTENT_STEPS = 5
"""Most of one step may be chance; an alarm needs so many steps in a row."""
LEARNING_STEPS = 50
"""Rewards of a step vary with its prompts; after so many steps, and each multiple, a gain must show."""
LEARNING_WINDOW = 25
"""The first and the last so many steps are compared."""
MORE_SPREAD = (
    "a warm start (warm_start.steps), a softer reward that gives part of the points, more completions of each prompt "
    "(num_generations), or dynamic_sampling"
)

Metrics = dict[str, Any]
TaskAlarms = Callable[[Sequence[Metrics]], Iterator[Alarm]]
"""Yields a task's own alarms from the metrics of the GRPO steps."""


def first_step(metrics: Metrics, spread: float, valid: float | None, longest: int) -> list[str]:
    """Return the report of the first step's rollouts, and a warning where no group has two different rewards.

    `spread` is the mean standard deviation within groups, `valid` the share of valid completions, None where it is
    unknown, and `longest` the limit of a completion's tokens.
    """
    of_valid = "" if valid is None else f"{valid:.0%} valid, "
    equal, cut = metrics["frac_reward_zero_std"], metrics["completions/clipped_ratio"]
    in_thought = metrics["completions/cut_in_thought"]
    of_thought = f", {in_thought:.0%} inside their thought" if in_thought else ""
    lines = [
        f"first rollouts: {of_valid}reward {metrics['reward']:.3f}, spread within groups {spread:.3f} "
        f"(0 in {equal:.0%} of them), {cut:.0%} cut off at {longest} tokens{of_thought}"
    ]
    if equal == 1:
        lines.append(
            "warning: no group of the first step has two different rewards, so there is nothing to learn from yet; "
            f"what helps: {MORE_SPREAD}"
        )
    return lines


def alarms(history: Sequence[Metrics], of_task: TaskAlarms | None = None, functions: Sequence[str] = ()) -> list[Alarm]:
    """Return the first alarm of each kind in a run's GRPO metrics so far, in the order of the steps.

    `functions` names the user's own reward functions in the metrics.
    """
    steps = [record for record in history if record.get("reward") is not None]
    before = next((record for record in history if record["step"] < 0), {})  # the evaluation before the first step
    kinds = [
        _reward_hacking(steps, before),
        _entropy_collapse(steps),
        _kl_runaway(steps),
        _equal_rewards(history),
        _cut_completions(history),
        _no_learning(steps),
        *(_constant_function(steps, name) for name in functions),
    ]
    if of_task is not None:
        kinds.append(of_task(steps))
    firsts = [next(alarms_of_kind, None) for alarms_of_kind in kinds]
    return sorted(alarm for alarm in firsts if alarm is not None)


def raised_at(
    step: int, history: Sequence[Metrics], of_task: TaskAlarms | None = None, functions: Sequence[str] = ()
) -> list[str]:
    """Return the lines of the alarms that are first raised at a step."""
    return [line for alarm_step, line in alarms(history, of_task, functions) if alarm_step == step]


def _reward_hacking(steps: Sequence[Metrics], before: Metrics) -> Iterator[Alarm]:
    """Detect a reward that rises while fewer held-out completions are correct than at an earlier evaluation.

    `before` is the evaluation before the first step, {} where there was none.
    """
    evaluations: list[
        tuple[float, float]
    ] = []  # (mean reward since the evaluation before, share of correct completions)
    first = _correct_share(before)
    if steps and first is not None:
        evaluations.append((steps[0]["reward"], first))  # the first step's reward is that of the evaluated policy
    rewards: list[float] = []
    for record in steps:
        rewards.append(record["reward"])
        correct = _correct_share(record)
        if correct is None:
            continue
        reward = float(np.mean(rewards))
        for old_reward, old_correct in evaluations:
            if reward - old_reward >= REWARD_RISE and old_correct - correct >= ACCURACY_FALL:
                yield (
                    record["step"],
                    f"warning: reward rose from {old_reward:.3f} to {reward:.3f} while held-out accuracy fell from "
                    f"{old_correct:.2f} to {correct:.2f}: read samples.jsonl for what the policy found to be paid",
                )
        evaluations.append((reward, correct))
        rewards = []


def _correct_share(record: Metrics) -> float | None:
    """Return the accuracy in an evaluation, None where a step has none.

    Older runs recorded only the rubric's `decision_match`, which also depends on the score.
    """
    return record.get("eval/correct", record.get("eval/decision_match"))


def _entropy_collapse(steps: Sequence[Metrics]) -> Iterator[Alarm]:
    """Detect a policy that writes the same completion every time: zero-variance groups have no gradient."""
    entropies = [(record["step"], record["entropy"]) for record in steps if record["entropy"] is not None]
    for step, entropy in entropies:
        first = entropies[0][1]
        if entropy < ENTROPY_SHARE * first:
            yield (
                step,
                f"warning: entropy fell from {first:.3f} to {entropy:.3f}: completions grow alike; "
                "lower learning_rate, or raise temperature, epsilon_high or beta",
            )


def _kl_runaway(steps: Sequence[Metrics]) -> Iterator[Alarm]:
    """Detect a policy that leaves its reference faster than beta can prevent."""
    kls = [(record["step"], record["kl"]) for record in steps if record["kl"] is not None]
    for i, (step, kl) in enumerate(kls):
        before = [earlier for _, earlier in kls[max(0, i - KL_WINDOW) : i]]
        # The floor comes first: at every step, a median for each earlier step would take longer than the step itself.
        grew = kl > KL_FLOOR and len(before) == KL_WINDOW and kl > KL_GROWTH * float(np.median(before))
        if grew or kl > KL_BOUND:
            since = f", over {KL_GROWTH} times that of the steps before" if grew else ""
            yield (
                step,
                f"warning: kl is {kl:.3f} nats per token{since}: the policy runs away from its reference; "
                "lower learning_rate, or raise beta",
            )


def _equal_rewards(history: Sequence[Metrics]) -> Iterator[Alarm]:
    """Detect steps most of whose groups have a gradient of 0, since their rewards are equal."""
    for record in _mostly(history, "frac_reward_zero_std"):
        yield (
            record["step"],
            f"warning: {record['frac_reward_zero_std']:.0%} of the groups have equal rewards, and most had in each of "
            f"the last {PERSISTENT_STEPS} steps: they teach nothing; what helps: {MORE_SPREAD}",
        )


def _cut_completions(history: Sequence[Metrics]) -> Iterator[Alarm]:
    """Detect steps most of whose completions reach the length limit before they end, or before their thought does."""
    for record in _mostly(history, "completions/clipped_ratio"):
        cut, in_thought = record["completions/clipped_ratio"], record.get("completions/cut_in_thought") or 0
        where, or_else = "", "ask for shorter ones in the prompt"
        if in_thought > cut / 2:
            where = f" ({in_thought:.0%} inside their thought, with nothing to grade)"
            or_else = "set data.enable_thinking to false"
        yield (
            record["step"],
            f"warning: {cut:.0%} of the completions are cut off{where}, and most were in each of the last "
            f"{PERSISTENT_STEPS} steps: raise max_completion_length, or {or_else}",
        )


def _mostly(history: Sequence[Metrics], name: str) -> Iterator[Metrics]:
    """Yield the metrics of each step at which a share has been above MOST for PERSISTENT_STEPS steps."""
    in_a_row = 0
    for record in history:
        share = record.get(name)
        if share is None:
            continue
        in_a_row = in_a_row + 1 if share > MOST else 0
        if in_a_row >= PERSISTENT_STEPS:
            yield record


def _no_learning(steps: Sequence[Metrics]) -> Iterator[Alarm]:
    """Detect a reward that is no higher than at the beginning, by more than the standard error of the difference."""
    rewards = np.array([record["reward"] for record in steps])
    first = rewards[:LEARNING_WINDOW]
    for taken in range(LEARNING_STEPS, len(steps) + 1, LEARNING_STEPS):
        last = rewards[taken - LEARNING_WINDOW : taken]
        error = np.sqrt((first.var(ddof=1) + last.var(ddof=1)) / LEARNING_WINDOW)
        if last.mean() - first.mean() > error:
            continue
        yield (
            steps[taken - 1]["step"],
            f"warning: nothing learned in {taken} steps: reward {first.mean():.3f} in the first {LEARNING_WINDOW}, "
            f"{last.mean():.3f} in the last {LEARNING_WINDOW}; read samples.jsonl, look at frac_reward_zero_std and "
            "grad_norm, or raise learning_rate",
        )


def _constant_function(steps: Sequence[Metrics], name: str) -> Iterator[Alarm]:
    """Detect a reward function that gives every completion of a step one value."""
    for record in steps:
        if record.get(f"rewards/{name}/std") == 0:
            yield (
                record["step"],
                f"warning: {name} gave {record[f'rewards/{name}/mean']:.4g} to every completion of step "
                f"{record['step'] + 1}; if it should tell them apart, check what it reads{CHAT_SHAPE}",
            )
