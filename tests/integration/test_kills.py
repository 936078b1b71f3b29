"""A run killed with SIGKILL, anywhere, goes on to the end it would have had."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest
from support.toy_run import CONFIG, killed, resumed_to_the_end, write_run

# Where a kill may come: within generation, scoring, the loss and its gradient, the update, files and checkpoints.
MODULES = (
    "generation/rollout",
    "generation/sampling",
    "rewards",
    "training/accumulate",
    "training/update",
    "runs",
    "training/checkpoint",
    "training/run_logger",
    "models/policy",
    "training/warm_start",
)


@pytest.fixture
def folder(tiny_qwen3: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path, c=CONFIG.format(model=tiny_qwen3))


def check_kills(folder: Path, whole: dict[str, object], calls: dict[str, int], kills: int, seed: int) -> None:
    assert len(whole["metrics"]) == 10  # a look at held-out prompts comes before the first GRPO step
    rng = random.Random(seed)
    for number in range(kills):
        shutil.rmtree(folder / "runs", ignore_errors=True)
        module = MODULES[number % len(MODULES)]
        moment = f"{module}:{rng.randint(1, calls[module])}"
        if killed(folder, moment, "train", "c.yaml") == 0:
            pytest.fail(f"{moment} was never reached")
        if not (folder / "runs" / "latest").exists():
            continue  # killed before there was a run
        assert resumed_to_the_end(folder) == whole, moment


def test_three_killed_runs_end_as_if_they_had_not_been(folder: Path, uninterrupted):
    check_kills(folder, *uninterrupted, kills=3, seed=4)


@pytest.mark.long
def test_twenty_five_killed_runs_end_as_if_they_had_not_been(folder: Path, uninterrupted):
    check_kills(folder, *uninterrupted, kills=25, seed=0)


def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(folder: Path, uninterrupted):
    whole, calls = uninterrupted
    assert killed(folder, f"training/update:{calls['training/update'] // 2}", "train", "c.yaml") == -signal.SIGKILL
    for moment in ("training/checkpoint:40", "generation/rollout:60"):
        assert killed(folder, moment, "train", "c.yaml", "--resume") == -signal.SIGKILL
    assert resumed_to_the_end(folder) == whole
