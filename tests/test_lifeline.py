"""When one process of a run ends badly, the others end too, say why, and the run can be gone on with."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ring
from test_checkpoint import contents
from test_ranks import CONFIG, FUNCTIONS

ENDS_WITHIN = 30  # seconds


@pytest.fixture
def folder(tiny_qwen3: Path, tmp_path: Path) -> Path:
    rows = [{"id": str(i), "prompt": f"say {i}" * (i % 3 + 1), "completion": "an answer"} for i in range(7)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "toy.py").write_text(FUNCTIONS)
    (tmp_path / "c.yaml").write_text(CONFIG.format(model=tiny_qwen3, out="runs") + "save_steps: 2\n")
    return tmp_path


def ended(processes: list[subprocess.Popen[str]], victim: int) -> list[tuple[int, str]]:
    """Exit code and last words of each other process, which must come soon after the victim's death."""
    processes[victim].wait(timeout=120)
    died = time.monotonic()
    others = [process for rank, process in enumerate(processes) if rank != victim]
    found = [(process.wait(timeout=ENDS_WITHIN), process.communicate()[1]) for process in others]
    assert time.monotonic() - died < ENDS_WITHIN
    return found


@pytest.mark.parametrize(
    ("victim", "moment"), [(0, "rollout:150"), (1, "rollout:150"), (2, "sft:3"), (1, "ranks:60"), (0, "checkpoint:30")]
)
def test_when_a_process_is_killed_the_others_end_and_say_so(folder: Path, victim: int, moment: str):
    train = ("train", "c.yaml", "max_steps=500")
    commands = [[*ring.COMMAND, *train] for _ in range(3)]
    commands[victim] = ring.killed_at(folder, moment, *train)
    for code, said in ended(ring.start(folder, commands), victim):
        assert code == 1
        assert f"process {victim} of 3 died" in said
        assert "--resume" in said
        assert "Traceback" not in said


def test_a_run_whose_process_was_killed_ends_as_if_it_had_not_been(folder: Path):
    ring.run(folder, 2, "train", "c.yaml", "output_dir=whole")
    train = ("train", "c.yaml")
    processes = ring.start(folder, [[*ring.COMMAND, *train], ring.killed_at(folder, "update:40", *train)])
    ended(processes, 1)
    assert not (folder / "runs" / "latest" / "adapter").exists()
    ring.run(folder, 2, "train", "c.yaml", "--resume")
    assert contents(folder / "runs" / "latest") == contents(folder / "whole" / "latest")


STUCK = """
import os, sys, time
import mlx_grpo, mlx.core as mx
from mlx_grpo import lifeline
from mlx_grpo.ranks import join_ranks
lifeline.GRACE_SECONDS = 1
ranks = join_ranks()
with lifeline.lifeline(ranks):
    if ranks.rank == 1:
        os._exit(9)
    while True:
        try:
            mx.eval(mx.distributed.all_sum(mx.zeros(3), stream=mx.cpu))
        except RuntimeError:
            print("raised once", flush=True)
"""


def test_a_process_in_a_collective_that_never_returns_is_ended(folder: Path):
    processes = ring.start(folder, [[sys.executable, "-c", STUCK]] * 2)
    ((code, said),) = ended(processes, 1)
    assert code == 1
    assert "process 1 of 2 died" in said


def test_a_mistake_that_one_process_alone_meets_is_told_by_all(folder: Path):
    (folder / "toy.py").write_text(
        "import os\n" + FUNCTIONS.replace("    return", "    if os.environ.get('MLX_RANK') == '1': 1 / 0\n    return")
    )
    processes = ring.start(folder, [[*ring.COMMAND, "train", "c.yaml"]] * 3)
    for code, said in ended(processes, 1):
        assert code == 2
        assert "process 1 of 3 failed: reward.functions: toy:vowels raised ZeroDivisionError" in said


def test_a_stranger_on_the_port_is_shown_the_door(folder: Path):
    script = STUCK.replace("os._exit(9)", "sys.exit(0)").replace("while True", "while False")
    stranger = """
import socket, mlx_grpo.lifeline as l
reach = socket.create_connection
def twice(place, timeout):
    reach(place, timeout=timeout).sendall(b'["guess", 1]\\n')
    reach(place, timeout=timeout).close()
    return reach(place, timeout=timeout)
l.socket.create_connection = twice
"""
    processes = ring.start(folder, [[sys.executable, "-c", stranger + script]] * 2)
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
