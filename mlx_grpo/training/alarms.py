"""Warnings from a run's metrics while it trains: reward hacking, entropy collapse, KL runaway, and the task's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mlx_grpo.tasks.base import Alarm

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
CUT_SHARE = 0.5
"""The share of a step's completions cut off inside their thought above which an alarm names the limit."""

Metrics = dict[str, Any]
TaskAlarms = Callable[[Sequence[Metrics]], Iterator[Alarm]]
"""Yields a task's own alarms from the metrics of the GRPO steps."""


def alarms(history: Sequence[Metrics], of_task: TaskAlarms | None = None) -> list[Alarm]:
    """Return the first alarm of each kind in a run's GRPO metrics so far, in the order of the steps."""
    steps = [record for record in history if record.get("reward") is not None]
    before = next((record for record in history if record["step"] < 0), {})  # the evaluation before the first step
    kinds = [_reward_hacking(steps, before), _entropy_collapse(steps), _kl_runaway(steps), _cut_in_thought(steps)]
    if of_task is not None:
        kinds.append(of_task(steps))
    firsts = [next(alarms_of_kind, None) for alarms_of_kind in kinds]
    return sorted(alarm for alarm in firsts if alarm is not None)


def raised_at(step: int, history: Sequence[Metrics], of_task: TaskAlarms | None = None) -> list[str]:
    """Return the lines of the alarms that are first raised at a step."""
    return [line for alarm_step, line in alarms(history, of_task) if alarm_step == step]


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


def _cut_in_thought(steps: Sequence[Metrics]) -> Iterator[Alarm]:
    """Detect a length limit that leaves a thinking policy no room for what is graded."""
    for record in steps:
        share = record.get("completions/cut_in_thought") or 0
        if share > CUT_SHARE:
            yield (
                record["step"],
                f"warning: {share:.0%} of the completions are cut off inside their thought, so there is nothing to "
                "grade in them; raise max_completion_length, or set data.enable_thinking to false",
            )
