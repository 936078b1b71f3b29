"""Ctrl-C and SIGTERM: a run stops where it can be resumed."""

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
    """End the current step at once, after a signal; nothing of the step is kept."""

    def __init__(self, number: int):
        super().__init__()
        self.signal = number


class Stop:
    """Holds the first signal that came, if one did."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Store the first signal, and restore the default handlers: a second one ends the process."""
        self.signal = number
        for caught in SIGNALS:
            signal.signal(caught, signal.SIG_DFL)


@contextmanager
def catch_signals() -> Iterator[Stop]:
    """Store Ctrl-C and SIGTERM instead of ending the process. In any but the main thread, no signal is ever stored."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {caught: signal.signal(caught, stop.receive) for caught in SIGNALS}
    try:
        yield stop
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)
