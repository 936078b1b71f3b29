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
LAST_WORDS = 4000
JOINING = "MLX_GRPO_JOINING"
"""Names the pipe in which a process that was started here says that it is about to join."""


@contextmanager
def processes(count: int, arguments: Sequence[str], advice: str = "") -> Iterator[Ranks]:
    """Run `mlx-grpo ARGUMENTS` in `count` - 1 further processes while the block works as rank 0 in this one.

    They talk through MLX's ring over the loopback; each gets its share of the cores. On a CPU, where MLX computes
    most operations on one core, they are faster than one. Raises UserError where there are more processes than
    cores, and PeerLost, with `advice` on how to go on, where one of them dies. With a count of 1 the ranks are those
    of `mlx.launch`, if any.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if count > cores:
        raise UserError(f"--processes: {count}, but this machine has {cores} cores; use at most that many")
    with ExitStack() as stack:
        if count > 1:
            ranks = _spawn(stack, count, cores // count, [sys.executable, "-m", "mlx_grpo.cli", *arguments])
        else:
            if JOINING in os.environ:
                os.write(int(os.environ[JOINING]), b".")
            ranks = join_ranks()
        stack.enter_context(watchdog(ranks, advice))
        yield ranks


def _spawn(stack: ExitStack, count: int, threads: int, command: Sequence[str]) -> Ranks:
    """Start the other processes, which end with `stack`, and have this one be rank 0 of their ring."""
    with tempfile.TemporaryDirectory() as name:  # gone once all have joined: whatever ends a run leaves nothing there
        hosts = Path(name) / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(count)]))
        ring = {"MLX_HOSTFILE": str(hosts), "OPENBLAS_NUM_THREADS": str(threads)}
        children = []
        for rank in range(1, count):
            words = stack.enter_context((Path(name) / f"{rank}.log").open("w+b"))
            joining, says_so = os.pipe()
            child = subprocess.Popen(
                command,
                env={**os.environ, **ring, "MLX_RANK": str(rank), JOINING: str(says_so)},
                pass_fds=[says_so],
                stdout=subprocess.DEVNULL,
                stderr=words,
            )
            stack.callback(end, child, words)
            os.close(says_so)
            children.append((child, words, joining))
        for child, words, joining in children:
            with open(joining, "rb") as pipe:
                if not pipe.read(1):  # MLX would wait for ever for a process that never joins
                    said = read_words(words).removeprefix("error: ").strip()
                    raise UserError(said or f"a process ended with {child.wait()} at its start")
        os.environ.update({**ring, "MLX_RANK": "0"})
        if openblas.BLAS:  # loaded already, with a thread for each core
            ctypes.CDLL(openblas.BLAS).openblas_set_num_threads(threads)
        return join_ranks()


def read_words(words: IO[bytes]) -> str:
    """The last of what a process said."""
    words.seek(0)
    return words.read()[-LAST_WORDS:].decode(errors="replace")


def end(child: subprocess.Popen, words: IO[bytes]) -> None:
    """See to it that a process ends, which writes nothing that counts. One that crashed is quoted."""
    try:
        child.wait(timeout=GRACE_SECONDS)  # it knows by its watchdog that this one has ended
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if "Traceback" in (said := read_words(words)):
        sys.stderr.write(said)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
