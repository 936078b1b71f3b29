"""Episodes to figures: of each model, of each pair of models, and over the seeds of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mlx_grpo.data.jsonl import without_nan
from mlx_grpo.evaluation.run_matrix import RunMatrix
from mlx_grpo.evaluation.statistics import LOWEST, Judged, Outcome, compare, figures, resampled_by_job
from mlx_grpo.reporting.tables import BASELINE

Episode = dict[str, Any]
AVERAGED = ("reward", "published", "correct", "valid", "characters")


def summarize(models: dict[str, list[Episode]], matrix: RunMatrix) -> dict[str, Any]:
    """What eval.json says above its episodes.

    means: each model's figures. differences: from the baseline; over_warm_start: from a model's own warm start, each
    with its interval and p-value. seeds: mean and deviation where runs differ in the seed alone.
    """
    outcomes = {name: outcome_of(episodes) for name, episodes in models.items()}
    base = outcomes[BASELINE]
    over = {trained: _compared(outcomes[start], outcomes[trained]) for trained, start in matrix.warm_starts.items()}
    summary: dict[str, Any] = {
        "means": {name: figures(outcome) for name, outcome in outcomes.items()},
        "differences": {name: _compared(base, outcome) for name, outcome in outcomes.items() if name != BASELINE},
        "over_warm_start": over,
        "resampled_by": "job" if resampled_by_job(base) else "episode",
    }
    if "trained" in over:
        summary["grpo_over_warm_start"] = over["trained"]
    if matrix.seeds:
        summary["seeds"] = {name: _over_seeds(members, summary) for name, members in matrix.seeds.items()}
    if base.judged is not None:
        shortlisted = float(base.judged.positive.mean())
        summary["majority_class_rate"] = max(shortlisted, 1 - shortlisted)
    return without_nan(summary)


def outcome_of(episodes: Sequence[Episode]) -> Outcome:
    """The columns of one model's episodes, as eval.json holds them."""
    first = episodes[0]
    own = {key: [e[key] for e in episodes] for key in AVERAGED if key in first}
    components = {name: [e["components"][name] for e in episodes] for name in first["components"]}
    columns = own | components | own  # a reward function may have the name of one of ours
    means = {name: np.array(values, float) for name, values in columns.items()}  # null becomes NaN
    if "gold" not in first:
        return Outcome(means)
    jobs = np.unique([e["job"] for e in episodes], return_inverse=True)[1] if "job" in first else None
    judged = Judged(
        positive=np.array([e["gold"] == "shortlist" for e in episodes]),
        correct=np.array([e["correct"] for e in episodes]),
        fit=np.array([e["fit"] for e in episodes], float),
        scores=np.array([LOWEST if e["score"] is None else e["score"] for e in episodes], float),
    )
    return Outcome(means, judged, jobs)


def _compared(left: Outcome, right: Outcome) -> dict[str, dict[str, float]]:
    return {name: asdict(difference) for name, difference in compare(left, right).items()}


def _over_seeds(members: Sequence[str], summary: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation (ddof 1) over seeds of each figure, and of each figure's gain on the warm start."""
    rows = {"figures": [summary["means"][name] for name in members]}
    gains = [summary["over_warm_start"][name] for name in members if name in summary["over_warm_start"]]
    if len(gains) == len(members):
        rows["over_warm_start"] = [{key: gain[key]["mean"] for key in gain} for gain in gains]
    return {"models": list(members)} | {
        kind: {key: {"mean": np.mean(v).item(), "sd": np.std(v, ddof=1).item()} for key, v in _columns(found).items()}
        for kind, found in rows.items()
    }


def _columns(rows: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {key: [row[key] for row in rows] for key in rows[0]}
