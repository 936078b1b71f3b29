"""Training in a child process that is resumed from its last checkpoint after the system aborted it.

macOS ends GPU work that keeps the display waiting, and a process that takes too much memory. Neither can be caught in
the process itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from mlx_grpo.config.schema import Config
from mlx_grpo.distributed.launch import LOG_TAIL
from mlx_grpo.distributed.signals import SIGNALS
from mlx_grpo.errors import Stopped
from mlx_grpo.runs import LOCK, Run, changed_keys
from mlx_grpo.training.checkpoint import FOLDER, newest_sound

RESTARTS = 5
"""Restarts in a row without a new checkpoint; the next abort ends the run. Five halvings take 32 rows to 1."""
METAL = (
    "Impacting Interactivity",
    "Insufficient Memory",
    "kIOGPUCommandBufferCallbackError",
    "[metal::malloc]",
    "Unable to allocate",
)
"""Parts of the messages with which Metal, or MLX's allocator, ends a process."""
COMMAND = (sys.executable, "-m", "mlx_grpo.cli", "train")
DRAIN_SECONDS = 2
"""For the rest of a child's stderr, which a process of its own may hold open."""


class Abort(NamedTuple):
    """The reason why the system ended a child."""

    cause: str
    too_large: bool
    """True if a smaller micro-batch may keep it from happening again."""


class Attempt(NamedTuple):
    """The command line of one child, and the run that it resumes."""

    config: str
    overrides: tuple[str, ...]
    options: tuple[str, ...]
    run: Run | None

    def words(self) -> list[str]:
        """Return the arguments of `mlx-grpo train`."""
        return [self.config, *self.overrides, *self.options, *(["--resume"] if self.run else [])]


def resuming_attempt(run: Run, config: Config, options: tuple[str, ...]) -> Attempt:
    """Return the attempt that resumes a run with a configuration, by its folder: `latest` may name another run soon."""
    changed = changed_keys(run.config, config)
    overrides = tuple(f"{key}={json.dumps(now)}" for key, (_, now) in changed.items())  # JSON is YAML
    return Attempt(str(run.folder), overrides, options, run)


class Child:
    """A child process whose stderr is passed on and kept, and that gets the signals sent to this one."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.signal: int | None = None
        """The last of Ctrl-C and SIGTERM that came, if one did."""
        self.tail = b""

    def run(self, command: Sequence[str]) -> int:
        """Run a command to its end and return its exit code, negative after a signal."""
        self.tail = b""
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        if self.signal is not None:  # it came just before there was a process to pass it to
            self.process.send_signal(self.signal)
        assert self.process.stderr is not None
        reader = threading.Thread(target=self._pass_on, args=(self.process.stderr,), daemon=True)
        reader.start()
        code = self.process.wait()
        reader.join(DRAIN_SECONDS)
        return code

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on to the child, unless the terminal has sent it to both."""
        self.signal = number
        if self.process and not (number == signal.SIGINT and _in_foreground()):
            self.process.send_signal(number)

    def _pass_on(self, stderr: IO[bytes]) -> None:
        while chunk := os.read(stderr.fileno(), 1 << 16):
            self.tail = (self.tail + chunk)[-LOG_TAIL:]
            with suppress(OSError, ValueError):  # nobody reads it any more: the child works on
                sys.stderr.buffer.write(chunk)
                sys.stderr.buffer.flush()


def supervise(first: Attempt, config: Config, note: Callable[[str], None], command: Sequence[str] = COMMAND) -> int:
    """Train in a child process, resume it after each abort, and return its exit code.

    After an abort by Metal or for memory the next child gets half of `micro_batch_size`. A run without a checkpoint
    yet begins anew. Raises Stopped after too many aborts without a new checkpoint, or where no checkpoint is whole.
    """
    child, attempt, restarts = Child(), first, 0
    rows = config.prompts_per_step * config.num_generations
    size = min(config.micro_batch_size or config.num_generations, rows)
    previous = {caught: signal.signal(caught, child.receive) for caught in SIGNALS}
    try:
        while True:
            before, started = _newest(attempt.run), time.time()
            code = child.run([*command, *attempt.words()])
            abort = find_abort(code, child.tail.decode(errors="replace"))
            if abort is None or child.signal is not None:
                return _exit_code(code)
            assert child.process is not None
            attempt = _resuming(attempt, config, child.process.pid, started)
            now = _newest(attempt.run)
            restarts = restarts + 1 if now == before else 1
            _check_hope(abort, attempt.run, now, restarts, code)
            note(f"supervise: the run was ended by {abort.cause}; {_plan(now, restarts)}")
            if abort.too_large and size > 1:
                note(f"supervise: micro_batch_size {size} -> {size // 2}; bits differ from now on")
                size //= 2
                attempt = attempt._replace(overrides=(*attempt.overrides, f"micro_batch_size={size}"))
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)


def find_abort(code: int, stderr: str) -> Abort | None:
    """Return why the system ended a process, by its exit code and the end of its stderr; None where it did not."""
    metal = next((text for text in METAL if text in stderr), None)
    if metal and code in (-signal.SIGABRT, 1):  # MLX raises where it can, and aborts in Metal's own threads
        return Abort(f"Metal ({metal})", True)
    if code == -signal.SIGKILL:
        return Abort("SIGKILL, most likely for lack of memory", True)
    return Abort("SIGABRT", False) if code == -signal.SIGABRT else None


def find_run(output_dir: Path, pid: int, since: float) -> Run | None:
    """Return the run that a process began after a time, by the process number in its lock; None where it began none."""
    for lock in output_dir.glob(f"*/{LOCK}"):
        if lock.stat().st_mtime > since - 1 and lock.read_text(encoding="utf-8").strip() == str(pid):
            return Run(lock.parent.resolve())
    return None


def _resuming(attempt: Attempt, config: Config, pid: int, started: float) -> Attempt:
    """Return the attempt that resumes the run which the child began; the same one where it began none."""
    run = attempt.run or find_run(Path(config.output_dir), pid, started)
    if run is None or attempt.run is not None:
        return attempt
    return attempt._replace(config=str(run.folder), overrides=(), run=run)


def _newest(run: Run | None) -> str | None:
    return newest_sound(Run(run.folder)) if run else None  # a new object: the child may have changed its config


def _check_hope(abort: Abort, run: Run | None, newest: str | None, restarts: int, code: int) -> None:
    """Raise Stopped where the run should not be resumed without its user."""
    problem = None
    if run and newest is None and any((run.folder / FOLDER).glob("[!.]*")):  # damaged ones: its steps were saved once
        problem = "none of its checkpoints is whole, so it was not begun anew"
    elif restarts > RESTARTS:
        problem = f"{restarts} times without a new checkpoint"
    if problem:
        remedy = f"; lower save_steps, and continue with: mlx-grpo train {run.folder} --resume" if run else ""
        raise Stopped(_exit_code(code), f"supervise: the run was ended by {abort.cause}; {problem}{remedy}")


def _exit_code(code: int) -> int:
    """Return a child's exit code as a shell writes it."""
    return code if code >= 0 else 128 - code


def _plan(newest: str | None, restarts: int) -> str:
    what = f"resuming from {newest}" if newest else "beginning anew, it had no checkpoint yet"
    return f"{what} (restart {restarts} of at most {RESTARTS} without a new checkpoint)"


def _in_foreground() -> bool:
    """Return True if Ctrl-C in this process's terminal reaches its children too."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
