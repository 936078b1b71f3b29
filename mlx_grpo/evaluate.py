"""The comparison on held-out prompts: greedy, identical prompts for every model, in the file's order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_grpo.completions import Generate
from mlx_grpo.data import check_lengths, dataset_files, load_prompts
from mlx_grpo.errors import UserError
from mlx_grpo.model_folder import read_settings
from mlx_grpo.policy import find_model, load_tokenizer_of, model_name
from mlx_grpo.runs import ADAPTER, RESULTS, WARM_START, kept_step, read_config
from mlx_grpo.scoring import Reward, check_columns, has_gold, load_reward, rubric_reward, strip_thinking
from mlx_grpo.types import Prompt
from reward import PUBLISHED

BOOTSTRAP_SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float


def evaluate(
    run: Path,
    complete: Generate,
    *,
    episodes: int | None = None,
    backend: str,
    device: str,
    max_new_tokens: int,
) -> dict[str, Any]:
    """Run base, warm start (where the run had one) and trained model over the held-out prompts; write eval.json.

    Raises UserError where the run has no held-out prompts or no adapter yet.
    """
    config = read_config(run)
    if not (run / ADAPTER).is_dir():
        raise UserError(f"{run}: has no {ADAPTER} yet; let `mlx-grpo train` finish first")
    base = find_model(config.model)
    prompts = heldout_prompts(run, episodes)
    check_columns(config.reward, prompts)
    check_lengths(prompts, max_new_tokens, read_settings(base).get("max_position_embeddings"))
    adapters = {"baseline": None, "warm start": run / WARM_START, "trained": run / ADAPTER}
    reward = load_reward(config.reward)
    models = {
        name: score_completions(prompts, complete(name, base, adapter, prompts), reward)
        for name, adapter in adapters.items()
        if adapter is None or adapter.is_dir()
    }
    results = {
        "model": model_name(config.model),
        "run": run.name,
        "rubric": config.reward.rubric or ", ".join(config.reward.functions),
        "backend": backend,
        "device": device,
        "n_episodes": len(prompts),
        "max_new_tokens": max_new_tokens,
        "kept_step": kept_step(run),
        **summarize(models, prompts),
        "models": models,
    }
    (run / RESULTS).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return results


def heldout_prompts(run: Path, episodes: int | None = None) -> list[Prompt]:
    """The first `episodes` held-out prompts of a run (its config's number by default)."""
    config = read_config(run)
    _, heldout = dataset_files(config.data)
    if heldout is None:
        raise UserError("data.heldout: not set, and training prompts prove nothing; name a held-out file")
    tokenizer = load_tokenizer_of(config.model)
    prompts = load_prompts(heldout, tokenizer, config.data.enable_thinking)
    return prompts[: episodes or config.eval.episodes]


def score_completions(prompts: Sequence[Prompt], completions: Sequence[str], reward: Reward) -> list[dict[str, Any]]:
    """One record for each episode: prompt id, completion, its reward and the reward's components.

    Rows with gold labels are graded by the published rubric as well, which every published figure uses.
    """
    scores = reward(prompts, completions)
    labelled = all(has_gold(prompt) for prompt in prompts)
    published = rubric_reward(PUBLISHED)(prompts, completions) if labelled else None
    episodes = []
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        episode = {
            "prompt_id": prompt.id,
            "completion": strip_thinking(completion),
            "reward": float(scores.rewards[i]),
            "components": {name: float(values[i]) for name, values in scores.components.items()},
        }
        if published is not None:
            episode["published"] = float(published.rewards[i])
            episode["correct"] = bool(published.components["decision_match"][i])
            episode["gold"] = prompt.columns["decision"]
        episodes.append(episode)
    return episodes


def summarize(models: dict[str, list[dict[str, Any]]], prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Means of each model, and each later model's paired difference from the baseline with its 95% interval."""
    summary: dict[str, Any] = {"means": {name: means(episodes) for name, episodes in models.items()}}
    base = models["baseline"]
    summary["differences"] = {
        name: {
            key: asdict(paired_difference(values_of(base, key), values_of(episodes, key)))
            for key in summary["means"][name]
        }
        for name, episodes in models.items()
        if name != "baseline"
    }
    if "warm start" in models:
        summary["grpo_over_warm_start"] = {
            key: asdict(paired_difference(values_of(models["warm start"], key), values_of(models["trained"], key)))
            for key in summary["means"]["trained"]
        }
    if all(has_gold(prompt) for prompt in prompts):
        labels = [prompt.columns["decision"] for prompt in prompts]
        summary["majority_class_rate"] = max(labels.count(label) for label in labels) / len(labels)
    return summary


def means(episodes: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The mean over episodes of the reward, the published reward and decision accuracy, and every component."""
    keys = [key for key in ("reward", "published", "correct") if key in episodes[0]]
    return {key: float(np.nanmean(values_of(episodes, key))) for key in [*keys, *episodes[0]["components"]]}


def values_of(episodes: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    """One figure of every episode, [E]."""
    return np.array([float(e[key] if key in e else e["components"][key]) for e in episodes])


def paired_difference(baseline: np.ndarray, trained: np.ndarray, seed: int = 0) -> Interval:
    """The mean of trained - baseline over episodes [E], with a 95% paired bootstrap interval (percentiles)."""
    differences = trained - baseline
    differences = differences[~np.isnan(differences)]  # where the reward applies to both
    draws = np.random.default_rng(seed).integers(0, differences.size, (BOOTSTRAP_SAMPLES, differences.size))
    low, high = np.percentile(differences[draws].mean(axis=1), [2.5, 97.5])
    return Interval(float(differences.mean()), float(low), float(high))
