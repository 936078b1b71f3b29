"""What a run writes down as it goes: every step's metrics and completions, checkpoints, and why it stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpo import runs
from mlx_grpo.data.jsonl import append_jsonl, without_nan
from mlx_grpo.distributed.signals import Interrupted, Stop, StopStep
from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import save_adapter
from mlx_grpo.training import alarms
from mlx_grpo.training.checkpoint import RunPosition, save_checkpoint
from mlx_grpo.training.progress import Reporter
from mlx_grpo.training.state import TrainState

SKIPPED_LIMIT = 5
"""Updates skipped in a row before a run gives up: one may be a freak, five are divergence."""

INSPECTION = "not_finite.jsonl"


@dataclass(slots=True)
class RunLogger:
    """A run in progress, on disk and before the user's eyes."""

    run: runs.Run
    state: TrainState
    reporter: Reporter
    stop: Stop
    position: RunPosition
    history: list[dict[str, Any]]
    """The metrics of the steps so far, those before a resumption included."""

    def begin(self, name: str, steps: int) -> None:
        """A phase of `steps` steps starts, or goes on."""
        self.reporter.begin(name, steps)
        if self.position.steps:
            self.reporter.note(f"  going on after step {self.position.steps}")

    def decoding(self, rows: int) -> None:
        """A token was decoded; the moment to leave the step, unless other processes would wait for this one."""
        self.reporter.decoding(rows)
        if self.state.ranks.size == 1 and self.stop.signal is not None:
            raise StopStep

    def end_step(
        self,
        metrics: dict[str, Any],
        samples: Sequence[dict[str, Any]],
        rows: Sequence[dict[str, Any]],
        last: bool,
    ) -> None:
        """Record a finished step; write a checkpoint where one is due.

        Raises Interrupted if the run was asked to stop, and UserError, with the batch's `rows` in a
        file, once `SKIPPED_LIMIT` updates in a row could not be taken.
        """
        position, state = self.position, self.state
        state.ranks.confirm(position.steps)  # before anything of the step is kept
        position.steps += 1
        position.skipped = position.skipped + 1 if metrics["update_skipped"] else 0
        if state.ranks.leads:
            with saved(self.run.folder):
                append_jsonl(self.run.samples_file, *samples)
        self.record(metrics)
        if last or position.steps % state.config.save_steps == 0:
            self.save()
        self.reporter.step(metrics)
        for warning in alarms.raised_at(metrics["step"], self.history):
            self.reporter.note(warning)
        if position.skipped >= SKIPPED_LIMIT:
            self._give_up(rows)
        signals = [signal for signal in state.ranks.gather(self.stop.signal) if signal]
        if signals:
            self.leave(signals[0])

    def record(self, metrics: dict[str, Any]) -> None:
        """Add to the run's metrics."""
        if self.state.ranks.leads:
            with saved(self.run.folder):
                append_jsonl(self.run.metrics_file, metrics)
        self.history.append(without_nan(metrics))

    def save(self) -> None:
        """Write a checkpoint of where the run is."""
        if not self.state.ranks.leads:
            return
        if self.position.phase == "grpo" and self.position.steps and not self.state.config.eval_steps:
            self.save_adapter(runs.ADAPTER)
        save_checkpoint(self.run, self.state, self.position)

    def save_adapter(self, name: str) -> None:
        """Write what is trained so far as one of the run's adapters."""
        if self.state.ranks.leads:
            with saved(self.run.folder / name):
                save_adapter(self.state.policy, self.state.config, self.run.folder / name)

    def leave(self, signal: int) -> None:
        """Stop here, to be gone on from: raises Interrupted once the checkpoint is written."""
        self.save()
        raise Interrupted(signal, self.how_to_go_on())

    def how_to_go_on(self) -> str:
        """Where a run that is saved has stopped, in words, and the command that takes the rest."""
        return (
            f"stopped after step {self.position.steps} of {self.position.phase.replace('_', ' ')}, all saved; "
            f"go on with: mlx-grpo train {self.run.folder} --resume"
        )

    def _give_up(self, rows: Sequence[dict[str, Any]]) -> None:
        if self.state.ranks.leads:
            (self.run.folder / INSPECTION).unlink(missing_ok=True)
            append_jsonl(self.run.folder / INSPECTION, *rows)
        raise UserError(
            f"step {self.position.steps}: loss or gradient was not finite {SKIPPED_LIMIT} times in a row; "
            f"the last batch is in {self.run.folder / INSPECTION}; lower learning_rate, or use dtype float32"
        )


@contextmanager
def saved(what: Path) -> Iterator[None]:
    """Tell in words where something of a run can't be written; its last checkpoint stands."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # MLX raises RuntimeError where a file can't be written
        raise UserError(f"{what}: can't be written ({error}); free space there, then go on with --resume") from None
