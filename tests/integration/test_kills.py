"""A run killed with SIGKILL at any moment resumes to the same end."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path

import pytest
from support.command import cli
from support.toy_run import CONFIG, abort_once, contents, killed, resume_to_the_end, write_run

from mlx_grpo.runs import Run

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


@pytest.mark.long
def test_supervised_run_resumes_bit_exactly_after_an_abort(folder: Path, uninterrupted):
    abort_once(folder, 3, "os.abort()")
    finished = cli("train", "c.yaml", "--supervise", "--json", folder=folder)
    assert finished.returncode == 0, finished.stderr
    assert "supervise: the run was ended by SIGABRT; resuming from grpo-000002 (restart 1 of" in finished.stderr
    run = Path(json.loads(finished.stdout)["run"])  # only the child's own line
    assert list(folder.glob("runs/2*")) == [folder / run]
    assert contents(folder / run) == uninterrupted[0]


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        pytest.param(
            "os.kill(os.getpid(), 9)", "SIGKILL, most likely for lack of memory", id="memory", marks=pytest.mark.long
        ),
        pytest.param(
            "os.write(2, b'[METAL] Command buffer execution failed: Impacting Interactivity'); os.abort()",
            "Metal (Impacting Interactivity)",
            id="metal",
        ),
    ],
)
def test_supervised_run_halves_its_micro_batches_for_metal_or_memory(folder: Path, uninterrupted, how: str, cause: str):
    abort_once(folder, 3, how)
    finished = cli("train", "c.yaml", "--supervise", folder=folder)
    assert finished.returncode == 0, finished.stderr
    assert f"supervise: the run was ended by {cause}; resuming from grpo-000002" in finished.stderr
    assert "supervise: micro_batch_size 4 -> 2; bits differ from now on" in finished.stderr
    assert "micro_batch_size was 4, is 2 from here on; bits differ" in " ".join(finished.stdout.split())
    run = Run((folder / "runs" / "latest").resolve())
    assert run.config.micro_batch_size == 2
    sizes = [(record["step"], record["micro_batch_size"]) for record in run.metrics() if "micro_batch_size" in record]
    assert sizes == [(2, 2)]
    records = contents(run.folder)["metrics"]
    assert records[:6] == uninterrupted[0]["metrics"][:6]  # the warm start, the evaluation before GRPO, two steps
    assert len(records) == 10
