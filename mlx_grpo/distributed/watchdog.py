"""Processes of one run end together.

A collective does not see to that: the first one after a process died raises, the next never returns, and a process
that is decoding enters none for a minute. So each process holds a line to the first; a line that breaks, or that
says why its process failed, ends the others.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.distributed.signals import Interrupted
from mlx_grpo.errors import Stopped, UserError

GRACE_SECONDS = 10
"""For a process to leave by itself, as it does in a collective, before it is made to."""

WORD_SECONDS = 3
"""For the reason why a collective failed to come."""

JOIN_SECONDS = 60
PROBE_SECONDS = 2
PROBES = 3
LONGEST_LINE = 2**16
SHOW_CURSOR = "\x1b[?25h"


class PeerLost(Stopped):
    """Another process of the run is gone, and so this one ends."""


@contextmanager
def watchdog(ranks: Ranks, advice: str = "") -> Iterator[None]:
    """End this process's block when another process's ends badly: raises PeerLost, or exits where it can't be raised.

    Every process enters together. `advice` says how to go on after a process died. Raises UserError where one can't
    reach the first.
    """
    if ranks.size == 1:
        yield
        return
    line = _Watchdog(ranks, advice)
    try:
        yield
    except Interrupted:  # as all of them are
        line.close(0, "")
        raise
    except BaseException as error:
        if isinstance(error, RuntimeError) and line.known.wait(WORD_SECONDS):  # a collective without its peer
            line.close(1, str(line.lost))
            raise line.lost from None
        code, problems = (2, error.problems) if isinstance(error, UserError) else (1, [repr(error)])
        line.close(code, f"process {ranks.rank} of {ranks.size} failed: {'; '.join(problems)}")
        raise
    line.close(0, "")


class _Watchdog:
    """The first process's lines to all others, or another process's line to the first."""

    def __init__(self, ranks: Ranks, advice: str):
        self.ranks, self.advice = ranks, advice
        self.lost: PeerLost | None = None
        self.known = threading.Event()
        """What is lost is known."""
        self.left = threading.Event()
        """The block is left, so nothing need be ended."""
        self.lines = _lines(ranks)
        for rank, line in self.lines.items():
            threading.Thread(target=self._watch, args=(rank, line), daemon=True).start()

    def close(self, code: int, said: str) -> None:
        """Tell the others how this process ends (code 0: well), and let go."""
        self.left.set()
        for line in self.lines.values():
            _say(line, code, said)
            with suppress(OSError):
                line.shutdown(socket.SHUT_WR)  # closing alone would wait for the thread that reads it
            line.close()

    def _watch(self, rank: int, line: socket.socket) -> None:
        died = "\n".join(filter(None, (f"process {rank} of {self.ranks.size} died", self.advice)))
        code, said = _hear(line) or (1, died)
        if not code or self.left.is_set():
            return
        for other in self.lines.values():
            _say(other, code, said)
        # Two may be lost at once; either is the reason.
        self.lost = PeerLost(code, said)
        self.known.set()
        if not self.left.wait(GRACE_SECONDS):
            print(f"{SHOW_CURSOR if sys.stderr.isatty() else ''}{self.lost}", file=sys.stderr, flush=True)
            os._exit(code)  # the main thread may be in a collective that never returns


def _lines(ranks: Ranks) -> dict[int, socket.socket]:
    """A connection to each other process, by rank, for the first one; for any other one to the first."""
    try:
        alone = ranks.on_this_machine() == ranks.size  # then nobody else need be able to connect
        return _accept_all(ranks, alone) if ranks.leads else {0: _reach(ranks)}
    except (OSError, RuntimeError) as error:
        raise UserError(f"process {ranks.rank} of {ranks.size} could not join the others: {error}") from None


def _reach(ranks: Ranks) -> socket.socket:
    places, port, token = ranks.gather(None)[0]
    for place in places:
        with suppress(OSError):
            line = socket.create_connection((place, port), timeout=GRACE_SECONDS)
            line.sendall(json.dumps([token, ranks.rank]).encode() + b"\n")
            _probe(line)
            return line
    raise UserError(
        f"process {ranks.rank} of {ranks.size} on {socket.gethostname()} can't reach the first one at "
        f"{' or '.join(places)}; let Python accept connections in that machine's firewall"
    )


def _accept_all(ranks: Ranks, alone: bool) -> dict[int, socket.socket]:
    with socket.create_server(("127.0.0.1" if alone else "", 0)) as server:
        places = ["127.0.0.1"] if alone else [*_first_host(), socket.gethostname()]
        token = secrets.token_hex(16)
        ranks.gather([places, server.getsockname()[1], token])
        lines: dict[int, socket.socket] = {}
        until = time.monotonic() + JOIN_SECONDS
        while len(lines) < ranks.size - 1:
            server.settimeout(max(0.001, until - time.monotonic()))
            try:
                line, _ = server.accept()
            except TimeoutError:
                missing = sorted(set(range(1, ranks.size)) - set(lines))
                raise UserError(f"processes {missing} did not reach the first one; see their messages") from None
            rank = _admit(line, token)
            if rank is not None:
                lines[rank] = line
    return lines


def _admit(line: socket.socket, token: str) -> int | None:
    """The rank of a process of ours; None, and the door, for anybody else."""
    line.settimeout(WORD_SECONDS)
    try:
        said, rank = json.loads(_read_line(line))
        if said == token:
            _probe(line)
            return int(rank)
    except (OSError, ValueError, TypeError):
        pass  # nothing of ours says this
    line.close()
    return None


def _probe(line: socket.socket) -> None:
    """Notice within seconds a machine that is gone without a word; wait for as long as it takes for one that is not."""
    line.settimeout(None)
    idle = socket.TCP_KEEPALIVE if sys.platform == "darwin" else socket.TCP_KEEPIDLE
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((idle, PROBE_SECONDS), (socket.TCP_KEEPINTVL, PROBE_SECONDS), (socket.TCP_KEEPCNT, PROBES)):
        line.setsockopt(socket.IPPROTO_TCP, option, value)


def _say(line: socket.socket, code: int, said: str) -> None:
    with suppress(OSError):  # gone itself
        line.sendall(json.dumps([code, said]).encode() + b"\n")


def _hear(line: socket.socket) -> tuple[int, str] | None:
    """How the other end ended; None where it broke off."""
    try:
        code, said = json.loads(_read_line(line))
    except (OSError, ValueError):
        return None
    return code, said


def _read_line(line: socket.socket) -> bytes:
    with line.makefile("rb") as file:
        return file.readline(LONGEST_LINE)


def _first_host() -> list[str]:
    """Where the launcher says that the first process is; what it says it by depends on the back end."""
    said = [
        os.environ[name].partition(":")[0] for name in ("MLX_JACCL_COORDINATOR", "NCCL_HOST_IP") if name in os.environ
    ]
    hosts = Path(os.environ.get("MLX_HOSTFILE", ""))
    if hosts.is_file():
        said += [place.rpartition(":")[0] for place in json.loads(hosts.read_text(encoding="utf-8"))[0]]
    return said
