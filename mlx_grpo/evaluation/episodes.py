"""Held-out prompts, and their completions as scored episodes, in the order of the held-out file."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlx_grpo.data.dataset import dataset_files, load_prompts, validation_rows
from mlx_grpo.data.jsonl import Record
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import load_tokenizer_of
from mlx_grpo.rewards import Reward, has_gold_label, rubric_reward, strip_thinking
from mlx_grpo.runs import Run
from reward import PUBLISHED
from reward.parsing import read_published, read_strict


def heldout_prompts(run: Run, episodes: int | None = None, others: Sequence[Run] = ()) -> list[Prompt]:
    """Return the first `episodes` held-out prompts of a run (its config's number by default).

    The prompts that chose the adapter of this run or of the `others` are left out, since they would flatter it.
    Raises UserError where the run has no held-out prompts.
    """
    config = run.config
    _, heldout = dataset_files(config.data)
    if heldout is None:
        raise UserError("data.heldout: not set, and training prompts prove nothing; name a held-out file")
    tokenizer = load_tokenizer_of(config.model)
    prompts = load_prompts(heldout, tokenizer, config.data.enable_thinking)
    used: set[str] = set()
    for each in (config, *(other.config for other in others)):
        if each.eval_steps:
            used |= {prompt.id for prompt in validation_rows(each, prompts)}
    return [prompt for prompt in prompts if prompt.id not in used][: episodes or config.eval.episodes]


def score_completions(prompts: Sequence[Prompt], completions: Sequence[str], reward: Reward) -> list[Record]:
    """Return an episode for each prompt: its id, completion, reward and the reward's components.

    An episode whose row has gold labels is graded by the published rubric as well; see `_labelled_figures`.
    """
    scores = reward(prompts, completions)
    labelled = all(has_gold_label(prompt) for prompt in prompts)
    published = rubric_reward(PUBLISHED)(prompts, completions) if labelled else None
    by_job = all("job_id" in prompt.columns for prompt in prompts)
    episodes = []
    for i, (prompt, raw) in enumerate(zip(prompts, completions, strict=True)):
        completion = strip_thinking(raw)
        episode: Record = {
            "prompt_id": prompt.id,
            "completion": completion,
            "characters": len(completion),
            "reward": float(scores.rewards[i]),
            "components": {name: float(values[i]) for name, values in scores.components.items()},
        }
        if published is not None:
            correct = bool(published.components["decision_match"][i])
            episode |= _labelled_figures(prompt, completion, float(published.rewards[i]), correct)
            episode |= {"job": str(prompt.columns["job_id"])} if by_job else {}
        episodes.append(episode)
    return episodes


def _labelled_figures(prompt: Prompt, completion: str, published: float, correct: bool) -> Record:
    """Return the figures of an episode that has a gold label.

    Decision and score are read as the published rubric reads them, which every published figure uses. A completion
    without a decision is wrong; one without a score has none, and ranks below all that have one. A valid one is a
    single JSON object and nothing else, without a repeated key.
    """
    strict = read_strict(completion)
    return {
        "published": published,
        "valid": strict is not None and strict.alone and not strict.repeated,
        "correct": correct,
        "score": read_score(completion),
        "gold": prompt.columns["decision"],
        "fit": prompt.columns["score"],
    }


def read_score(completion: str) -> float | None:
    """Return a completion's score, clipped to [0, 1]; None where none can be read."""
    fields = read_published(completion) or {}
    try:
        score = float(fields["score"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(score) else min(1.0, max(0.0, score))
