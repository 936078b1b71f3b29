"""The models that an evaluation compares: the base once, then each run's warm start and trained adapter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_grpo.config.files import flat
from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import dataset_files
from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import ADAPTER_WEIGHTS
from mlx_grpo.reporting.tables import BASELINE
from mlx_grpo.runs import ADAPTER, WARM_START, Run

IGNORED_KEY_PREFIXES = (
    *("output_dir", "logging_steps", "save_", "eval.", "warm_start.run", "data.heldout"),
    "reward.judge",
)
"""Beginnings of the keys that don't change what a run learns; all runs have the same held-out rows."""


@dataclass(slots=True)
class RunMatrix:
    """Models by name, in the order of the tables."""

    adapters: dict[str, Path | None] = field(default_factory=lambda: {BASELINE: None})
    warm_starts: dict[str, str] = field(default_factory=dict)
    """For each trained model that had a warm start, the name of that."""
    runs: dict[str, Run] = field(default_factory=dict)
    """The run of each trained model."""
    seeds: dict[str, list[str]] = field(default_factory=dict)
    """The models of runs that differ in the seed alone, where there are several, under a name for all of them."""


def build_run_matrix(runs: Sequence[Run]) -> RunMatrix:
    """Name the models of the runs: plain names for the first run's, the others' with the keys that differ.

    Raises UserError where a run has no adapter yet, or has another model or other held-out prompts than the first.
    """
    first = runs[0].config
    problems = [problem for run in runs for problem in _mismatches(run, first)]
    if problems:
        raise UserError(*problems)
    matrix = RunMatrix()
    by_weights: dict[str, str] = {}  # the name of each warm start: runs of one seed share theirs
    by_settings: dict[str, list[str]] = {}  # the models of runs that differ in the seed alone
    for run in runs:
        words = _differing_settings(first, run.config)
        repeated = _name("trained", words) in matrix.runs
        names = _add_run(matrix, run, [run.name] if repeated else words, by_weights)
        if not repeated:
            for kind, name in names.items():
                settings = _name(kind, _differing_settings(first, run.config, with_seed=False))
                by_settings.setdefault(settings, []).append(name)
    matrix.seeds = {f"{name}, {len(same)} seeds": same for name, same in by_settings.items() if len(same) > 1}
    return matrix


def _add_run(matrix: RunMatrix, run: Run, words: Sequence[str], by_weights: dict[str, str]) -> dict[str, str]:
    """Add a run's warm start and trained model; return the names of those that are new, by kind."""
    names = {}
    trained = _name("trained", words)
    start = run.folder / WARM_START / ADAPTER_WEIGHTS
    if start.is_file():
        weights = hashlib.sha256(start.read_bytes()).hexdigest()
        if weights not in by_weights:
            by_weights[weights] = names["warm start"] = _name("warm start", words)
            matrix.adapters[names["warm start"]] = start.parent
        matrix.warm_starts[trained] = by_weights[weights]
    matrix.adapters[trained], matrix.runs[trained] = run.folder / ADAPTER, run
    return {**names, "trained": trained}


def _name(kind: str, words: Sequence[str]) -> str:
    return ", ".join([kind, *words])


def _mismatches(run: Run, first: Config) -> list[str]:
    """List the reasons why a run can't be compared with the first."""
    try:
        run.adapter()
    except UserError as error:
        return error.problems
    mine, theirs = dataset_files(run.config.data)[1], dataset_files(first.data)[1]
    pairs = {
        "model": (run.config.model, first.model),
        "held-out prompts": (theirs if _same_rows(mine, theirs) else mine, theirs),
        "data.enable_thinking": (run.config.data.enable_thinking, first.data.enable_thinking),
    }
    return [
        f"{run.folder}: {name} {mine}, where the first run has {theirs}; compare runs on the same prompts"
        for name, (mine, theirs) in pairs.items()
        if mine != theirs
    ]


def _same_rows(mine: Path | None, theirs: Path | None) -> bool:
    """Return True if two held-out files hold the same bytes, wherever they are."""
    if mine is None or theirs is None or not (mine.is_file() and theirs.is_file()):
        return False
    return mine.read_bytes() == theirs.read_bytes()


def _differing_settings(first: Config, config: Config, *, with_seed: bool = True) -> list[str]:
    """List how a run's settings differ from the first's, a phrase for each key."""
    theirs, mine = flat(first.model_dump()), flat(config.model_dump())
    if not (first.warm_start.steps and config.warm_start.steps):  # without steps the other keys have no effect
        mine |= {key: theirs[key] for key in mine if key.startswith("warm_start.") and key != "warm_start.steps"}
    differing = [
        key
        for key in {**theirs, **mine}
        if mine.get(key) != theirs.get(key) and not key.startswith(IGNORED_KEY_PREFIXES)
    ]
    words = [_phrase(key, mine.get(key)) for key in differing if key != "seed"]
    return words + ([f"seed {config.seed}"] if with_seed and "seed" in differing else [])


def _phrase(key: str, value: Any) -> str:
    if key == "warm_start.steps" and value == 0:
        return "no warm start"
    if key == "reward.shuffle" and value:
        return "shuffled reward"
    return f"{key}={value}"
