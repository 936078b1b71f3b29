"""What a run's metrics warn of while it trains: a hacked reward, one answer for all, a collapsed entropy, a runaway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

REWARD_RISE = 0.03
"""Reward is up if its mean since a look at held-out prompts exceeds that before by this much."""
DECISIONS_FALL = 0.1
"""Held-out decisions are down by this share of them: 4 of 32 prompts, where one to three may be chance."""
ONE_DECISION = 0.95
"""A share of the held-out candidates with the same decision: all but one of 32, so that one outlier hides nothing."""
MOSTLY_RIGHT = 0.9
"""One decision for all is as it should be where it is right for so many."""
ENTROPY_SHARE = 0.1
KL_BOUND = 1.0
"""Nats per token: completions that the reference would hardly write."""
KL_GROWTH = 10
KL_FLOOR = 0.05
"""Below it a KL may grow tenfold without harm, as it does in every run's first steps."""
KL_WINDOW = 10

Metrics = dict[str, Any]
Alarm = tuple[int, str]
"""The step's index and one line."""


def alarms(history: Sequence[Metrics]) -> list[Alarm]:
    """The first alarm of each kind in a run's GRPO metrics so far, in the order of the steps."""
    steps = [record for record in history if record.get("reward") is not None]
    before = next((record for record in history if record["step"] < 0), {})  # a look before the first step
    kinds = (_hacking(steps, before), _one_decision(steps), _entropy_collapse(steps), _kl_runaway(steps))
    found = [next(alarm, None) for alarm in kinds]
    return sorted(alarm for alarm in found if alarm is not None)


def raised_at(step: int, history: Sequence[Metrics]) -> list[str]:
    """The lines of the alarms that a step raised first."""
    return [line for at, line in alarms(history) if at == step]


def _hacking(steps: Sequence[Metrics], before: Metrics) -> Iterator[Alarm]:
    """Reward up and held-out decisions down since an earlier look: the policy learned what only pays in training."""
    looks: list[tuple[float, float]] = []  # (mean reward up to the look since the one before, decisions right)
    if steps and (first := _decisions(before)) is not None:
        looks.append((steps[0]["reward"], first))  # what the policy earned that was looked at
    since: list[float] = []
    for record in steps:
        since.append(record["reward"])
        decisions = _decisions(record)
        if decisions is None:
            continue
        reward = float(np.mean(since))
        for earlier, right in looks:
            if reward - earlier >= REWARD_RISE and right - decisions >= DECISIONS_FALL:
                yield (
                    record["step"],
                    f"warning: reward rose from {earlier:.3f} to {reward:.3f} while held-out decisions fell from "
                    f"{right:.2f} to {decisions:.2f}: read samples.jsonl for what the policy found to be paid",
                )
        looks.append((reward, decisions))
        since = []


def _decisions(record: Metrics) -> float | None:
    """The share of right decisions in a look; older runs kept the rubric's mark alone, which the score lowers."""
    return record.get("eval/correct", record.get("eval/decision_match"))


def _one_decision(steps: Sequence[Metrics]) -> Iterator[Alarm]:
    """A constant decision is right for as many as deserve it, so no count of right ones shows it."""
    for record in steps:
        shares = {"shortlist": record.get("eval/shortlisted") or 0, "reject": record.get("eval/rejected") or 0}
        decision, share = max(shares.items(), key=lambda item: item[1])
        if share < ONE_DECISION or record["eval/correct"] >= MOSTLY_RIGHT:
            continue
        yield (
            record["step"],
            f"warning: {share:.0%} of the held-out candidates get the same decision, {decision}, right "
            f"for {record['eval/correct']:.0%}: whatever the reward says, the policy judges nobody",
        )


def _entropy_collapse(steps: Sequence[Metrics]) -> Iterator[Alarm]:
    """Completions of a prompt are all alike, and groups without differences teach nothing."""
    entropies = [(record["step"], record["entropy"]) for record in steps if record["entropy"] is not None]
    for step, now in entropies:
        first = entropies[0][1]
        if now < ENTROPY_SHARE * first:
            yield (
                step,
                f"warning: entropy fell from {first:.3f} to {now:.3f}: completions grow alike; "
                "lower learning_rate, or raise temperature, epsilon_high or beta",
            )


def _kl_runaway(steps: Sequence[Metrics]) -> Iterator[Alarm]:
    """The policy leaves its reference faster than beta holds it."""
    kls = [(record["step"], record["kl"]) for record in steps if record["kl"] is not None]
    for i, (step, kl) in enumerate(kls):
        before = [earlier for _, earlier in kls[max(0, i - KL_WINDOW) : i]]
        # The floor first: a median for each step of a long run, at every step, would take longer than the steps.
        grew = kl > KL_FLOOR and len(before) == KL_WINDOW and kl > KL_GROWTH * float(np.median(before))
        if grew or kl > KL_BOUND:
            since = f", over {KL_GROWTH} times that of the steps before" if grew else ""
            yield (
                step,
                f"warning: kl is {kl:.3f} nats per token{since}: the policy runs away from its reference; "
                "lower learning_rate, or raise beta",
            )
