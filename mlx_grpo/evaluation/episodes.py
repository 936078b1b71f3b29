"""The comparison on held-out prompts: greedy, identical prompts for every model, in the file's order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlx_grpo.data.dataset import check_lengths, dataset_files, load_prompts, validation_rows
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.generators import Generate
from mlx_grpo.evaluation.run_matrix import build_run_matrix
from mlx_grpo.evaluation.summary import summarize
from mlx_grpo.models.checks import read_settings
from mlx_grpo.models.policy import find_model, load_tokenizer_of, model_name
from mlx_grpo.rewards import Reward, check_columns, has_gold_label, load_reward, rubric_reward, strip_thinking
from mlx_grpo.runs import Run
from reward import PUBLISHED
from reward.parsing import read_published, read_strict


def evaluate(
    runs: Sequence[Run],
    complete: Generate,
    *,
    episodes: int | None = None,
    backend: str,
    device: str,
    max_new_tokens: int,
    leads: bool = True,
) -> dict[str, Any]:
    """Complete the first run's held-out prompts with the base, and each run's warm start and adapter; score them by
    the first run's reward. Returns what eval.json holds; nothing in a process that helps to complete and does not lead.

    Raises UserError where a run has no held-out prompts or no adapter yet, or does not fit beside the first.
    """
    run = runs[0]
    config = run.config
    matrix = build_run_matrix(runs)
    base = find_model(config.model)
    prompts = heldout_prompts(run, episodes, runs[1:])
    check_columns(config.reward, prompts)
    check_lengths(prompts, max_new_tokens, read_settings(base).get("max_position_embeddings"), "max_new_tokens")
    reward = load_reward(config.reward)
    completed = {name: complete(name, base, adapter, prompts) for name, adapter in matrix.adapters.items()}
    if not leads:
        return {}
    models = {name: score_completions(prompts, completions, reward) for name, completions in completed.items()}
    return {
        "model": model_name(config.model),
        "run": run.name,
        "runs": {name: run.name for name, run in matrix.runs.items()},
        "rubric": config.reward.rubric or ", ".join(config.reward.functions),
        "backend": backend,
        "device": device,
        "n_episodes": len(prompts),
        "max_new_tokens": max_new_tokens,
        "kept_step": run.kept_step(),
        **summarize(models, matrix),
        "models": models,
    }


def heldout_prompts(run: Run, episodes: int | None = None, others: Sequence[Run] = ()) -> list[Prompt]:
    """The first `episodes` held-out prompts of a run (its config's number by default).

    Those that chose the adapter of this run or of the `others` are left out: they would flatter it.
    """
    config = run.config
    _, heldout = dataset_files(config.data)
    if heldout is None:
        raise UserError("data.heldout: not set, and training prompts prove nothing; name a held-out file")
    tokenizer = load_tokenizer_of(config.model)
    prompts = load_prompts(heldout, tokenizer, config.data.enable_thinking)
    choosers = [validation_rows(c, prompts) for c in (config, *(other.config for other in others)) if c.eval_steps]
    chose = {prompt.id for rows in choosers for prompt in rows}
    return [prompt for prompt in prompts if prompt.id not in chose][: episodes or config.eval.episodes]


def score_completions(prompts: Sequence[Prompt], completions: Sequence[str], reward: Reward) -> list[dict[str, Any]]:
    """One record for each episode: prompt id, completion, its reward and the reward's components.

    Rows with gold labels are graded by the published rubric as well, which every published figure uses, and their
    decision and score are read as it reads them. A completion without a decision is wrong, one without a score has
    none (and ranks below all that have one). Valid is a completion that is one JSON object and nothing else, no key
    twice.
    """
    scores = reward(prompts, completions)
    labelled = all(has_gold_label(prompt) for prompt in prompts)
    published = rubric_reward(PUBLISHED)(prompts, completions) if labelled else None
    by_job = all("job_id" in prompt.columns for prompt in prompts)
    episodes = []
    for i, (prompt, raw) in enumerate(zip(prompts, completions, strict=True)):
        completion = strip_thinking(raw)
        episode = {
            "prompt_id": prompt.id,
            "completion": completion,
            "characters": len(completion),
            "reward": float(scores.rewards[i]),
            "components": {name: float(values[i]) for name, values in scores.components.items()},
        }
        if published is not None:
            episode["published"] = float(published.rewards[i])
            found = read_strict(completion)
            episode["valid"] = found is not None and found.alone and not found.repeated
            episode["correct"] = bool(published.components["decision_match"][i])
            episode["score"] = said_score(completion)
            episode["gold"] = prompt.columns["decision"]
            episode["fit"] = prompt.columns["score"]
            episode |= {"job": str(prompt.columns["job_id"])} if by_job else {}
        episodes.append(episode)
    return episodes


def said_score(completion: str) -> float | None:
    """The score that a completion gives, clipped to [0, 1]; None where none can be read."""
    found = read_published(completion)
    try:
        score = float((found or {})["score"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(score) else min(1.0, max(0.0, score))
