"""From episodes to figures: of each model, of each pair of models, and over the seeds of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from mlx_grpo.evaluation.run_matrix import RunMatrix
from mlx_grpo.evaluation.statistics import NO_SCORE, Outcome, compare, figures, resampled_by_cluster
from mlx_grpo.json_files import Record, without_nan
from mlx_grpo.reporting.tables import BASELINE
from mlx_grpo.rewards import EPISODE_KEYS
from mlx_grpo.runs import Episodes
from mlx_grpo.tasks.base import averaged


def summarize(episodes: Episodes, matrix: RunMatrix, cluster: str | None = None) -> Record:
    """Return the figures of eval.json; `cluster` is the column that ties rows together.

    components: the names of the reward's components. figures: those of the judge's figures that have a mean. means:
    each model's figures. differences: from the baseline. over_warm_start: from a model's own warm start; both with
    intervals and p-values. seeds: mean and standard deviation where runs differ in the seed alone.
    """
    outcomes = {name: outcome_of(own) for name, own in episodes.items()}
    base = outcomes[BASELINE]
    over = {trained: _compared(outcomes[start], outcomes[trained]) for trained, start in matrix.warm_starts.items()}
    summary: Record = {
        "components": list(episodes[BASELINE][0]["components"]),
        "figures": averaged(figure_names(episodes[BASELINE][0])),
        "means": {name: figures(outcome) for name, outcome in outcomes.items()},
        "differences": {name: _compared(base, outcome) for name, outcome in outcomes.items() if name != BASELINE},
        "over_warm_start": over,
        "resampled_by": (cluster or "cluster").removesuffix("_id") if resampled_by_cluster(base) else "episode",
    }
    if "trained" in over:
        summary["grpo_over_warm_start"] = over["trained"]
    if matrix.seeds:
        summary["seeds"] = {name: _over_seeds(members, summary) for name, members in matrix.seeds.items()}
    if "positive" in base.labelled:
        positive = float(base.labelled["positive"].mean())
        summary["majority_class_rate"] = max(positive, 1 - positive)
    return without_nan(summary)


def outcome_of(episodes: Sequence[Record]) -> Outcome:
    """Return one model's episodes, as episodes.jsonl holds them, as columns."""
    first = episodes[0]
    own = {key: [e[key] for e in episodes] for key in ("reward", *averaged(figure_names(first)), "characters")}
    components = {name: [e["components"][name] for e in episodes] for name in first["components"]}
    columns = own | components | own  # a component may have the name of one of ours, which comes first and wins
    means = {name: np.array(values, float) for name, values in columns.items()}  # null becomes NaN
    clusters = np.unique([e["cluster"] for e in episodes], return_inverse=True)[1] if "cluster" in first else None
    return Outcome(means, _labelled(episodes), clusters)


def figure_names(episode: Record) -> list[str]:
    """Return the names of the judge's figures in an episode."""
    return [name for name in episode if name not in EPISODE_KEYS]


def _labelled(episodes: Sequence[Record]) -> dict[str, np.ndarray]:
    """Return the columns that make a ranking, as `Outcome.labelled` describes them."""
    columns: dict[str, np.ndarray] = {
        name: np.array([e[name] for e in episodes], float)
        for name in ("positive", "fit", "score", "correct")
        if name in episodes[0]
    }
    if "score" in columns:
        columns["score"] = np.where(np.isnan(columns["score"]), NO_SCORE, columns["score"])
    if "positive" in columns:
        columns["positive"] = columns["positive"] > 0.5
    return columns


def _compared(left: Outcome, right: Outcome) -> dict[str, dict[str, float]]:
    return {name: asdict(difference) for name, difference in compare(left, right).items()}


def _over_seeds(members: Sequence[str], summary: Record) -> Record:
    """Return mean and standard deviation (ddof 1) over seeds of each figure, and of its gain on the warm start."""
    over: Record = {"models": list(members), "figures": _spread([summary["means"][name] for name in members])}
    gains = [summary["over_warm_start"][name] for name in members if name in summary["over_warm_start"]]
    if len(gains) == len(members):
        over["over_warm_start"] = _spread([{key: gain[key]["mean"] for key in gain} for gain in gains])
    return over


def _spread(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return {key: {"mean": np.mean(v).item(), "sd": np.std(v, ddof=1).item()} for key, v in columns.items()}
