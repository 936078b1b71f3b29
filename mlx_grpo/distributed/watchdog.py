"""End the processes of one run together.

A collective does not: the first one after a process died raises, the next never returns, and a process that is
decoding enters none for a minute. So each process keeps a connection to the first. When a connection breaks, or
brings the reason why a process failed, the other processes end too.
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

MESSAGE_SECONDS = 3
"""For a message to come: the reason why a collective failed, or a new connection's token."""

JOIN_SECONDS = 60
PROBE_SECONDS = 2
PROBES = 3
LONGEST_MESSAGE = 2**16
SHOW_CURSOR = "\x1b[?25h"


class PeerLost(Stopped):
    """Another process of the run has ended badly, and so this one ends."""


@contextmanager
def watchdog(ranks: Ranks, advice: str = "") -> Iterator[None]:
    """End this process's block when another process's ends badly: raise PeerLost, or exit where it can't be raised.

    Every process enters together. `advice` tells the user how to resume after a process died. Raises UserError where
    a process can't reach the first.
    """
    if ranks.size == 1:
        yield
        return
    peers = _Watchdog(ranks, advice)
    try:
        yield
    except Interrupted:  # every process is
        peers.close(0, "")
        raise
    except BaseException as error:
        # A collective raises RuntimeError when its peer is gone; the reason may still be on its way.
        if isinstance(error, RuntimeError) and peers.failed.wait(MESSAGE_SECONDS) and peers.failure is not None:
            peers.close(1, str(peers.failure))
            raise peers.failure from None
        code, problems = (2, error.problems) if isinstance(error, UserError) else (1, [repr(error)])
        peers.close(code, f"process {ranks.rank} of {ranks.size} failed: {'; '.join(problems)}")
        raise
    peers.close(0, "")


class _Watchdog:
    """The first process's connections to all others, or another process's connection to the first."""

    def __init__(self, ranks: Ranks, advice: str):
        self.ranks, self.advice = ranks, advice
        self.failure: PeerLost | None = None
        self.failed = threading.Event()
        """Set once `failure` is."""
        self.closed = threading.Event()
        """Set when the block ends by itself: nothing need be ended any more."""
        self.connections = _connect(ranks)
        for rank, connection in self.connections.items():
            threading.Thread(target=self._watch, args=(rank, connection), daemon=True).start()

    def close(self, code: int, reason: str) -> None:
        """Send the others how this process ends (code 0: well), and close the connections."""
        self.closed.set()
        for connection in self.connections.values():
            _send(connection, code, reason)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)  # closing alone would wait for the thread that reads it
            connection.close()

    def _watch(self, rank: int, connection: socket.socket) -> None:
        """Wait for another process's end; if it is a bad one, pass it on and end this process."""
        died = "\n".join(filter(None, (f"process {rank} of {self.ranks.size} died", self.advice)))
        code, reason = _receive(connection) or (1, died)
        if not code or self.closed.is_set():
            return
        for other in self.connections.values():
            _send(other, code, reason)
        # Two processes may fail at once; either is the reason.
        self.failure = PeerLost(code, reason)
        self.failed.set()
        if not self.closed.wait(GRACE_SECONDS):
            print(f"{SHOW_CURSOR if sys.stderr.isatty() else ''}{self.failure}", file=sys.stderr, flush=True)
            os._exit(code)  # the main thread may be in a collective that never returns


def _connect(ranks: Ranks) -> dict[int, socket.socket]:
    """Return connections by rank: to each other process for the first one, to the first for any other."""
    try:
        one_machine = ranks.on_this_machine() == ranks.size  # then no other machine need be able to connect
        return _accept_others(ranks, one_machine) if ranks.leads else {0: _connect_to_first(ranks)}
    except (OSError, RuntimeError) as error:
        raise UserError(f"process {ranks.rank} of {ranks.size} could not join the others: {error}") from None


def _connect_to_first(ranks: Ranks) -> socket.socket:
    """Connect to the first process at one of its addresses, and send it the token and this rank."""
    addresses, port, token = ranks.gather(None)[0]
    for address in addresses:
        with suppress(OSError):
            connection = socket.create_connection((address, port), timeout=GRACE_SECONDS)
            connection.sendall(json.dumps([token, ranks.rank]).encode() + b"\n")
            _enable_keepalive(connection)
            return connection
    raise UserError(
        f"process {ranks.rank} of {ranks.size} on {socket.gethostname()} can't reach the first one at "
        f"{' or '.join(addresses)}; let Python accept connections in that machine's firewall"
    )


def _accept_others(ranks: Ranks, one_machine: bool) -> dict[int, socket.socket]:
    """Accept a connection from every other process, by rank."""
    with socket.create_server(("127.0.0.1" if one_machine else "", 0)) as server:
        addresses = ["127.0.0.1"] if one_machine else [*_first_host(), socket.gethostname()]
        token = secrets.token_hex(16)
        ranks.gather([addresses, server.getsockname()[1], token])
        connections: dict[int, socket.socket] = {}
        deadline = time.monotonic() + JOIN_SECONDS
        while len(connections) < ranks.size - 1:
            server.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                missing = sorted(set(range(1, ranks.size)) - set(connections))
                raise UserError(f"processes {missing} did not reach the first one; see their messages") from None
            rank = _read_rank(connection, token)
            if rank is not None:
                connections[rank] = connection
    return connections


def _read_rank(connection: socket.socket, token: str) -> int | None:
    """Return the rank of a process that sends the token; otherwise close the connection and return None."""
    connection.settimeout(MESSAGE_SECONDS)
    try:
        received, rank = json.loads(_read_line(connection))
        if received == token:
            _enable_keepalive(connection)
            return int(rank)
    except (OSError, ValueError, TypeError):
        pass  # no process of this run sends this
    connection.close()
    return None


def _enable_keepalive(connection: socket.socket) -> None:
    """Have the system break the connection within seconds of the other machine's loss; reading has no time limit."""
    connection.settimeout(None)
    if sys.platform == "darwin":
        idle = socket.TCP_KEEPALIVE
    else:
        idle = socket.TCP_KEEPIDLE
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, idle, PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


def _send(connection: socket.socket, code: int, reason: str) -> None:
    """Send how a process ended."""
    with suppress(OSError):  # the other end may be gone too
        connection.sendall(json.dumps([code, reason]).encode() + b"\n")


def _receive(connection: socket.socket) -> tuple[int, str] | None:
    """Return the exit code and the reason that the other end sends; None where the connection breaks."""
    try:
        code, reason = json.loads(_read_line(connection))
    except (OSError, ValueError):
        return None
    return code, reason


def _read_line(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as file:
        return file.readline(LONGEST_MESSAGE)


def _first_host() -> list[str]:
    """Return the first process's addresses as the launcher gives them, in variables that depend on the back end."""
    variables = ("MLX_JACCL_COORDINATOR", "NCCL_HOST_IP")
    addresses = [os.environ[name].partition(":")[0] for name in variables if name in os.environ]
    hosts = Path(os.environ.get("MLX_HOSTFILE", ""))
    if hosts.is_file():
        addresses += [address.rpartition(":")[0] for address in json.loads(hosts.read_text(encoding="utf-8"))[0]]
    return addresses
