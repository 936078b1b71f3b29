"""A run's metrics as the curves of its report."""

from __future__ import annotations

import math
from typing import Any

from mlx_grpo.json_files import Record

MAX_POINTS = 400  # a curve is some 300 pixels wide

FIGURES = {
    "loss": "loss",
    "KL to the reference": "kl",
    "entropy": "entropy",
    "tokens of a completion": "completions/mean_length",
    "completions cut off": "completions/clipped_ratio",
    "zero-variance groups": "frac_reward_zero_std",
    "gradient norm": "grad_norm",
}
"""Titles, each with the metric drawn under it; left out where it is 0 at every step."""

Curve = dict[str, Any]
"""A title, and series of [step, value] points."""


def curves(metrics: list[Record]) -> list[Curve]:
    """Return the curves of the reward, of its components, and of the other metrics that a run has."""
    # The evaluation before the first step is a record of its own, at step -1.
    steps = [record for record in metrics if record.get("reward") is not None or record["step"] < 0]
    warm = [record for record in metrics if record.get("phase") == "warm_start"]
    keys = dict.fromkeys(key for record in steps for key in record)
    components = [
        key.removeprefix("rewards/").removesuffix("/mean")
        for key in keys
        if key.startswith("rewards/") and key.endswith("/mean")
    ]
    drawn = [_curve("reward", {"training": "reward", "held out": "eval/reward"}, steps)]
    drawn += [
        _curve(name, {"training": f"rewards/{name}/mean", "held out": f"eval/{name}"}, steps) for name in components
    ]
    others = [_curve(title, {title: key}, steps) for title, key in FIGURES.items()]
    others.append(_curve("loss of the warm start", {"loss": "loss"}, warm))
    drawn += [curve for curve in others if any(value for series in curve["series"] for _, value in series["points"])]
    return [curve for curve in drawn if curve["series"]]


def _curve(title: str, keys: dict[str, str], records: list[Record]) -> Curve:
    series = [{"name": name, "points": _points(key, records)} for name, key in keys.items()]
    return {"title": title, "series": [one for one in series if one["points"]]}


def _points(key: str, records: list[Record]) -> list[list[float]]:
    """Return [step, value] where there is a finite value, every n-th of a long run."""
    points = [
        [record["step"] + 1, float(f"{record[key]:.4g}")]
        for record in records
        if record.get(key) is not None and math.isfinite(record[key])
    ]
    return points[:: max(1, math.ceil(len(points) / MAX_POINTS))]
