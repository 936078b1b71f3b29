"""When one process of a run ends badly, the others end too with its reason, and the run can be resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ring
from support.ranks_config import CONFIG
from support.toy_run import contents, fail_on_process_1, write_run

from mlx_grpo.runs import Run
from mlx_grpo.training.checkpoint import list_checkpoints

ENDS_WITHIN = 30  # seconds


@pytest.fixture
def folder(tiny_qwen3: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path, c=CONFIG.format(model=tiny_qwen3, out="runs") + "save_steps: 2\n")


def others_end(folder: Path, commands: list[list[str]], victim: int, code: int) -> list[tuple[int, str]]:
    """Return exit code and stderr of every other process, once the victim has ended with `code`.

    They must end within ENDS_WITHIN seconds of it.
    """
    with ring.started(folder, commands) as processes:
        assert processes[victim].wait(timeout=120) == code
        ended = time.monotonic()
        others = [process for rank, process in enumerate(processes) if rank != victim]
        results = [(process.wait(timeout=ENDS_WITHIN), process.communicate()[1]) for process in others]
        assert time.monotonic() - ended < ENDS_WITHIN
    return results


def killed_one(folder: Path, count: int, victim: int, moment: str, *train: str) -> list[tuple[int, str]]:
    """Kill one process of a training run at a moment; return exit code and stderr of the others."""
    commands = [[*ring.COMMAND, "train", "c.yaml", *train] for _ in range(count)]
    commands[victim] = ring.killed_at(folder, moment, "train", "c.yaml", *train)
    return others_end(folder, commands, victim, -signal.SIGKILL)


# While decoding, in a collective, in a supervised step, and while rank 0 writes a checkpoint.
@pytest.mark.parametrize(
    ("victim", "moment"),
    [
        (0, "generation/rollout:150"),
        (1, "distributed/ranks:60"),
        pytest.param(2, "training/warm_start:3", marks=pytest.mark.long),
        pytest.param(0, "training/checkpoint:30", marks=pytest.mark.long),
    ],
)
def test_killed_process_ends_the_others_with_a_message(folder: Path, victim: int, moment: str):
    for code, errors in killed_one(folder, 3, victim, moment, "max_steps=500"):
        assert code == 1
        assert f"process {victim} of 3 died\n--resume goes on from the last checkpoint" in errors
        assert "Traceback" not in errors


def test_run_with_a_killed_process_resumes_bit_exactly(folder: Path):
    ring.run(folder, 2, "train", "c.yaml", "output_dir=whole")
    killed_one(folder, 2, 1, "training/update:84")
    checkpoints = [path.name for path in list_checkpoints(Run(folder / "runs" / "latest"))]
    assert checkpoints[0].startswith("grpo-")
    assert "grpo-000005" not in checkpoints
    ring.run(folder, 2, "train", "c.yaml", "--resume")
    assert contents(folder / "runs" / "latest") == contents(folder / "whole" / "latest")


# The second of two processes ends badly; the first one waits, and must be ended.
SCRIPT = """
import contextlib, os, socket, sys, time
import mlx_grpo, mlx.core as mx
from mlx_grpo.distributed import watchdog, ranks as ranks_module
from mlx_grpo.errors import UserError
watchdog.GRACE_SECONDS = 1
watchdog.JOIN_SECONDS = 3
ranks = ranks_module.join_ranks()
{before}
try:
    with watchdog.watchdog(ranks):
        if ranks.rank == 1:
            os._exit(9)
        {wait}
except UserError as error:
    sys.exit(str(error))
"""
STUCK = """
        while True:
            try:
                mx.eval(mx.distributed.all_sum(mx.zeros(3), stream=mx.cpu))
            except RuntimeError:
                print("raised once", flush=True)
"""
ELSEWHERE = "ranks_module.machine = lambda: ranks.rank\n"


def scripts(before: str, wait: str = "time.sleep(60)") -> list[list[str]]:
    return [[sys.executable, "-c", SCRIPT.format(before=before, wait=wait.strip())]] * 2


def test_process_in_a_hanging_collective_is_ended(folder: Path):
    ((code, errors),) = others_end(folder, scripts("", STUCK), 1, 9)
    assert code == 1
    assert "process 1 of 2 died" in errors


def test_foreign_connections_are_rejected(folder: Path):
    foreign = """
reach, kept = socket.create_connection, []
def among_foreign(place, timeout):
    for message in (b'["guess", 1]\\n', b'1\\n', b'x\\n', b''):
        kept.append(reach(place, timeout=timeout))
        kept[-1].sendall(message)
    time.sleep(0.3)
    with contextlib.suppress(OSError):
        kept[0].sendall(b'[0, ""]\\n')
    return reach(place, timeout=timeout)
watchdog.socket.create_connection = among_foreign
watchdog.MESSAGE_SECONDS = 0.5
"""
    ((code, errors),) = others_end(folder, scripts(foreign), 1, 9)
    assert code == 1
    assert "process 1 of 2 died" in errors


def test_first_process_is_found_by_the_launchers_host_file(folder: Path):
    ((code, errors),) = others_end(folder, scripts(ELSEWHERE), 1, 9)
    assert code == 1
    assert "process 1 of 2 died" in errors


def test_unreachable_first_process_is_reported_on_both_sides(folder: Path):
    # An address reserved for documentation, and a name reserved to have no address.
    nowhere = """
watchdog._first_host = lambda: ["192.0.2.1"]
socket.gethostname = lambda: "nowhere.invalid"
"""
    with ring.started(folder, scripts(ELSEWHERE + nowhere)) as processes:
        errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert "processes [1] did not reach the first one" in errors[0]
    assert "can't reach the first one at 192.0.2.1 or nowhere.invalid; let Python accept connections" in errors[1]


def test_error_of_one_process_is_reported_by_all(folder: Path):
    fail_on_process_1(folder)
    for code, errors in others_end(folder, [[*ring.COMMAND, "train", "c.yaml"]] * 3, 1, 2):
        assert code == 2
        assert "process 1 of 3 failed: reward.functions: toy:vowels raised ZeroDivisionError" in errors
        assert "--resume" not in errors


def test_process_that_ends_before_joining_ends_the_command(folder: Path):
    (folder / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('MLX_RANK') == '1':\n    os.write(2, b'no room')\n    os._exit(7)\n"
    )
    done = subprocess.run(
        [*ring.COMMAND, "train", "c.yaml", "--processes", "2"],
        cwd=folder, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: no room\n"
