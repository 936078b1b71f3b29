"""A run killed with SIGKILL at any moment resumes to the same end."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest
from support.toy_run import CONFIG, killed, resume_to_the_end, write_run

# Modules in which a kill may come: those of generation, scoring, gradients, the update, files and checkpoints.
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
    assert len(whole["metrics"]) == 10  # an evaluation comes before the first GRPO step
    rng = random.Random(seed)
    for number in range(kills):
        shutil.rmtree(folder / "runs", ignore_errors=True)
        module = MODULES[number % len(MODULES)]
        moment = f"{module}:{rng.randint(1, calls[module])}"
        if killed(folder, moment, "train", "c.yaml") == 0:
            pytest.fail(f"{moment} was never reached")
        if not (folder / "runs" / "latest").exists():
            continue  # killed before there was a run
        assert resume_to_the_end(folder) == whole, moment


def test_three_killed_runs_resume_bit_exactly(folder: Path, uninterrupted):
    check_kills(folder, *uninterrupted, kills=3, seed=4)


@pytest.mark.long
def test_twenty_five_killed_runs_resume_bit_exactly(folder: Path, uninterrupted):
    check_kills(folder, *uninterrupted, kills=25, seed=0)


def test_run_killed_three_times_resumes_bit_exactly(folder: Path, uninterrupted):
    whole, calls = uninterrupted
    assert killed(folder, f"training/update:{calls['training/update'] // 2}", "train", "c.yaml") == -signal.SIGKILL
    for moment in ("training/checkpoint:40", "generation/rollout:60"):
        assert killed(folder, moment, "train", "c.yaml", "--resume") == -signal.SIGKILL
    assert resume_to_the_end(folder) == whole
