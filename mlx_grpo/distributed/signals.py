"""Ctrl-C and SIGTERM: a run stops where it can be gone on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mlx_grpo.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Stopped):
    """The user or the system asked the run to stop by a signal; its checkpoint is written."""

    def __init__(self, number: int, message: str):
        super().__init__(128 + number, message)


class StopStep(Exception):
    """Leave the step under way, of which nothing is kept."""


class Stop:
    """Which signal came, if one did."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; the second one ends the process as it would without us."""
        self.signal = number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def catch_signals() -> Iterator[Stop]:
    """Have Ctrl-C and SIGTERM noted instead of obeyed at once. Only a process's main thread can: others get none."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {each: signal.signal(each, stop.receive) for each in SIGNALS}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
