"""What the evaluation found of the first run, as pictures, drawn from eval.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from mlx_grpo.reporting.plots_training import BLUE, GREY, LEGEND, ORANGE, SIZE, save, span
from mlx_grpo.reporting.tables import BASELINE, component_names, first_run

COLOURS = {BASELINE: GREY, "warm start": ORANGE, "trained": BLUE}
BINS = 10


def draw_evaluation(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write the pictures of an evaluation into a folder, and return their paths."""
    pictures = {
        "baseline_vs_trained": baseline_vs_trained,
        "reward_components": reward_components,
        "reward_distribution": reward_distribution,
    }
    if "fit" in results["models"][BASELINE][0]:
        pictures |= {"calibration": calibration, "before_after": before_after}
    return [save(draw(results), folder / f"{name}.png") for name, draw in pictures.items()]


def baseline_vs_trained(results: dict[str, Any]) -> plt.Figure:
    """Reward of each held-out episode, baseline against trained, in order of the baseline's reward."""
    baseline, trained = _rewards(results, BASELINE), _rewards(results, "trained")
    order = np.lexsort((trained, baseline))
    figure, axes = plt.subplots(figsize=SIZE)
    place = np.arange(1, len(order) + 1)
    axes.vlines(place, baseline[order], trained[order], color="#d5d9de", linewidth=1)
    axes.plot(place, baseline[order], "o", color=COLOURS[BASELINE], markersize=4, label="baseline")
    axes.plot(place, trained[order], "o", color=COLOURS["trained"], markersize=4, label="trained")
    axes.set(xlabel="held-out episode, by baseline reward", ylabel="reward", ylim=span(baseline, trained))
    axes.set_title(f"Baseline {baseline.mean():.3f}, trained {trained.mean():.3f} over {len(order)} episodes")
    figure.legend(**LEGEND)
    return figure


def reward_components(results: dict[str, Any]) -> plt.Figure:
    """The mean of each reward component for every model."""
    names = component_names(results)
    models = first_run(results)
    figure, axes = plt.subplots(figsize=SIZE)
    height = 0.8 / len(models)
    for i, model in enumerate(models):
        values = np.array([results["means"][model][name] for name in names], float)
        places = np.arange(len(names)) + (i - (len(models) - 1) / 2) * height
        bars = axes.barh(places, values, height, color=COLOURS[model], label=model)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="mean over held-out episodes", title="Reward components")
    axes.margins(x=0.1)
    figure.legend(**LEGEND)
    return figure


def reward_distribution(results: dict[str, Any]) -> plt.Figure:
    """Histogram of episode rewards, baseline and trained."""
    figure, axes = plt.subplots(figsize=SIZE)
    low, high = span(*(_rewards(results, model) for model in (BASELINE, "trained")))
    bins = np.linspace(low, high, 26)
    for model in (BASELINE, "trained"):
        rewards = _rewards(results, model)
        rewards = rewards[np.isfinite(rewards)]  # a reward may apply to none of the episodes
        axes.hist(rewards, bins, color=COLOURS[model], alpha=0.75, label=model, edgecolor="white")
    axes.set(xlabel="episode reward", ylabel="held-out episodes", title="Distribution of rewards")
    axes.yaxis.get_major_locator().set_params(integer=True)
    figure.legend(**LEGEND)
    return figure


def calibration(results: dict[str, Any]) -> plt.Figure:
    """The fit of the candidates that a model gave a score of about so much; on the diagonal its scores are right."""
    figure, axes = plt.subplots(figsize=SIZE)
    axes.plot([0, 1], [0, 1], color="#d5d9de", linewidth=1)
    for model in first_run(results):
        episodes = results["models"][model]
        scored = [(e["score"], e["fit"]) for e in episodes if e["score"] is not None]
        label = f"{model}: {len(scored)} of {len(episodes)} scored"
        if not scored:
            axes.plot([], [], "o", color=COLOURS[model], label=label)
            continue
        said, fit = np.array(scored).T
        bins = np.minimum((said * BINS).astype(int), BINS - 1)
        filled = np.unique(bins)
        places, heights = ([values[bins == b].mean() for b in filled] for values in (said, fit))
        sizes = [4 * np.count_nonzero(bins == b) for b in filled]
        axes.plot(places, heights, color=COLOURS[model], linewidth=1, alpha=0.6)
        axes.scatter(places, heights, sizes, color=COLOURS[model], alpha=0.8, label=label)
    axes.set(xlabel="score given", ylabel="mean fit", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title("Calibration: a dot for each tenth of the scale, its area the number of candidates", fontsize=11)
    figure.legend(**LEGEND)
    return figure


def before_after(results: dict[str, Any]) -> plt.Figure:
    """The score of each candidate before GRPO and after, in order of fit; hollow where the decision is wrong."""
    before = "warm start" if "warm start" in results["models"] else BASELINE
    first, last = results["models"][before], results["models"]["trained"]
    order = sorted(range(len(last)), key=lambda i: last[i]["fit"])
    place = np.arange(1, len(order) + 1)
    figure, axes = plt.subplots(figsize=SIZE)
    axes.axhline(0.5, color="#d5d9de", linewidth=1, linestyle=":")
    axes.plot(place, [last[i]["fit"] for i in order], color="#3c4043", linewidth=1.5, label="fit")
    scores = []
    width = 8 if len(order) < 100 else 5
    for model, episodes, size in ((before, first, width), ("trained", last, width / 2)):  # unchanged: a dot in a ring
        scores.append(np.array([episodes[i]["score"] for i in order], float))  # NaN where there is none
        right = np.array([episodes[i]["correct"] for i in order])
        look = {"color": COLOURS[model], "linestyle": "", "marker": "o", "markersize": size}
        axes.plot(place[right], scores[-1][right], **look)
        axes.plot(place[~right], scores[-1][~right], **look, markerfacecolor="white")
        axes.plot([], [], **look, label=model)
    axes.plot([], [], "o", color="#3c4043", markerfacecolor="white", markersize=4, label="wrong decision")
    axes.vlines(place, *scores, color="#d5d9de", linewidth=1, zorder=0)
    axes.set(xlabel="held-out candidate, by fit", ylabel="score", ylim=(-0.02, 1.02))
    axes.set_title(f"Score of each candidate, {before} and trained")
    figure.legend(**{**LEGEND, "ncols": 4})
    return figure


def _rewards(results: dict[str, Any], model: str) -> np.ndarray:
    return np.array([episode["reward"] for episode in results["models"][model]], float)
