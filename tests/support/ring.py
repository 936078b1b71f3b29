"""Processes of one run, started as `mlx.launch` does on one machine, so that a test can end each of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlx_grpo.distributed.launch import free_ports

COMMAND = (sys.executable, "-m", "mlx_grpo.cli")
KILLER = Path(__file__).parent / "killer.py"


@contextmanager
def started(folder: Path, commands: Sequence[Sequence[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Start a process for each command, several of them in a ring over the loopback; kill them after the block."""
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(len(commands))]))
    ring = {**os.environ, "OPENBLAS_NUM_THREADS": "1"} | ({"MLX_HOSTFILE": str(hosts)} if len(commands) > 1 else {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen(command, cwd=folder, env={**ring, "MLX_RANK": str(rank)}, **pipes)
        for rank, command in enumerate(commands)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(folder: Path, count: int, *arguments: str) -> None:
    """Run `mlx-grpo ARGUMENTS` in `count` processes; all must end well."""
    with started(folder, [[*COMMAND, *arguments]] * count) as processes:
        outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, outputs


def killed_at(folder: Path, moment: str, *arguments: str) -> list[str]:
    """Return the command that runs `mlx-grpo ARGUMENTS` until a moment (MODULE:N, see killer.py)."""
    return [sys.executable, str(KILLER), str(folder / "counts.json"), moment, *arguments]
