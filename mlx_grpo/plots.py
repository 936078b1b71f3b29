"""The run's pictures, drawn from metrics.jsonl and eval.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: training machines have no display
import matplotlib.pyplot as plt
import numpy as np

from mlx_grpo.runs import METRICS, read_jsonl

COLOURS = {"baseline": "#9aa0a6", "warm start": "#f2a03d", "trained": "#2a6fdb"}
SIZE = (8, 4.5)
LEGEND = {"loc": "outside lower center", "ncols": 3, "frameon": False}  # below the axes, where it hides no point


def draw_all(run: Path, results: dict[str, Any]) -> list[Path]:
    """Write the four pictures into RUN/plots and return their paths."""
    folder = run / "plots"
    folder.mkdir(exist_ok=True)
    metrics = [record for record in read_jsonl(run / METRICS) if record.get("reward") is not None]
    return [
        _save(training_curves(metrics), folder / "training_curves.png"),
        _save(baseline_vs_trained(results), folder / "baseline_vs_trained.png"),
        _save(reward_components(results), folder / "reward_components.png"),
        _save(reward_distribution(results), folder / "reward_distribution.png"),
    ]


def training_curves(metrics: list[dict[str, Any]]) -> plt.Figure:
    """Mean reward (left axis, with its moving average) and loss (right axis) by step."""
    steps = np.array([m["step"] + 1 for m in metrics])
    reward = np.array([m["reward"] for m in metrics])
    figure, left = plt.subplots(figsize=SIZE)
    right = left.twinx()
    right.axhline(0, color="#dddddd", linewidth=0.8, zorder=0)
    loss = right.plot(steps, [m["loss"] for m in metrics], color="#c0392b", linewidth=1, alpha=0.6, label="loss")
    points = left.plot(steps, reward, "o", color=COLOURS["trained"], markersize=4, alpha=0.5, label="reward")
    window = max(1, min(10, len(reward) // 3))
    smooth = np.convolve(reward, np.ones(window) / window, mode="valid")
    line = left.plot(
        steps[window - 1 :], smooth, color=COLOURS["trained"], linewidth=2, label=f"reward, mean of {window} steps"
    )
    looks = [(m["step"] + 1, m["eval/reward"]) for m in metrics if "eval/reward" in m]
    heldout = np.array([value for _, value in looks])
    if looks:
        points += left.plot(
            [step for step, _ in looks],
            heldout,
            "D",
            color=COLOURS["warm start"],
            markersize=6,
            label="held-out reward",
        )
    span = _span(np.concatenate([reward, heldout]))
    left.set(xlabel="GRPO step", ylabel="mean reward", ylim=span, title="Reward and loss by step")
    right.set_ylabel("loss")
    left.set_zorder(right.get_zorder() + 1)
    left.patch.set_visible(False)
    figure.legend(handles=[*points, *line, *loss], **LEGEND)
    left.xaxis.get_major_locator().set_params(integer=True)
    return figure


def baseline_vs_trained(results: dict[str, Any]) -> plt.Figure:
    """Reward of each held-out episode, baseline against trained, in order of the baseline's reward."""
    baseline, trained = _rewards(results, "baseline"), _rewards(results, "trained")
    order = np.lexsort((trained, baseline))
    figure, axes = plt.subplots(figsize=SIZE)
    place = np.arange(1, len(order) + 1)
    axes.vlines(place, baseline[order], trained[order], color="#d5d9de", linewidth=1)
    axes.plot(place, baseline[order], "o", color=COLOURS["baseline"], markersize=4, label="baseline")
    axes.plot(place, trained[order], "o", color=COLOURS["trained"], markersize=4, label="trained")
    axes.set(xlabel="held-out episode, by baseline reward", ylabel="reward", ylim=_span(baseline, trained))
    axes.set_title(f"Baseline {baseline.mean():.3f}, trained {trained.mean():.3f} over {len(order)} episodes")
    figure.legend(**LEGEND)
    return figure


def reward_components(results: dict[str, Any]) -> plt.Figure:
    """The mean of each reward component for every model."""
    names = list(results["models"]["baseline"][0]["components"])
    models = list(results["models"])
    figure, axes = plt.subplots(figsize=SIZE)
    height = 0.8 / len(models)
    for i, model in enumerate(models):
        values = [results["means"][model][name] for name in names]
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
    low, high = _span(*(_rewards(results, model) for model in ("baseline", "trained")))
    bins = np.linspace(low, high, 26)
    for model in ("baseline", "trained"):
        axes.hist(_rewards(results, model), bins, color=COLOURS[model], alpha=0.75, label=model, edgecolor="white")
    axes.set(xlabel="episode reward", ylabel="held-out episodes", title="Distribution of rewards")
    axes.yaxis.get_major_locator().set_params(integer=True)
    figure.legend(**LEGEND)
    return figure


def _rewards(results: dict[str, Any], model: str) -> np.ndarray:
    return np.array([episode["reward"] for episode in results["models"][model]])


def _span(*values: np.ndarray) -> tuple[float, float]:
    """Axis limits: 0 to 1 with a little room, wider where a reward of another scale needs it."""
    low, high = min(0.0, *(np.nanmin(v) for v in values)), max(1.0, *(np.nanmax(v) for v in values))
    return low - 0.02 * (high - low), high + 0.02 * (high - low)


def _save(figure: plt.Figure, path: Path) -> Path:
    for axes in figure.axes:
        axes.spines["top"].set_visible(False)
        axes.spines["right"].set_visible(len(figure.axes) > 1)  # the second axis of the training curves
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
