"""Progress for the user while a run trains: bars on a terminal, plain lines in a log file."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Reporter(Protocol):
    """Receives a run's phases, steps, decoded positions and messages."""

    def begin(self, phase: str, steps: int) -> None:
        """Start a phase of `steps` steps."""

    def decoding(self, rows: int) -> None:
        """Count one more decoded position; `rows` completions are unfinished."""

    def step(self, metrics: dict[str, float]) -> None:
        """Show a finished step."""

    def note(self, text: str) -> None:
        """Print a line that stays."""


class SilentReporter:
    """Reports nothing; for the processes of a run that are not the first."""

    def begin(self, phase: str, steps: int) -> None:
        """Report nothing."""

    def decoding(self, rows: int) -> None:
        """Report nothing."""

    def step(self, metrics: dict[str, float]) -> None:
        """Report nothing."""

    def note(self, text: str) -> None:
        """Report nothing."""


class Bars:
    """Progress bars on a terminal while a `with` block lasts."""

    def __init__(self, console: Console):
        # Without a terminal rich would write every state of a bar into the log, so there only lines are printed.
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


class ConsoleReporter(Bars):
    """Reports to a console: a bar for the phase and one line every `logging_steps` steps."""

    def __init__(self, console: Console, logging_steps: int = 1):
        super().__init__(console)
        self.console = console
        self.logging_steps = logging_steps
        self.phase = ""
        self.steps = 0
        self.positions = 0
        self.task: TaskID | None = None

    def begin(self, phase: str, steps: int) -> None:
        """Replace the bar by one for this phase, and print a line."""
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.phase, self.steps, self.positions = phase, steps, 0
        self.task = self.progress.add_task(phase, total=steps, detail="")
        self.note(f"{phase}: {steps} steps")

    def decoding(self, rows: int) -> None:
        """Show the decoded position in the bar."""
        self.positions += 1
        self._update(detail=f"decoding token {self.positions}, {rows} rows")

    def step(self, metrics: dict[str, float]) -> None:
        """Advance the bar, and print a line every `logging_steps` steps and for the last."""
        self.positions = 0
        number = int(metrics["step"]) + 1
        self._update(completed=number, detail="")
        if number % self.logging_steps == 0 or number == self.steps:
            self.note(step_line(number, self.steps, metrics))

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _update(self, **fields: Any) -> None:
        if self.task is not None:
            self.progress.update(self.task, **fields)


class CountReporter(Bars):
    """Reports how many of something are done: a bar on a terminal, in a log a line for each tenth."""

    def __init__(self, console: Console, what: str):
        super().__init__(console)
        self.what = what
        self.task = self.progress.add_task(f"{what}: loading", total=None, detail="")
        self.tenths = 0

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        self.progress.update(self.task, description=self.what, completed=done, total=total)
        tenths = 10 * done // total
        if self.progress.disable and tenths > self.tenths:
            self.progress.console.print(f"{self.what}: {done} of {total}", highlight=False, markup=False)
        self.tenths = tenths


def step_line(number: int, steps: int, metrics: dict[str, float]) -> str:
    """Return a step in at most 80 columns: reward, KL, length, speed and memory for GRPO, loss for the warm start."""
    place = f"{number:>{len(str(steps))}}/{steps}"
    if metrics.get("phase") == "warm_start":
        return f"  {place}  loss {metrics['loss']:.3f}  {metrics['step_time']:.1f} s"
    speed = metrics["step_completion_tokens"] / metrics["step_time"]
    heldout = f"  held-out {metrics['eval/reward']:.3f}" if "eval/reward" in metrics else ""
    return (
        f"  {place}  reward {metrics['reward']:.3f}  kl {metrics['kl']:.4f}  "
        f"{metrics['completions/mean_length']:.0f} tok  {speed:.0f} tok/s  "
        f"{metrics['peak_memory_gb']:.1f} GB  {metrics['step_time']:.1f} s{heldout}"
    )
