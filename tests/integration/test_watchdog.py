"""When one process of a run ends badly, the others end too, say why, and the run can be gone on with."""

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
    """Exit code and last words of each other process, which must come soon after the victim's end with `code`."""
    with ring.started(folder, commands) as processes:
        assert processes[victim].wait(timeout=120) == code
        ended = time.monotonic()
        others = [process for rank, process in enumerate(processes) if rank != victim]
        found = [(process.wait(timeout=ENDS_WITHIN), process.communicate()[1]) for process in others]
        assert time.monotonic() - ended < ENDS_WITHIN
    return found


def killed_one(folder: Path, count: int, victim: int, moment: str, *train: str) -> list[tuple[int, str]]:
    """The same of a training run in which one process is killed."""
    commands = [[*ring.COMMAND, "train", "c.yaml", *train] for _ in range(count)]
    commands[victim] = ring.killed_at(folder, moment, "train", "c.yaml", *train)
    return others_end(folder, commands, victim, -signal.SIGKILL)


# Decoding, in a supervised step, in a collective, and while rank 0 writes a checkpoint.
@pytest.mark.parametrize(
    ("victim", "moment"),
    [
        (0, "generation/rollout:150"),
        (1, "distributed/ranks:60"),
        pytest.param(2, "training/warm_start:3", marks=pytest.mark.long),
        pytest.param(0, "training/checkpoint:30", marks=pytest.mark.long),
    ],
)
def test_when_a_process_is_killed_the_others_end_and_say_so(folder: Path, victim: int, moment: str):
    for code, said in killed_one(folder, 3, victim, moment, "max_steps=500"):
        assert code == 1
        assert f"process {victim} of 3 died\n--resume goes on from the last checkpoint" in said
        assert "Traceback" not in said


def test_a_run_whose_process_was_killed_ends_as_if_it_had_not_been(folder: Path):
    ring.run(folder, 2, "train", "c.yaml", "output_dir=whole")
    killed_one(folder, 2, 1, "training/update:146")
    checkpoints = [path.name for path in list_checkpoints(Run(folder / "runs" / "latest"))]
    assert checkpoints[0].startswith("grpo-")
    assert "grpo-000005" not in checkpoints
    ring.run(folder, 2, "train", "c.yaml", "--resume")
    assert contents(folder / "runs" / "latest") == contents(folder / "whole" / "latest")


# The second of two processes ends badly; the first one, which waits, has to be ended.
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


def test_a_process_in_a_collective_that_never_returns_is_ended(folder: Path):
    ((code, said),) = others_end(folder, scripts("", STUCK), 1, 9)
    assert code == 1
    assert "process 1 of 2 died" in said


def test_a_stranger_on_the_port_is_shown_the_door(folder: Path):
    strangers = """
reach, kept = socket.create_connection, []
def among_strangers(place, timeout):
    for said in (b'["guess", 1]\\n', b'1\\n', b'x\\n', b''):
        kept.append(reach(place, timeout=timeout))
        kept[-1].sendall(said)
    time.sleep(0.3)
    with contextlib.suppress(OSError):
        kept[0].sendall(b'[0, ""]\\n')
    return reach(place, timeout=timeout)
watchdog.socket.create_connection = among_strangers
watchdog.MESSAGE_SECONDS = 0.5
"""
    ((code, said),) = others_end(folder, scripts(strangers), 1, 9)
    assert code == 1
    assert "process 1 of 2 died" in said


def test_processes_on_several_machines_find_the_first_by_what_the_launcher_says(folder: Path):
    ((code, said),) = others_end(folder, scripts(ELSEWHERE), 1, 9)
    assert code == 1
    assert "process 1 of 2 died" in said


def test_a_first_process_that_cannot_be_reached_is_told_of(folder: Path):
    # An address that is set aside for documentation, and a name that is set aside for having none.
    nowhere = """
watchdog._first_host = lambda: ["192.0.2.1"]
socket.gethostname = lambda: "nowhere.invalid"
"""
    with ring.started(folder, scripts(ELSEWHERE + nowhere)) as processes:
        said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert "processes [1] did not reach the first one" in said[0]
    assert "can't reach the first one at 192.0.2.1 or nowhere.invalid; let Python accept connections" in said[1]


def test_a_mistake_that_one_process_alone_meets_is_told_by_all(folder: Path):
    fail_on_process_1(folder)
    for code, said in others_end(folder, [[*ring.COMMAND, "train", "c.yaml"]] * 3, 1, 2):
        assert code == 2
        assert "process 1 of 3 failed: reward.functions: toy:vowels raised ZeroDivisionError" in said
        assert "--resume" not in said


def test_a_process_that_ends_before_it_has_joined_ends_the_command(folder: Path):
    (folder / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('MLX_RANK') == '1':\n    os.write(2, b'no room')\n    os._exit(7)\n"
    )
    done = subprocess.run(
        [*ring.COMMAND, "train", "c.yaml", "--processes", "2"],
        cwd=folder, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: no room\n"
