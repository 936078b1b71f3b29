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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlx_grpo.errors import Stopped, UserError
from mlx_grpo.interrupts import Interrupted
from mlx_grpo.ranks import Ranks

GRACE_SECONDS = 10
"""For a process to leave by itself, as it does in a collective, before it is made to."""

JOIN_SECONDS = 60
PROBE_SECONDS = 5
PROBES = 3


class PeerLost(Stopped):
    """Another process of the run is gone, and so this one ends."""


@contextmanager
def lifeline(ranks: Ranks) -> Iterator[None]:
    """End this process's block when another process's ends badly: raises PeerLost, or exits where it can't be raised.

    Every process enters together. Raises UserError where one can't reach the first.
    """
    if ranks.size == 1:
        yield
        return
    line = _Lifeline(ranks)
    try:
        yield
    except Interrupted:  # as all of them are
        line.close(0, "")
        raise
    except BaseException as error:
        if isinstance(error, RuntimeError) and line.known.wait(GRACE_SECONDS):  # a collective without its peer
            line.close(1, str(line.lost))
            raise line.lost from None
        code, problems = (2, error.problems) if isinstance(error, UserError) else (1, [repr(error)])
        line.close(code, f"process {ranks.rank} of {ranks.size} failed: {'; '.join(problems)}")
        raise
    line.close(0, "")


class _Lifeline:
    """The first process's lines to all others, or another process's line to the first."""

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
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
            line.close()

    def _watch(self, rank: int, line: socket.socket) -> None:
        code, said = _hear(line) or (1, f"process {rank} of {self.ranks.size} died")
        if not code or self.left.is_set():
            return
        for other in self.lines.values():
            _say(other, code, said)
        # Two may be lost at once; either is the reason.
        self.lost = PeerLost(code, f"{said}\nthe run goes on from its last checkpoint with --resume")
        self.known.set()
        if not self.left.wait(GRACE_SECONDS):
            print(self.lost, file=sys.stderr, flush=True)
            os._exit(code)  # the main thread may be in a collective that never returns


def _lines(ranks: Ranks) -> dict[int, socket.socket]:
    """A connection to each other process, by rank, for the first one; for any other one to the first."""
    names = ranks.gather(socket.gethostname())
    if not ranks.leads:
        places, port, token = ranks.gather(None)[0]
        line = _reach(ranks, places, port)
        line.sendall(json.dumps([token, ranks.rank]).encode() + b"\n")
        return {0: line}
    alone = len(set(names)) == 1  # on one machine nobody else need be able to connect
    with socket.create_server(("127.0.0.1" if alone else "", 0), backlog=ranks.size) as server:
        server.settimeout(JOIN_SECONDS)
        token = secrets.token_hex(16)
        places = ["127.0.0.1"] if alone else [*_first_host(), names[0]]
        ranks.gather([places, server.getsockname()[1], token])
        lines: dict[int, socket.socket] = {}
        while len(lines) < ranks.size - 1:
            rank, line = _accept(server, token, ranks.size)
            lines |= {} if rank is None else {rank: line}
    return lines


def _reach(ranks: Ranks, places: list[str], port: int) -> socket.socket:
    for place in places:
        try:
            line = socket.create_connection((place, port), timeout=GRACE_SECONDS)
        except OSError:
            continue
        _probe(line)
        return line
    raise UserError(
        f"process {ranks.rank} of {ranks.size} on {socket.gethostname()} can't reach the first one at "
        f"{' or '.join(places)}; let Python accept connections in that machine's firewall"
    )


def _accept(server: socket.socket, token: str, size: int) -> tuple[int | None, socket.socket]:
    try:
        line, _ = server.accept()
        line.settimeout(GRACE_SECONDS)
        said = json.loads(_read_line(line))
    except TimeoutError:
        raise UserError(f"not all of {size} processes could reach the first one; see their messages") from None
    except (OSError, ValueError):
        said = None
    if not isinstance(said, list) or len(said) != 2 or said[0] != token:
        line.close()
        return None, line
    _probe(line)
    return int(said[1]), line


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
        return file.readline()


def _first_host() -> list[str]:
    """Where the launcher says that the first process is; what it says it by depends on the back end."""
    said = [
        os.environ[name].partition(":")[0] for name in ("MLX_JACCL_COORDINATOR", "NCCL_HOST_IP") if name in os.environ
    ]
    hosts = Path(os.environ.get("MLX_HOSTFILE", ""))
    if hosts.is_file():
        said += [place.rpartition(":")[0] for place in json.loads(hosts.read_text(encoding="utf-8"))[0]]
    return said
