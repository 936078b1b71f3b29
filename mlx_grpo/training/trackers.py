"""Trackers: a run's metrics in trackio, wandb or TensorBoard, through their own libraries."""

from __future__ import annotations

import io
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any, Literal, Protocol, cast

from mlx_grpo.config.schema import Config
from mlx_grpo.errors import UserError, short_repr
from mlx_grpo.runs import Run

PROJECT = "mlx-grpo"
WANDB_MODES = ("offline", "online", "disabled")
NOT_METRICS = ("step", "phase")
"""Keys of a record in metrics.jsonl that place it; a tracker has the number of steps in their stead."""


class Tracker(Protocol):
    """Receives the metrics of a run; only the first of its processes reports."""

    command: str
    """Shows the run, or uploads it."""

    def on_step(self, metrics: Mapping[str, float], step: int) -> None:
        """Report what was measured after `step` optimizer steps, those of the warm start included."""

    def on_end(self) -> None:
        """Write what is left, and close."""


class Tensorboard:
    """Event files in RUN/tensorboard; a resumed run replaces what was written after its checkpoint."""

    def __init__(self, run: Run, config: Config, start: int):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.make_event, self.make_summary = Event, Summary
        self.writer = EventFileWriter(str(run.folder / "tensorboard"))
        if start:
            self._add(step=start + 1, session_log=SessionLog(status=SessionLog.START))
        self.command = f"tensorboard --logdir {run.folder / 'tensorboard'}"

    def on_step(self, metrics: Mapping[str, float], step: int) -> None:
        """Add an event with a scalar for each metric."""
        values = [self.make_summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(step=step, summary=self.make_summary(value=values))

    def on_end(self) -> None:
        """Flush and close the event file."""
        self.writer.close()

    def _add(self, **content: Any) -> None:
        self.writer.add_event(self.make_event(wall_time=time.time(), **content))


class Wandb:
    """A run of Weights & Biases in RUN/wandb, offline unless WANDB_MODE says otherwise; its id is the run's name."""

    def __init__(self, run: Run, config: Config, start: int):
        import wandb

        mode = cast(Literal["online", "offline", "disabled"], wandb_mode())
        # Neither the command line nor the repository's address is sent: both may hold a secret.
        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True, init_timeout=30
        )
        wandb.setup(settings)  # silent before the login, which would ask for a key on a terminal otherwise
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=re.sub(r"[^\w.-]", "-", run.name),
            name=run.name,
            dir=str(run.folder),
            config=config.model_dump(),
            mode=mode,
            resume="allow",
            settings=settings,
        )
        local = f"wandb sync {run.folder / 'wandb'}/offline-run-*"
        self.command = {"offline": local, "online": self.run.url, "disabled": "switched off by WANDB_MODE"}[mode]

    def on_step(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics."""
        self.run.log(dict(metrics), step=step)

    def on_end(self) -> None:
        """Finish the run."""
        self.run.finish()


class Trackio:
    """A run of trackio on this machine, in the folder that `trackio show` reads."""

    def __init__(self, run: Run, config: Config, start: int):
        import trackio

        self.close = trackio.finish
        self.run = trackio.init(
            project=PROJECT,
            name=run.name,
            config=config.model_dump(),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.command = f"trackio show --project {PROJECT}"

    def on_step(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics."""
        self.run.log(dict(metrics), step=step)

    def on_end(self) -> None:
        """Finish the run."""
        self.close()


TRACKERS: dict[str, Callable[[Run, Config, int], Tracker]] = {
    "trackio": Trackio,
    "wandb": Wandb,
    "tensorboard": Tensorboard,
}


def check_trackers(config: Config) -> None:
    """Raise UserError where the library of a tracker is not installed, or WANDB_MODE is none that wandb has."""
    missing = [name for name in config.report_to if not is_installed(name)]
    if missing:
        extras = ",".join(missing)
        raise UserError(
            f"report_to: {', '.join(missing)}: not installed; pip install 'mlx-grpo[{extras}]', or set report_to=none"
        )
    if "wandb" in config.report_to and wandb_mode() not in WANDB_MODES:
        raise UserError(f"WANDB_MODE: {short_repr(wandb_mode())} is not accepted; set it to {', '.join(WANDB_MODES)}")


def is_installed(name: str) -> bool:
    """Return True if a package can be imported; a folder of its name, such as wandb's own ./wandb, is none."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def wandb_mode() -> str:
    """Return WANDB_MODE, offline where it is not set or empty."""
    return os.environ.get("WANDB_MODE") or "offline"


class Trackers:
    """A run's trackers as one: a tracker that fails is reported once and left out from then on."""

    def __init__(self, note: Callable[[str], None]):
        self.note = note
        self.open: dict[str, Tracker] = {}

    def start(self, run: Run, config: Config, start: int) -> None:
        """Open the trackers of `report_to` and name the command that shows each; `start` steps were taken before."""
        for name in config.report_to:
            with self._unless_it_fails(name):
                self.open[name] = TRACKERS[name](run, config, start)
            if name in self.open:
                self.note(f"{name}: {self.open[name].command}")

    def on_step(self, metrics: Mapping[str, Any], step: int) -> None:
        """Report the finite numbers of a record of metrics.jsonl, by their names there."""
        numbers = {
            name: float(value)
            for name, value in metrics.items()
            if name not in NOT_METRICS and isinstance(value, int | float) and math.isfinite(value)
        }
        for name, tracker in list(self.open.items()):
            with self._unless_it_fails(name):
                tracker.on_step(numbers, step)

    def on_end(self) -> None:
        """Close all trackers."""
        for name, tracker in list(self.open.items()):
            with self._unless_it_fails(name):
                tracker.on_end()

    @contextmanager
    def _unless_it_fails(self, name: str) -> Iterator[None]:
        try:
            with redirect_stdout(io.StringIO()):  # trackio prints there, where `train --json` prints its result
                yield
        except Exception as error:  # these libraries raise all kinds, and none may end a run
            self.open.pop(name, None)
            reason = f"{type(error).__name__}: {short_repr(str(error))}"
            self.note(f"warning: {name} failed ({reason}); the run continues without it, metrics.jsonl has all steps")
