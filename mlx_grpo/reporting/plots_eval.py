"""Pictures of an evaluation: the first run's models, drawn from what eval.json and episodes.jsonl hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlx_grpo.json_files import Record
from mlx_grpo.reporting.plots_training import BLUE, GREY, ORANGE, SIZE, legend, save, span, whole_numbers
from mlx_grpo.reporting.tables import BASELINE, Results, first_run
from mlx_grpo.runs import Episodes

COLOURS = {BASELINE: GREY, "warm start": ORANGE, "trained": BLUE}
BINS = 10
LIGHT, DARK = "#d5d9de", "#3c4043"


def draw_evaluation(results: Results, episodes: Episodes, folder: Path) -> list[Path]:
    """Write the pictures of an evaluation into a folder, and return their paths."""
    figures = {
        "baseline_vs_trained": baseline_vs_trained(episodes),
        "reward_components": mean_bars(results, results["components"], "Reward components"),
        "reward_distribution": reward_distribution(episodes),
    }
    if results["figures"]:
        figures["figures"] = mean_bars(results, results["figures"], "Figures")
    if episodes[BASELINE][0].keys() >= {"fit", "score", "correct"}:
        figures["calibration"] = calibration(episodes)
        figures["before_after"] = before_after(episodes)
    return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def baseline_vs_trained(episodes: Episodes) -> Figure:
    """Draw the reward of each held-out episode, baseline against trained, in order of the baseline's reward."""
    baseline, trained = _rewards(episodes[BASELINE]), _rewards(episodes["trained"])
    order = np.lexsort((trained, baseline))
    figure, axes = plt.subplots(figsize=SIZE)
    place = np.arange(1, len(order) + 1)
    axes.vlines(place, baseline[order], trained[order], color=LIGHT, linewidth=1)
    axes.plot(place, baseline[order], "o", color=COLOURS[BASELINE], markersize=4, label="baseline")
    axes.plot(place, trained[order], "o", color=COLOURS["trained"], markersize=4, label="trained")
    axes.set(xlabel="held-out episode, by baseline reward", ylabel="reward", ylim=span(baseline, trained))
    axes.set_title(f"Baseline {baseline.mean():.3f}, trained {trained.mean():.3f} over {len(order)} episodes")
    legend(figure)
    return figure


def mean_bars(results: Results, names: Sequence[str], title: str) -> Figure:
    """Draw the means of components or figures for every model."""
    models = first_run(results["means"])
    figure, axes = plt.subplots(figsize=SIZE)
    height = 0.8 / len(models)
    for i, model in enumerate(models):
        values = np.array([results["means"][model][name] for name in names], float)
        places = np.arange(len(names)) + (i - (len(models) - 1) / 2) * height
        bars = axes.barh(places, values, height, color=COLOURS[model], label=model)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="mean over held-out episodes", title=title)
    axes.margins(x=0.1)
    legend(figure)
    return figure


def reward_distribution(episodes: Episodes) -> Figure:
    """Draw a histogram of episode rewards, baseline and trained."""
    rewards = {model: _rewards(episodes[model]) for model in (BASELINE, "trained")}
    figure, axes = plt.subplots(figsize=SIZE)
    low, high = span(*rewards.values())
    bins = np.linspace(low, high, 26).tolist()
    for model, values in rewards.items():
        defined = values[np.isfinite(values)]  # a reward may apply to none of the episodes
        axes.hist(defined, bins, color=COLOURS[model], alpha=0.75, label=model, edgecolor="white")
    axes.set(xlabel="episode reward", ylabel="held-out episodes", title="Distribution of rewards")
    axes.yaxis.set_major_locator(whole_numbers())
    legend(figure)
    return figure


def calibration(episodes: Episodes) -> Figure:
    """Draw the mean fit in each tenth of a model's scores; right scores lie on the diagonal."""
    figure, axes = plt.subplots(figsize=SIZE)
    axes.plot([0, 1], [0, 1], color=LIGHT, linewidth=1)
    for model in first_run(episodes):
        _draw_tenths(axes, model, episodes[model])
    axes.set(xlabel="score given", ylabel="mean fit", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title("Calibration: a dot for each tenth of the scale, its area the number of prompts", fontsize=11)
    legend(figure)
    return figure


def before_after(episodes: Episodes) -> Figure:
    """Draw each completion's score before GRPO and after, in order of fit; hollow where it is wrong."""
    before = "warm start" if "warm start" in episodes else BASELINE
    first, last = episodes[before], episodes["trained"]
    order = sorted(range(len(last)), key=lambda i: last[i]["fit"])
    first, last = [first[i] for i in order], [last[i] for i in order]
    place = np.arange(1, len(order) + 1)
    figure, axes = plt.subplots(figsize=SIZE)
    axes.axhline(0.5, color=LIGHT, linewidth=1, linestyle=":")
    axes.plot(place, [episode["fit"] for episode in last], color=DARK, linewidth=1.5, label="fit")
    width = 8 if len(order) < 100 else 5
    scores_before = _draw_scores(axes, before, first, width)
    scores_after = _draw_scores(axes, "trained", last, width / 2)  # an unchanged score: a dot in a ring
    axes.plot([], [], "o", color=DARK, markerfacecolor="white", markersize=4, label="wrong")
    axes.vlines(place, scores_before, scores_after, color=LIGHT, linewidth=1, zorder=0)
    axes.set(xlabel="held-out prompt, by fit", ylabel="score", ylim=(-0.02, 1.02))
    axes.set_title(f"Score of each completion, {before} and trained")
    legend(figure, columns=4)
    return figure


def _draw_tenths(axes: Axes, model: str, episodes: list[Record]) -> None:
    """Draw a model's mean fit over the mean score of each tenth of the scale."""
    scored = [(episode["score"], episode["fit"]) for episode in episodes if episode["score"] is not None]
    label = f"{model}: {len(scored)} of {len(episodes)} scored"
    if not scored:
        axes.plot([], [], "o", color=COLOURS[model], label=label)
        return
    scores, fits = np.array(scored).T
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    filled = np.unique(bins)
    places = [scores[bins == b].mean() for b in filled]
    heights = [fits[bins == b].mean() for b in filled]
    sizes = [4 * np.count_nonzero(bins == b) for b in filled]
    axes.plot(places, heights, color=COLOURS[model], linewidth=1, alpha=0.6)
    axes.scatter(places, heights, sizes, color=COLOURS[model], alpha=0.8, label=label)


def _draw_scores(axes: Axes, model: str, episodes: list[Record], size: float) -> np.ndarray:
    """Draw a model's scores in the order of the episodes and return them, [E]; NaN where there is none."""
    place = np.arange(1, len(episodes) + 1)
    scores = np.array([episode["score"] for episode in episodes], float)
    right = np.array([bool(episode["correct"]) for episode in episodes])
    colour = COLOURS[model]
    axes.plot(place[right], scores[right], "o", color=colour, markersize=size)
    axes.plot(place[~right], scores[~right], "o", color=colour, markersize=size, markerfacecolor="white")
    axes.plot([], [], "o", color=colour, markersize=size, label=model)
    return scores


def _rewards(episodes: list[Record]) -> np.ndarray:
    return np.array([episode["reward"] for episode in episodes], float)
