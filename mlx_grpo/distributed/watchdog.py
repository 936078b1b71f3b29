"""End the processes of one run together.

A collective does not: the first one after a process died raises, the next never returns, and a process that is
decoding enters none for a minute. So each process keeps a connection to the first. When a connection breaks, or
brings the reason why a process failed, the other processes end too.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.distributed.signals import Interrupted
from mlx_grpo.errors import Stopped, UserError

GRACE_SECONDS = 10
"""For a process to leave by itself, as it does in a collective, before it is made to."""

MESSAGE_SECONDS = 3
"""For a message to come: the reason why a collective failed, or a connection that was made already."""

PROBE_SECONDS = 2
PROBES = 3
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
    code, reason = 0, ""
    try:
        yield
    except Interrupted:  # every process is
        raise
    except BaseException as error:
        # A collective raises RuntimeError when its peer is gone; the reason may still be on its way.
        if isinstance(error, RuntimeError) and peers.failed.wait(MESSAGE_SECONDS) and peers.failure is not None:
            code, reason = 1, str(peers.failure)
            raise peers.failure from None
        code, problems = (2, error.problems) if isinstance(error, UserError) else (1, [repr(error)])
        reason = f"process {ranks.rank} of {ranks.size} failed: {'; '.join(problems)}"
        raise
    finally:
        peers.closed.set()
        peers.send(code, reason)


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

    def send(self, code: int, reason: str) -> None:
        """Send the others how a process ended (code 0: well); the last message of this one."""
        for connection in self.connections.values():
            with suppress(OSError):  # the other end may be gone too
                connection.sendall(json.dumps([code, reason]).encode())
                connection.shutdown(socket.SHUT_WR)  # the message is read up to here

    def _watch(self, rank: int, connection: socket.socket) -> None:
        """Wait for another process's end; if it is a bad one, pass it on and end this process."""
        try:
            code, reason = json.load(connection.makefile("rb"))
        except (OSError, ValueError):  # the connection broke
            code, reason = 1, "\n".join(filter(None, (f"process {rank} of {self.ranks.size} died", self.advice)))
        if not code or self.closed.is_set():
            return
        self.send(code, reason)
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
        connections = _accept_others(ranks, one_machine) if ranks.leads else {0: _connect_to_first(ranks)}
    except (OSError, RuntimeError) as error:
        raise UserError(f"process {ranks.rank} of {ranks.size} could not join the others: {error}") from None
    for connection in connections.values():
        _enable_keepalive(connection)
    return connections


def _connect_to_first(ranks: Ranks) -> socket.socket:
    """Connect to the first process at one of its addresses, and tell it the name of this end."""
    addresses, port = ranks.gather(None)[0]
    connection = None
    for address in addresses:
        with suppress(OSError):
            connection = socket.create_connection((address, port), timeout=GRACE_SECONDS)
            break
    ranks.gather(connection and connection.getsockname()[:2])
    if connection is None:
        raise UserError(
            f"process {ranks.rank} of {ranks.size} on {socket.gethostname()} can't reach the first one at "
            f"{' or '.join(addresses)}; let Python accept connections in that machine's firewall"
        )
    return connection


def _accept_others(ranks: Ranks, one_machine: bool) -> dict[int, socket.socket]:
    """Accept a connection from every other process, by rank; close those of anyone else."""
    with socket.create_server(("127.0.0.1" if one_machine else "", 0)) as server:
        addresses = ["127.0.0.1"] if one_machine else [*_first_host(), socket.gethostname()]
        ranks.gather([addresses, server.getsockname()[1]])
        names = ranks.gather(None)  # the address and port of each other process's end, None where it has none
        missing = [rank for rank in range(1, ranks.size) if names[rank] is None]
        if missing:
            raise UserError(f"processes {missing} did not reach the first one; see their messages")
        server.settimeout(MESSAGE_SECONDS)  # all of them are connected already
        connections: dict[int, socket.socket] = {}
        while len(connections) < ranks.size - 1:
            connection, name = server.accept()
            if [*name[:2]] in names:
                connections[names.index([*name[:2]])] = connection
            else:
                connection.close()
    return connections


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


def _first_host() -> list[str]:
    """Return the first process's addresses as the launcher gives them, in variables that depend on the back end."""
    variables = ("MLX_JACCL_COORDINATOR", "NCCL_HOST_IP")
    addresses = [os.environ[name].partition(":")[0] for name in variables if name in os.environ]
    hosts = Path(os.environ.get("MLX_HOSTFILE", ""))
    if hosts.is_file():
        addresses += [address.rpartition(":")[0] for address in json.loads(hosts.read_text(encoding="utf-8"))[0]]
    return addresses
