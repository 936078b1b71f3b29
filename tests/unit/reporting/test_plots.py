"""The pictures show the numbers they were drawn from."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mlx_grpo.reporting.plots_eval import before_after, calibration, reward_distribution
from mlx_grpo.reporting.plots_training import (
    completion_lengths,
    components_by_step,
    draw_training,
    moving_average,
    training_curves,
)

NAN = float("nan")


def record(step: int, reward: float, **more: float) -> dict:
    lengths = {"completions/mean_length": 40.0 + step, "completions/clipped_ratio": step / 10}
    return {"step": step, "reward": reward, "loss": -reward, "rewards/format_valid/mean": reward / 2, **lengths, **more}


RECORDS = [record(step, reward) for step, reward in enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])]


def series(figure: plt.Figure, label: str) -> list[list[float]]:
    """The points of the line with this label."""
    [line] = [line for axes in figure.axes for line in axes.get_lines() if line.get_label() == label]
    return [list(map(float, line.get_xdata())), [round(float(y), 6) for y in line.get_ydata()]]


def test_a_moving_average_leaves_out_the_steps_without_a_value():
    assert moving_average(np.array([1.0, 2.0, 3.0, 4.0]), 2).tolist() == [1.5, 2.5, 3.5]
    found = moving_average(np.array([1.0, NAN, 3.0, NAN, NAN]), 2)
    assert found[:3].tolist() == [1.0, 3.0, 3.0]
    assert np.isnan(found[3])


def test_the_reward_its_average_and_the_held_out_points_stand_at_their_steps():
    figure = training_curves(RECORDS, [(0, 0.05), (6, 0.55)])
    assert series(figure, "reward") == [[1, 2, 3, 4, 5, 6], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]]
    assert series(figure, "reward, mean of 2 steps") == [[2, 3, 4, 5, 6], [0.15, 0.25, 0.35, 0.45, 0.55]]
    assert series(figure, "held-out reward") == [[0, 6], [0.05, 0.55]]


def test_components_and_lengths_are_those_of_each_step():
    assert series(components_by_step(RECORDS), "format valid")[1] == [0.075, 0.125, 0.175, 0.225, 0.275]
    figure = completion_lengths(RECORDS)
    assert series(figure, "mean length")[1] == [40, 41, 42, 43, 44, 45]
    bars = [patch.get_height() for axes in figure.axes for patch in axes.patches]
    assert bars == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_evaluation_before_the_first_step_is_drawn_from_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(
        "mlx_grpo.reporting.plots_training.training_curves", lambda *args: drawn.append(args) or training_curves(*args)
    )
    metrics = tmp_path / "metrics.jsonl"
    lines = [{"phase": "warm_start", "step": 0, "loss": 3.0}, {"step": -1, "eval/reward": 0.07}, *RECORDS]
    metrics.write_text("\n".join(json.dumps(line) for line in lines))
    assert [path.name for path in draw_training(metrics, tmp_path)] == [
        *("training_curves.png", "components_by_step.png", "completion_lengths.png")
    ]
    assert drawn == [(RECORDS, [(0, 0.07)])]


def episodes_of(**scores: list[float | None]) -> dict[str, list[dict]]:
    """The episodes of four candidates, by the scores that each model gave them."""
    fits = [0.9, 0.1, 0.6, 0.4]
    return {
        model.replace("_", " "): [
            {"score": score, "fit": fit, "correct": score is not None and (score >= 0.5) == (fit >= 0.5)}
            for score, fit in zip(given, fits, strict=True)
        ]
        for model, given in scores.items()
    }


RANKED = episodes_of(baseline=[None] * 4, warm_start=[0.5, 0.5, 0.5, 0.5], trained=[0.91, 0.05, 0.64, 0.62])


def test_calibration_puts_the_mean_fit_over_the_mean_score_of_each_tenth():
    [axes] = calibration(RANKED).axes
    dots = {dots.get_label(): dots.get_offsets().tolist() for dots in axes.collections}
    assert dots["warm start: 4 of 4 scored"] == [[0.5, 0.5]]
    assert np.allclose(dots["trained: 4 of 4 scored"], [[0.05, 0.1], [0.63, 0.5], [0.91, 0.9]])
    assert "baseline: 0 of 4 scored" in [line.get_label() for line in axes.get_lines()]


def test_before_and_after_are_in_order_of_fit_and_hollow_where_the_decision_is_wrong():
    [axes] = before_after(RANKED).axes
    assert series(axes.figure, "fit")[1] == [0.1, 0.4, 0.6, 0.9]
    after = [line for line in axes.get_lines() if line.get_color() == "#2a6fdb" and len(line.get_xdata())]
    right, wrong = after
    assert [list(right.get_xdata()), list(right.get_ydata())] == [[1, 3, 4], [0.05, 0.64, 0.91]]
    assert [list(wrong.get_xdata()), list(wrong.get_ydata())] == [[2], [0.62]]
    assert wrong.get_markerfacecolor() == "white"


@pytest.mark.filterwarnings("error")
def test_a_model_whose_episodes_have_no_reward_is_an_empty_histogram():
    models = {"baseline": [{"reward": None}] * 2, "trained": [{"reward": 0.5}, {"reward": None}]}
    [axes] = reward_distribution(models).axes
    assert sum(patch.get_height() for patch in axes.patches) == 1
