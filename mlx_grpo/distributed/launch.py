"""The processes that share a command's work: those of `--processes` on this machine, or of `mlx.launch` on several."""

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
from typing import IO

from mlx_grpo.backend import openblas
from mlx_grpo.distributed.ranks import Ranks, join_ranks
from mlx_grpo.distributed.watchdog import watchdog
from mlx_grpo.errors import UserError

GRACE_SECONDS = 2
LOG_TAIL = 4000
"""Bytes of a process's output that are quoted."""
JOIN_PIPE = "MLX_GRPO_JOINING"
"""Names the pipe to which a process that was started here writes when it is about to join."""


@contextmanager
def processes(count: int, arguments: Sequence[str], advice: str = "") -> Iterator[Ranks]:
    """Run `mlx-grpo ARGUMENTS` in `count` - 1 further processes while the block works as rank 0 in this one.

    They communicate through MLX's ring over the loopback, and each gets its share of the cores. On a CPU, where MLX
    computes most operations on one core, they are faster than one. With a count of 1 the ranks are those of
    `mlx.launch`, if any. Raises UserError where there are more processes than cores, and PeerLost, with `advice` on
    how to resume, where one of them dies.
    """
    cores = available_cores()
    if count > cores:
        raise UserError(f"--processes: {count}, but this machine has {cores} cores; use at most that many")
    with ExitStack() as stack:
        if count > 1:
            ranks = _spawn(stack, count, cores // count, [sys.executable, "-m", "mlx_grpo.cli", *arguments])
        else:
            if JOIN_PIPE in os.environ:
                os.write(int(os.environ[JOIN_PIPE]), b".")
            ranks = join_ranks()
        stack.enter_context(watchdog(ranks, advice))
        yield ranks


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _spawn(stack: ExitStack, count: int, threads: int, command: Sequence[str]) -> Ranks:
    """Start the other processes, which end with `stack`, and join their ring as rank 0."""
    with tempfile.TemporaryDirectory() as name:  # removed once all have joined, so no run leaves anything there
        hosts = Path(name) / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(count)]))
        ring = {"MLX_HOSTFILE": str(hosts), "OPENBLAS_NUM_THREADS": str(threads)}
        children = []
        for rank in range(1, count):
            log = stack.enter_context((Path(name) / f"{rank}.log").open("w+b"))
            read_end, write_end = os.pipe()
            child = subprocess.Popen(
                command,
                env={**os.environ, **ring, "MLX_RANK": str(rank), JOIN_PIPE: str(write_end)},
                pass_fds=[write_end],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            stack.callback(end_process, child, log)
            os.close(write_end)
            children.append((child, log, read_end))
        for child, log, read_end in children:
            _wait_until_joining(child, log, read_end)
        os.environ.update({**ring, "MLX_RANK": "0"})
        if openblas.BLAS:  # loaded already, with a thread for each core
            ctypes.CDLL(openblas.BLAS).openblas_set_num_threads(threads)
        return join_ranks()


def _wait_until_joining(child: subprocess.Popen[bytes], log: IO[bytes], read_end: int) -> None:
    """Wait until a process is about to join; raise UserError with its output where it ends before."""
    with open(read_end, "rb") as pipe:
        if not pipe.read(1):  # MLX would wait for ever for a process that never joins
            output = read_tail(log).removeprefix("error: ").strip()
            raise UserError(output or f"a process ended with {child.wait()} at its start")


def read_tail(log: IO[bytes]) -> str:
    """Return the end of a process's output."""
    log.seek(0)
    return log.read()[-LOG_TAIL:].decode(errors="replace")


def end_process(child: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    """Wait for a process, kill it after GRACE_SECONDS, and print its traceback if it crashed.

    It writes no files, so a kill loses nothing.
    """
    try:
        child.wait(timeout=GRACE_SECONDS)  # its watchdog notices that this process has ended
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    output = read_tail(log)
    if "Traceback" in output:
        sys.stderr.write(output)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that no process listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for unbound in sockets:
            unbound.bind(("127.0.0.1", 0))
        return [bound.getsockname()[1] for bound in sockets]
