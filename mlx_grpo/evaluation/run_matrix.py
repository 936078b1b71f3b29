"""Which models an evaluation sets side by side: the base once, then each run's warm start and what GRPO made of it."""

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
from mlx_grpo.runs import ADAPTER, WARM_START, read_config

IGNORED_KEY_PREFIXES = ("output_dir", "logging_steps", "save_", "eval.", "warm_start.run", "data.heldout")
"""Beginnings of the keys that don't change what a run learns; the held-out rows are the same in all."""


@dataclass(slots=True)
class RunMatrix:
    """Models by name, in the order of the tables."""

    adapters: dict[str, Path | None] = field(default_factory=lambda: {BASELINE: None})
    warm_starts: dict[str, str] = field(default_factory=dict)
    """For each trained model that had a warm start, the name of that."""
    runs: dict[str, Path] = field(default_factory=dict)
    """The run of each trained model."""
    seeds: dict[str, list[str]] = field(default_factory=dict)
    """The models of runs that differ in the seed alone, where there are several, under a name for all of them."""


def build_run_matrix(runs: Sequence[Path]) -> RunMatrix:
    """Name the models of the runs: plain names for the first run's, the others' with what sets them apart.

    Raises UserError where a run has no adapter yet, or has another model or other held-out prompts than the first.
    """
    configs = [read_config(run) for run in runs]
    problems = [problem for run, config in zip(runs, configs, strict=True) for problem in _misfit(run, config, configs)]
    if problems:
        raise UserError(*problems)
    matrix, starts = RunMatrix(), {}
    alike: dict[str, list[str]] = {}
    for run, config in zip(runs, configs, strict=True):
        words = _words(configs[0], config)
        again = _name("trained", words) in matrix.runs
        if again:
            words = [run.name]
        trained = _name("trained", words)
        added = {}
        if (run / WARM_START / ADAPTER_WEIGHTS).is_file():
            weights = hashlib.sha256((run / WARM_START / ADAPTER_WEIGHTS).read_bytes()).hexdigest()
            if weights not in starts:  # runs of one seed begin alike, and one row is enough for them
                starts[weights] = added["warm start"] = _name("warm start", words)
                matrix.adapters[starts[weights]] = run / WARM_START
            matrix.warm_starts[trained] = starts[weights]
        matrix.adapters[trained], matrix.runs[trained] = run / ADAPTER, run
        for kind, name in {**added, "trained": trained}.items() if not again else ():
            alike.setdefault(_name(kind, _words(configs[0], config, seed=False)), []).append(name)
    matrix.seeds = {f"{name}, {len(models)} seeds": models for name, models in alike.items() if len(models) > 1}
    return matrix


def _name(kind: str, words: Sequence[str]) -> str:
    return ", ".join([kind, *words])


def _misfit(run: Path, config: Config, configs: Sequence[Config]) -> list[str]:
    """Why a run can't stand beside the first one."""
    if not (run / ADAPTER / ADAPTER_WEIGHTS).is_file():
        return [f"{run}: has no {ADAPTER} yet; let `mlx-grpo train` finish first"]
    first = configs[0]
    mine, theirs = dataset_files(config.data)[1], dataset_files(first.data)[1]
    pairs = {
        "model": (config.model, first.model),
        "held-out prompts": (theirs if _same_rows(mine, theirs) else mine, theirs),
        "data.enable_thinking": (config.data.enable_thinking, first.data.enable_thinking),
    }
    return [
        f"{run}: {name} {mine}, where the first run has {theirs}; compare runs on the same prompts"
        for name, (mine, theirs) in pairs.items()
        if mine != theirs
    ]


def _same_rows(mine: Path | None, theirs: Path | None) -> bool:
    """Whether two held-out files hold the same, as those of differently made examples for the same task do."""
    there = mine is not None and theirs is not None and mine.is_file() and theirs.is_file()
    return there and mine.read_bytes() == theirs.read_bytes()


def _words(first: Config, config: Config, *, seed: bool = True) -> list[str]:
    """What sets a run apart from the first, a phrase for each key."""
    theirs, mine = flat(first.model_dump()), flat(config.model_dump())
    if not (first.warm_start.steps and config.warm_start.steps):  # without steps the other keys say nothing
        mine |= {key: theirs[key] for key in mine if key.startswith("warm_start.") and key != "warm_start.steps"}
    differing = [
        key
        for key in {**theirs, **mine}
        if mine.get(key) != theirs.get(key) and not key.startswith(IGNORED_KEY_PREFIXES)
    ]
    words = [_phrase(key, mine.get(key)) for key in differing if key != "seed"]
    return words + ([f"seed {config.seed}"] if seed and "seed" in differing else [])


def _phrase(key: str, value: Any) -> str:
    if key == "warm_start.steps" and value == 0:
        return "no warm start"
    if key == "reward.shuffle" and value:
        return "shuffled reward"
    return f"{key}={value}"
