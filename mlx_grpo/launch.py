"""Several processes of one training run on this machine, for CPUs: MLX computes most operations on one core."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlx_grpo import BLAS
from mlx_grpo.errors import UserError

GRACE_SECONDS = 10


@contextmanager
def processes(count: int, arguments: Sequence[str]) -> Iterator[None]:
    """Run `mlx-grpo ARGUMENTS` in `count` - 1 further processes while the block trains as rank 0 in this one.

    They talk through MLX's ring over the loopback; each gets its share of the cores. Raises UserError where
    there are more processes than cores, and with a process's last words where one of them fails.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if count > cores:
        raise UserError(f"--processes: {count}, but this machine has {cores} cores; use at most that many")
    if count == 1:
        yield
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts = folder / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(count)]))
        ring = {"MLX_HOSTFILE": str(hosts), "OPENBLAS_NUM_THREADS": str(cores // count)}
        command = [sys.executable, "-m", "mlx_grpo.cli", *arguments]
        children = []
        for rank in range(1, count):
            words = stack.enter_context((folder / f"{rank}.log").open("w+b"))
            child = subprocess.Popen(
                command, env={**os.environ, **ring, "MLX_RANK": str(rank)}, stdout=subprocess.DEVNULL, stderr=words
            )
            stack.callback(end, child)
            children.append((child, Path(words.name)))
        os.environ.update({**ring, "MLX_RANK": "0"})
        if BLAS:  # loaded already, with a thread for each core
            ctypes.CDLL(BLAS).openblas_set_num_threads(cores // count)
        try:
            yield
        except RuntimeError:  # what a collective raises when a peer is gone
            for child, words in children:
                check_alive(child, words)
            raise


def end(child: subprocess.Popen) -> None:
    """Have a process end: asked at first, then made to, since one that waits in a collective hears nothing."""
    child.terminate()
    try:
        child.wait(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def check_alive(child: subprocess.Popen, words: Path) -> None:
    """Raise UserError with the last words of a process that failed."""
    try:
        failed = child.wait(timeout=GRACE_SECONDS) != 0
    except subprocess.TimeoutExpired:
        return
    if failed:
        said = words.read_text(errors="replace")
        raise UserError(said.partition("error: ")[2].strip() or f"a training process died: {said[-500:].strip()}")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
