"""Pictures of a run's training, drawn from metrics.jsonl alone, and the style that all pictures share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: training machines have no display
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlx_grpo.json_files import Record, read_jsonl

GREY, ORANGE, BLUE, RED = "#9aa0a6", "#f2a03d", "#2a6fdb", "#c0392b"
COMPONENT_COLOURS = ("#3a9e6b", "#8e5bb8", "#17a2a8", "#d1518f", "#8c6d31", "#5a6b7b")
SIZE = (8, 4.5)


def draw_training(metrics: Path, folder: Path) -> list[Path]:
    """Write the pictures of the GRPO steps in metrics.jsonl into a folder; return their paths, none without steps."""
    every = read_jsonl(metrics)
    records = [record for record in every if record.get("reward") is not None]
    validations = [(record["step"] + 1, record["eval/reward"]) for record in every if "eval/reward" in record]
    if not records:  # a reward that applied to no completion
        return []
    return [
        save(training_curves(records, validations), folder / "training_curves.png"),
        save(components_by_step(records), folder / "components_by_step.png"),
        save(completion_lengths(records), folder / "completion_lengths.png"),
    ]


def training_curves(metrics: list[Record], validations: Sequence[tuple[int, float]]) -> Figure:
    """Draw the mean reward (left axis, with its moving average) and the loss (right axis) by step.

    `validations` are the steps of the evaluations during training, each with its held-out reward.
    """
    steps = np.array([m["step"] + 1 for m in metrics])
    reward = np.array([m["reward"] for m in metrics], float)
    figure, left = plt.subplots(figsize=SIZE)
    right = left.twinx()
    right.axhline(0, color="#dddddd", linewidth=0.8, zorder=0)
    right.plot(steps, [m["loss"] for m in metrics], color=RED, linewidth=1, alpha=0.4, label="loss")
    _with_average(left, steps, reward, "reward", "reward, mean")
    heldout = np.array([value for _, value in validations], float)
    if validations:
        when = [step for step, _ in validations]
        left.plot(when, heldout, "D", color=ORANGE, markersize=6, label="held-out reward")
    left.set(xlabel="GRPO step", ylabel="mean reward", ylim=span(reward, heldout), title="Reward and loss by step")
    right.set_ylabel("loss")
    _in_front(left, right)
    legend(figure, columns=4)
    left.xaxis.set_major_locator(whole_numbers())
    return figure


def components_by_step(metrics: list[Record]) -> Figure:
    """Draw the mean of each reward component by step: every step faint, the moving average on top."""
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
    axes.xaxis.set_major_locator(whole_numbers())
    legend(figure)
    return figure


def completion_lengths(metrics: list[Record]) -> Figure:
    """Draw the mean completion length (left axis) and the share cut off at the limit (right axis) by step."""
    steps = np.array([m["step"] + 1 for m in metrics])
    lengths = np.array([m["completions/mean_length"] for m in metrics])
    clipped = np.array([m["completions/clipped_ratio"] for m in metrics])
    figure, left = plt.subplots(figsize=SIZE)
    right = left.twinx()
    right.bar(steps, clipped, color=RED, alpha=0.35, width=0.8, label="share cut off at the limit")
    _with_average(left, steps, lengths, "mean length", "mean")
    left.set(xlabel="GRPO step", ylabel="tokens", ylim=(0, 1.15 * lengths.max()), title="Completion length by step")
    right.set(ylabel="share of completions", ylim=(0, 1))
    _in_front(left, right)
    legend(figure)
    left.xaxis.set_major_locator(whole_numbers())
    return figure


def _with_average(axes: Axes, steps: np.ndarray, values: np.ndarray, label: str, average: str) -> None:
    """Draw every step's value as a faint point, and their moving average as a line."""
    axes.plot(steps, values, "o", color=BLUE, markersize=4, alpha=0.5, label=label)
    window = window_of(values)
    means = moving_average(values, window)
    axes.plot(steps[window - 1 :], means, color=BLUE, linewidth=2, label=f"{average} of {window} steps")


def _in_front(left: Axes, right: Axes) -> None:
    """Draw the left axis over its twin, which it does not hide."""
    left.set_zorder(right.get_zorder() + 1)
    left.patch.set_visible(False)


def legend(figure: Figure, columns: int = 3) -> None:
    """Put a legend below the axes, where it hides no point."""
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)


def whole_numbers() -> MaxNLocator:
    """Return a locator that puts an axis's ticks at whole numbers, as many as matplotlib's own."""
    return MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10])


def window_of(values: np.ndarray) -> int:
    """Return how many of the steps [S] a moving average spans: a third, at most 10."""
    return max(1, min(10, len(values) // 3))


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Return the means of `window` values in a row, [S - window + 1]; a step without a value is left out of them."""
    rows = np.lib.stride_tricks.sliding_window_view(values, window)
    known = ~np.isnan(rows)
    sums, counts = np.where(known, rows, 0.0).sum(axis=1), known.sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(rows), np.nan), where=counts > 0)


def span(*values: np.ndarray) -> tuple[float, float]:
    """Return axis limits: 0 to 1 with a little room, wider where a reward of another scale needs it."""
    every = np.concatenate([[0.0, 1.0], *values])
    low, high = np.nanmin(every), np.nanmax(every)
    return low - 0.02 * (high - low), high + 0.02 * (high - low)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, its axes without a frame, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for axes in figure.axes:
        axes.spines["top"].set_visible(False)
        axes.spines["right"].set_visible(len(figure.axes) > 1)  # the second axis of the training curves
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
