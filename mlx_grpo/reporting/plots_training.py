"""How a run trained, as pictures, drawn from metrics.jsonl alone; and the look that all pictures share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: training machines have no display
import matplotlib.pyplot as plt
import numpy as np

from mlx_grpo.data.jsonl import read_jsonl

GREY, ORANGE, BLUE, RED = "#9aa0a6", "#f2a03d", "#2a6fdb", "#c0392b"
COMPONENT_COLOURS = ("#3a9e6b", "#8e5bb8", "#17a2a8", "#d1518f", "#8c6d31", "#5a6b7b")
SIZE = (8, 4.5)
LEGEND = {"loc": "outside lower center", "ncols": 3, "frameon": False}  # below the axes, where it hides no point


def draw_training(metrics: Path, folder: Path) -> list[Path]:
    """Write the pictures of the GRPO steps in metrics.jsonl into a folder; returns their paths, none without steps."""
    every = read_jsonl(metrics)
    records = [record for record in every if record.get("reward") is not None]
    looks = [(record["step"] + 1, record["eval/reward"]) for record in every if "eval/reward" in record]
    if not records:  # a reward that applied to no completion
        return []
    return [
        save(training_curves(records, looks), folder / "training_curves.png"),
        save(components_by_step(records), folder / "components_by_step.png"),
        save(completion_lengths(records), folder / "completion_lengths.png"),
    ]


def training_curves(metrics: list[dict[str, Any]], looks: Sequence[tuple[int, float]]) -> plt.Figure:
    """Mean reward (left axis, with its moving average) and loss (right axis) by step; `looks` are held-out rewards."""
    steps = np.array([m["step"] + 1 for m in metrics])
    reward = np.array([m["reward"] for m in metrics], float)
    figure, left = plt.subplots(figsize=SIZE)
    right = left.twinx()
    right.axhline(0, color="#dddddd", linewidth=0.8, zorder=0)
    loss = right.plot(steps, [m["loss"] for m in metrics], color=RED, linewidth=1, alpha=0.4, label="loss")
    points, line = _with_average(left, steps, reward, "reward", "reward, mean")
    heldout = np.array([value for _, value in looks], float)
    if looks:
        points += left.plot(
            [step for step, _ in looks],
            heldout,
            "D",
            color=ORANGE,
            markersize=6,
            label="held-out reward",
        )
    left.set(xlabel="GRPO step", ylabel="mean reward", ylim=span(reward, heldout), title="Reward and loss by step")
    right.set_ylabel("loss")
    _in_front(left, right)
    figure.legend(handles=[*points, *line, *loss], **{**LEGEND, "ncols": 4})
    left.xaxis.get_major_locator().set_params(integer=True)
    return figure


def components_by_step(metrics: list[dict[str, Any]]) -> plt.Figure:
    """The mean of each reward component by step: every step faint, the moving average on top."""
    steps = np.array([m["step"] + 1 for m in metrics])
    names = [key for key in metrics[0] if key.startswith("rewards/") and key.endswith("/mean")]
    columns = [np.array([m[name] for m in metrics], float) for name in names]
    window = window_of(steps)
    figure, axes = plt.subplots(figsize=SIZE)
    for i, (name, values) in enumerate(zip(names, columns, strict=True)):
        colour = COMPONENT_COLOURS[i % len(COMPONENT_COLOURS)]
        axes.plot(steps, values, "o", color=colour, markersize=3, alpha=0.2)
        label = name.removeprefix("rewards/").removesuffix("/mean").replace("_", " ")
        style = "-" if i < 3 else "--"  # those that lie on each other, at 1 most often, both stay visible
        axes.plot(steps[window - 1 :], moving_average(values, window), style, color=colour, linewidth=2, label=label)
    title = "Reward components by step" + (f", mean of {window} steps" if window > 1 else "")
    axes.set(xlabel="GRPO step", ylabel="mean over the step", ylim=span(*columns), title=title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(**LEGEND)
    return figure


def completion_lengths(metrics: list[dict[str, Any]]) -> plt.Figure:
    """Mean completion length (left axis) and the share cut off at the limit (right axis) by step."""
    steps = np.array([m["step"] + 1 for m in metrics])
    lengths = np.array([m["completions/mean_length"] for m in metrics])
    clipped = np.array([m["completions/clipped_ratio"] for m in metrics])
    figure, left = plt.subplots(figsize=SIZE)
    right = left.twinx()
    bars = right.bar(steps, clipped, color=RED, alpha=0.35, width=0.8, label="share cut off at the limit")
    points, line = _with_average(left, steps, lengths, "mean length", "mean")
    left.set(xlabel="GRPO step", ylabel="tokens", ylim=(0, 1.15 * lengths.max()), title="Completion length by step")
    right.set(ylabel="share of completions", ylim=(0, 1))
    _in_front(left, right)
    figure.legend(handles=[*points, *line, bars], **LEGEND)
    left.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _with_average(
    axes: plt.Axes, steps: np.ndarray, values: np.ndarray, label: str, average: str
) -> tuple[list[plt.Line2D], list[plt.Line2D]]:
    """Every step's value as a faint point, and their moving average as a line."""
    points = axes.plot(steps, values, "o", color=BLUE, markersize=4, alpha=0.5, label=label)
    window = window_of(values)
    means = moving_average(values, window)
    line = axes.plot(steps[window - 1 :], means, color=BLUE, linewidth=2, label=f"{average} of {window} steps")
    return points, line


def _in_front(left: plt.Axes, right: plt.Axes) -> None:
    """Draw the left axis over its twin, which it does not hide."""
    left.set_zorder(right.get_zorder() + 1)
    left.patch.set_visible(False)


def window_of(values: Sequence[float]) -> int:
    """How many steps a moving average spans: a third of them, at most 10."""
    return max(1, min(10, len(values) // 3))


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Means of `window` values in a row, [S - window + 1]; a step without a value is left out of them."""
    rows = np.lib.stride_tricks.sliding_window_view(values, window)
    known = ~np.isnan(rows)
    sums, counts = np.where(known, rows, 0.0).sum(axis=1), known.sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(rows), np.nan), where=counts > 0)


def span(*values: np.ndarray) -> tuple[float, float]:
    """Axis limits: 0 to 1 with a little room, wider where a reward of another scale needs it."""
    found = np.concatenate([[0.0, 1.0], *values])
    low, high = np.nanmin(found), np.nanmax(found)
    return low - 0.02 * (high - low), high + 0.02 * (high - low)


def save(figure: plt.Figure, path: Path) -> Path:
    """Write a figure as PNG, its axes without a frame, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for axes in figure.axes:
        axes.spines["top"].set_visible(False)
        axes.spines["right"].set_visible(len(figure.axes) > 1)  # the second axis of the training curves
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
