"""The tasks that come with the package, by name; a task of the user's own needs no entry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlx_grpo.tasks.base import Task
from mlx_grpo.tasks.countdown.task import Countdown
from mlx_grpo.tasks.shortlist.task import Shortlist

if TYPE_CHECKING:  # tasks know nothing of the engine, whose configuration brings MLX with it
    from mlx_grpo.config.schema import Config

TASKS: dict[str, Task] = {"shortlist": Shortlist(), "countdown": Countdown()}
TASK_OF_RUBRIC: dict[str, Task] = {rubric: task for task in TASKS.values() for rubric in task.rubrics}
BUNDLED: dict[str, tuple[Path, Path]] = {name: files for task in TASKS.values() for name, files in task.bundled.items()}
"""The files of training and held-out rows, by the name that `data.train` has for them."""


def find_task(config: Config) -> Task | None:
    """Return the task whose rubric a config names, or whose bundled rows; None for a task of the user's own."""
    if config.reward.rubric is not None:
        return TASK_OF_RUBRIC[config.reward.rubric]
    names = {config.data.train, config.data.heldout or config.data.train}
    return next((task for task in TASKS.values() if names <= task.bundled.keys()), None)
