"""Held-out rewards while a run trains, so that it keeps the best adapter it had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import check_lengths, dataset_files, load_prompts, validation_rows
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.generation.rollout import generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.policy import Policy
from mlx_grpo.rewards import check_columns, has_gold_label, rubric_reward, strip_thinking
from mlx_grpo.training.metrics import known_mean
from mlx_grpo.training.state import TrainState
from reward import PUBLISHED
from reward.parsing import read_published


@dataclass(slots=True)
class Best:
    """What the best adapter so far earned on each held-out prompt, and the number of GRPO steps behind it."""

    rewards: list[float] = field(default_factory=list)
    """NaN where the reward does not apply; empty before the first look."""
    steps: int = 0

    @property
    def reward(self) -> float:
        """Their mean."""
        return float(np.nanmean(self.rewards))

    def beaten_by(self, rewards: Sequence[float], steps: int) -> bool:
        """Whether these rewards are higher by more than chance; if so, they are the best from now on.

        More than chance is a mean of the paired differences above their standard error (the one-standard-error rule:
        Breiman et al., Classification and Regression Trees, 1984). A few dozen prompts tell no smaller gain from luck.
        """
        known = not np.isnan(self.rewards).all()  # nor is there anything to beat where no reward applied
        gains = np.array(rewards) - np.array(self.rewards if known else rewards)
        gains = gains[~np.isnan(gains)]
        error = gains.std(ddof=1) / np.sqrt(gains.size) if gains.size > 1 else 0.0
        if known and not (gains.size and gains.mean() > error):
            return False
        self.rewards, self.steps = list(rewards), steps
        return True


def validation_prompts(config: Config, policy: Policy) -> list[Prompt]:
    """The held-out prompts that choose the adapter, none of which `mlx-grpo eval` reads.

    Raises UserError where the held-out file has no row left for them.
    """
    _, heldout = dataset_files(config.data)
    if heldout is None:
        raise UserError("eval_steps: set, but data.heldout is not; name a held-out file, or set eval_steps to 0")
    prompts = load_prompts(heldout, policy.tokenizer, config.data.enable_thinking)
    spare = validation_rows(config, prompts)
    if not spare:
        raise UserError(
            f"eval_steps: set, but eval.episodes {config.eval.episodes} takes all {len(prompts)} held-out rows; "
            "lower it, or set eval_steps to 0"
        )
    check_columns(config.reward, spare)
    tokens = min(config.eval.max_new_tokens, config.max_completion_length)
    check_lengths(spare, tokens, policy.model.args.max_position_embeddings)
    return spare


def validate(state: TrainState, prompts: Sequence[Prompt]) -> tuple[dict[str, float], list[float]]:
    """Mean reward and components of greedy completions, by TRL's names for an evaluation; and each prompt's reward.

    Rows with gold labels add what no rubric that trains can hide: see `judgement`.
    """
    config, ranks = state.config, state.ranks
    sampling = Sampling(min(config.eval.max_new_tokens, config.max_completion_length), temperature=0)
    mine = ranks.share(prompts)
    labelled = all(map(has_gold_label, prompts))
    found = []
    for start in range(0, len(mine), config.eval.batch_size):
        rollouts = generate(state.policy, mine[start : start + config.eval.batch_size], 1, sampling)
        shown, completions = [r.prompt for r in rollouts], [r.completion for r in rollouts]
        scores = state.reward(shown, completions)
        columns = {f"eval/{name}": v for name, v in scores.components.items()} | {"eval/reward": scores.rewards}
        columns |= judgement(shown, completions) if labelled else {}
        found += [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]
    everyones = [row for rows in ranks.gather(found) for row in rows]
    means = {name: known_mean(np.array([row[name] for row in everyones])) for name in everyones[0]}
    return means, [row["eval/reward"] for row in everyones]


def judgement(prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, np.ndarray]:
    """What completions earn by the published rubric, whether their decision is right, and which it is, each [N].

    A decision counts whatever the score beside it; a completion without one neither shortlists nor rejects.
    """
    published = rubric_reward(PUBLISHED)(prompts, completions)
    decisions = [(read_published(strip_thinking(completion)) or {}).get("decision") for completion in completions]
    said = {
        "eval/shortlisted": np.array([decision == "shortlist" for decision in decisions], float),
        "eval/rejected": np.array([decision == "reject" for decision in decisions], float),
    }
    return {"eval/published": published.rewards, "eval/correct": published.components["decision_match"], **said}
