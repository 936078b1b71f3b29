"""A stopped or damaged run resumes as if nothing had happened, or reports what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from support.command import cli
from support.tiny_models import tiny_config
from support.toy_run import CONFIG, contents, killed, resume_to_the_end, write_run

from mlx_grpo.errors import UserError
from mlx_grpo.runs import Run, find_resumable
from mlx_grpo.training.checkpoint import list_checkpoints


@pytest.fixture
def folder(tiny_qwen3: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path, c=CONFIG.format(model=tiny_qwen3))


@pytest.fixture(scope="module")
def stopped_once(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("stopped"), c=CONFIG.format(model=tiny_qwen3))
    finished = cli("train", "c.yaml", "max_steps=4", "lr_scheduler_type=constant", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture
def stopped(folder: Path, stopped_once: Path) -> Path:
    """A run of 6 GRPO steps that stopped after 4, copied for each test."""
    shutil.copytree(stopped_once / "runs", folder / "runs", symlinks=True)
    return (folder / "runs" / "latest").resolve()


def resume(run: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return cli("train", str(run), "--resume", *overrides, folder=run.parents[1])


def test_finished_run_continues_with_a_larger_max_steps(stopped: Path):
    folder = stopped.parents[1]
    cli("train", "c.yaml", "lr_scheduler_type=constant", "output_dir=whole", folder=folder)
    assert resume(stopped, "max_steps=6").returncode == 0
    assert contents(stopped) == contents(folder / "whole" / "latest")


def test_only_the_last_checkpoints_are_kept(stopped: Path):
    assert [path.name for path in list_checkpoints(Run(stopped))] == ["grpo-000004", "grpo-000002"]


def test_resume_names_every_changed_key(stopped: Path):
    finished = resume(stopped, "learning_rate=0.1", "lora.rank=2")
    assert finished.returncode == 2
    assert f"--resume: learning_rate: 0.003 in {stopped.name}, 0.1 now" in finished.stderr
    assert "--resume: lora.rank: 4" in finished.stderr
    assert "beta" not in finished.stderr


def test_key_added_to_or_removed_from_an_open_section_counts_as_changed(tiny_qwen3: Path, tmp_path: Path):
    config = tiny_config(tiny_qwen3, reward={"limits": {"max_reasons": 3}}, output_dir=str(tmp_path / "runs"))
    run = str(Run.create(config).folder)
    with pytest.raises(UserError, match=r"reward\.limits\.max_reasons: 3 in .*, None now"):
        find_resumable(run, ["reward.limits={}"])
    with pytest.raises(UserError, match=r"reward\.weights\.length_penalty: None in .*, 0\.0 now"):
        find_resumable(run, ["reward.weights.length_penalty=0"])


def test_resume_without_a_run_is_an_error(folder: Path):
    finished = cli("train", "c.yaml", "--resume", folder=folder)
    assert finished.returncode == 2
    assert "--resume: runs holds no run yet" in finished.stderr


@pytest.mark.parametrize(
    "damage", ["truncated weights", "one flipped bit", "no state", "foreign", "another layout", "shorter samples"]
)
def test_damaged_checkpoint_is_reported_and_the_previous_one_resumed(stopped: Path, damage: str):
    newest = list_checkpoints(Run(stopped))[0]
    weights = newest / "adapters.safetensors"
    report = {
        "truncated weights": "adapters.safetensors is damaged",
        "one flipped bit": "optimizer.safetensors is damaged",
        "no state": "not readable",
        "another layout": "not readable (TypeError",
        "foreign": "made with another configuration",
        "shorter samples": "the run's samples.jsonl is shorter than it was",
    }[damage]
    if damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "one flipped bit":
        data = bytearray((newest / "optimizer.safetensors").read_bytes())
        data[-1] ^= 1
        (newest / "optimizer.safetensors").write_bytes(data)
    elif damage == "no state":
        (newest / "state.json").write_text("{")
    elif damage == "foreign":
        state = json.loads((newest / "state.json").read_text())
        (newest / "state.json").write_text(json.dumps({**state, "config": {**state["config"], "seed": 7}}))
    elif damage == "another layout":
        state = json.loads((newest / "state.json").read_text())
        state["position"]["best"]["reward"] = 0.5  # as an earlier version had it
        (newest / "state.json").write_text(json.dumps(state))
    else:
        os.truncate(stopped / "samples.jsonl", (stopped / "samples.jsonl").stat().st_size - 1)
    whole = contents(stopped)
    finished = resume(stopped)
    assert finished.returncode == 0, finished.stderr
    assert f"grpo-000004: {report}" in finished.stdout
    assert "continuing after step 2" in finished.stdout
    assert contents(stopped)["metrics"] == whole["metrics"]


def test_run_without_a_usable_checkpoint_starts_over(stopped: Path):
    whole = contents(stopped)
    for checkpoint in list_checkpoints(Run(stopped)):
        (checkpoint / "state.json").unlink()
    before = (stopped / "samples.jsonl").read_bytes()
    finished = resume(stopped)
    assert finished.returncode == 0, finished.stderr
    assert "starting over" in finished.stdout
    assert (stopped / "before-samples.jsonl").read_bytes() == before
    assert contents(stopped) == whole


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_run_stopped_by_a_signal_resumes_bit_exactly(folder: Path, uninterrupted, number: signal.Signals, code: int):
    whole, _ = uninterrupted
    command = [sys.executable, "-m", "mlx_grpo.cli", "train", "c.yaml"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "warm start: 3 steps" in line:  # long before the end, however slow the machine
            break
    process.send_signal(number)
    process.stdout.read()
    errors = process.stderr.read()
    assert process.wait(timeout=60) == code
    assert "all saved; continue with: mlx-grpo train" in errors
    assert "Traceback" not in errors
    assert resume_to_the_end(folder) == whole


def test_without_eval_steps_the_adapter_is_the_last_checkpoints(folder: Path):
    command = [sys.executable, "-m", "mlx_grpo.cli", "train", "c.yaml", "eval_steps=0", "save_steps=4", "max_steps=600"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip().startswith("6/600"):
            break
    process.send_signal(signal.SIGTERM)
    process.stdout.read()
    assert process.wait(timeout=60) == 143
    run = folder / "runs" / "latest"
    newest = list_checkpoints(Run(run))[0]
    assert int(newest.name[-6:]) >= 6
    weights = [(at / "adapters.safetensors").read_bytes() for at in (run / "adapter", newest)]
    assert weights[0] == weights[1]


def test_run_ended_by_until_resumes_bit_exactly(folder: Path, uninterrupted):
    whole, _ = uninterrupted
    finished = cli("train", "c.yaml", "--until", "3", folder=folder)
    assert finished.returncode == 0, finished.stderr
    run = folder / "runs" / "latest"
    assert (
        f"stopped after step 3 of grpo, all saved; continue with: mlx-grpo train {run.resolve().relative_to(folder)}"
        in (" ".join(finished.stdout.split()))
    )
    assert list_checkpoints(Run(run))[0].name == "grpo-000003"
    assert contents(run)["metrics"] == whole["metrics"][:7]  # three of the warm start, an evaluation, and three
    assert cli("train", "c.yaml", "--resume", "--until", "3", folder=folder).returncode == 0  # nothing left to do
    assert resume_to_the_end(folder) == whole


def test_run_folder_is_locked_against_a_second_process(stopped: Path):
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, time; f = open({str(stopped / '.lock')!r}, 'r+'); "
         "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    holder.stdout.readline()
    finished = resume(stopped, "max_steps=6")
    holder.kill()
    assert finished.returncode == 2
    assert "is training there" in finished.stderr


def test_two_processes_resume_a_run_that_one_started(folder: Path):
    # Dropout and a random reward differ between processes; everything else is what one process would compute.
    plain = ("lora.dropout=0", "reward.functions=['toy:vowels']", "max_steps=4")
    whole = cli("train", "c.yaml", *plain, "--processes", "2", "output_dir=whole", folder=folder)
    assert whole.returncode == 0, whole.stderr
    assert killed(folder, "training/update:30", "train", "c.yaml", *plain) == -signal.SIGKILL
    for until in ("3", "99"):
        finished = cli("train", "c.yaml", *plain, "--resume", "--until", until, "--processes", "2", folder=folder)
        assert finished.returncode == 0, finished.stderr
        assert list_checkpoints(Run(folder / "runs" / "latest"))[0].name == f"grpo-{min(int(until), 4):06}"
    ends = [mx.load(str(folder / d / "latest" / "adapter" / "adapters.safetensors")) for d in ("runs", "whole")]
    for name in ends[0]:
        assert mx.linalg.norm(ends[0][name] - ends[1][name]).item() <= 1e-3 * mx.linalg.norm(ends[1][name]).item()


def test_full_disk_keeps_earlier_checkpoints(folder: Path):
    small = folder / "small"
    small.mkdir()
    script = (
        f"mount -t tmpfs -o size=200k tmpfs {small} && "
        f"{sys.executable} -m mlx_grpo.cli train c.yaml output_dir={small} save_total_limit=99; echo code $?; "
        f"ls {small}/latest/checkpoints"
    )
    finished = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script], cwd=folder, capture_output=True, text=True
    )
    if "mount" in finished.stderr or "unshare" in finished.stderr:
        pytest.skip(f"no small file system can be made here: {finished.stderr.strip()[:100]}")
    assert "code 2" in finished.stdout
    assert "free space there" in finished.stderr
    assert "Traceback" not in finished.stderr
