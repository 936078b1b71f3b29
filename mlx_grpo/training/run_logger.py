"""Logging and saving of a run: every step's metrics and completions, checkpoints, warnings, and the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_grpo import runs
from mlx_grpo.data.types import Rollout
from mlx_grpo.distributed.signals import Interrupted, Stop, StopStep
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import append_jsonl, without_nan
from mlx_grpo.models.policy import save_adapter
from mlx_grpo.rewards import Scores, function_labels
from mlx_grpo.tasks.lookup import find_task
from mlx_grpo.training import alarms
from mlx_grpo.training.checkpoint import RunPosition, save_checkpoint
from mlx_grpo.training.metrics import reward_metrics, spread_within_groups, valid_share
from mlx_grpo.training.progress import Reporter
from mlx_grpo.training.state import TrainState
from mlx_grpo.training.trackers import Trackers

SKIPPED_LIMIT = 5
"""Updates skipped in a row before a run stops: one may be chance, five are divergence."""

INSPECTION = "not_finite.jsonl"


@dataclass(slots=True)
class RunLogger:
    """Writes a run in progress to its folder, and reports it to the user."""

    run: runs.Run
    state: TrainState
    reporter: Reporter
    stop: Stop
    position: RunPosition
    history: list[dict[str, Any]]
    """The metrics of all steps so far, including those before the run was resumed."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings that changed when the run was resumed; the metrics of its next step have them."""
    trackers: Trackers = field(init=False)

    def __post_init__(self) -> None:
        self.trackers = Trackers(self.reporter.note)

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Keep the trackers of `report_to` open within the block."""
        if self.state.ranks.leads:
            self.trackers.start(self.run, self.state.config, self._steps_before_phase() + self.position.steps)
        try:
            yield
        finally:
            self.trackers.on_end()

    def _steps_before_phase(self) -> int:
        return 0 if self.position.phase == "warm_start" else self.state.config.warm_start.steps_to_train

    def begin(self, name: str, steps: int) -> None:
        """Report that a phase of `steps` steps starts or is resumed."""
        self.reporter.begin(name, steps)
        if self.position.steps:
            self.reporter.note(f"  continuing after step {self.position.steps}")

    def decoding(self, rows: int) -> None:
        """Report a decoded position; raise StopStep after a signal, unless other processes would wait for this one."""
        self.reporter.decoding(rows)
        if self.state.ranks.size == 1 and self.stop.signal is not None:
            raise StopStep(self.stop.signal)

    def first_rollouts(self, rollouts: Sequence[Rollout], scores: Scores) -> None:
        """Report before the first update what GRPO has to work with; do nothing in later steps."""
        config = self.state.config
        if self.position.steps or not self.state.ranks.leads:
            return
        metrics = reward_metrics(rollouts, scores, config)
        spread = spread_within_groups(scores, config.num_generations)
        for line in alarms.first_step(metrics, spread, valid_share(config, rollouts), config.max_completion_length):
            self.reporter.note(line)

    def end_step(
        self,
        metrics: dict[str, Any],
        samples: Sequence[dict[str, Any]],
        batch_records: Sequence[dict[str, Any]],
        last: bool,
    ) -> None:
        """Record a finished step; write a checkpoint every `save_steps` steps and after the last.

        Raises Interrupted if a signal asked any process to stop. Raises UserError, with `batch_records` in a file,
        after `SKIPPED_LIMIT` skipped updates in a row.
        """
        position, state = self.position, self.state
        state.ranks.confirm(position.steps)  # before anything of the step is kept
        position.steps += 1
        position.skipped = position.skipped + 1 if metrics["update_skipped"] else 0
        if state.ranks.leads:
            with explain_write_errors(self.run.folder):
                append_jsonl(self.run.samples_file, *samples)
        self.record(metrics | self.changes)
        self.changes = {}
        if last or position.steps % state.config.save_steps == 0:
            self.save()
        self.reporter.step(metrics)
        for warning in self._warnings(metrics["step"]):
            self.reporter.note(warning)
        if position.skipped >= SKIPPED_LIMIT:
            self._stop_diverged(batch_records)
        signals = [signal for signal in state.ranks.gather(self.stop.signal) if signal]
        if signals:
            self.interrupt(signals[0])

    def _warnings(self, step: int) -> list[str]:
        config = self.state.config
        task = find_task(config)
        return alarms.raised_at(step, self.history, task.alarms if task else None, function_labels(config.reward))

    def record(self, metrics: dict[str, Any]) -> None:
        """Append a record to the run's metrics, and report it to the trackers."""
        if self.state.ranks.leads:
            with explain_write_errors(self.run.folder):
                append_jsonl(self.run.metrics_file, metrics)
            self.trackers.on_step(metrics, self._steps_before_phase() + metrics["step"] + 1)
        self.history.append(without_nan(metrics))

    def save(self) -> None:
        """Write a checkpoint; in GRPO without evaluations, save the adapter too."""
        if not self.state.ranks.leads:
            return
        if self.position.phase == "grpo" and self.position.steps and not self.state.config.eval_steps:
            self.save_adapter(runs.ADAPTER)
        save_checkpoint(self.run, self.state, self.position)

    def save_adapter(self, name: str) -> None:
        """Write the current parameters as one of the run's adapters."""
        if self.state.ranks.leads:
            with explain_write_errors(self.run.folder / name):
                save_adapter(self.state.policy, self.state.config, self.run.folder / name)

    def interrupt(self, signal: int) -> None:
        """Write a checkpoint and raise Interrupted with the command that resumes the run."""
        self.save()
        raise Interrupted(signal, self.resume_advice())

    def resume_advice(self) -> str:
        """Return the step after which the run stopped, and the command that resumes it."""
        return (
            f"stopped after step {self.position.steps} of {self.position.phase.replace('_', ' ')}, all saved; "
            f"continue with: mlx-grpo train {self.run.folder} --resume"
        )

    def _stop_diverged(self, batch_records: Sequence[dict[str, Any]]) -> None:
        """Write the last batch to a file and raise UserError."""
        if self.state.ranks.leads:
            (self.run.folder / INSPECTION).unlink(missing_ok=True)
            append_jsonl(self.run.folder / INSPECTION, *batch_records)
        raise UserError(
            f"step {self.position.steps}: loss or gradient was not finite {SKIPPED_LIMIT} times in a row; "
            f"the last batch is in {self.run.folder / INSPECTION}; lower learning_rate, or use dtype float32"
        )


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Raise UserError where a file or folder of a run can't be written; its last checkpoint is kept."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # MLX raises RuntimeError where a file can't be written
        raise UserError(f"{path}: can't be written ({error}); free space there, then continue with --resume") from None
