"""The seam between the engine and a task: all that crosses between them.

The engine trains, evaluates and reports. A task brings rows, the rules that grade completions, and what makes sense of
the grades. It works on texts and the columns of rows, and knows nothing of models, tokens or run folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Row = Mapping[str, Any]
"""A row of a split: `prompt` (text or chat messages), and columns of the task's own."""

Grader = Callable[..., list[dict[str, float]]]
"""Called as `grader(completions, **columns)`: returns each completion's components, and its reward as `total`."""

Figures = Mapping[str, float | None]
"""The figures of one completion by name, None where one does not apply. The engine knows four of them.

correct: 1 or 0. Its mean is the accuracy, which an alarm compares with the reward.
score, fit: the completion's own number and the right one, from 0 to 1. They make figures of order, and two pictures.
positive: 1 or 0, which of two classes is right. It makes balanced accuracy and ROC AUC.
"""

LABELS = ("positive", "fit")
"""The figures that say what is right; they have no mean of their own, and nor has a score that they judge."""

Alarm = tuple[int, str]
"""The step's index and one line."""


def averaged(names: Iterable[str]) -> list[str]:
    """Return those of the figures that have a mean of their own."""
    every = list(names)
    compared = (*LABELS, "score") if any(label in every for label in LABELS) else ()
    return [name for name in every if name not in compared]


class ShownRow(NamedTuple):
    """A row as the report shows it."""

    label: str | None
    """The right verdict in a few words."""
    parts: list[tuple[str, str]]
    """What a completion is about, in parts with headings; the engine shows the whole prompt where there are none."""


class Remark(NamedTuple):
    """A part of a completion, and what is wrong with it."""

    pieces: list[tuple[str, str]]
    """The text in pieces, each with its mark: "confirmed", "refuted", "unread", or "" for none."""
    faults: list[str]


class Shown(NamedTuple):
    """A completion as the report shows it, beside its text."""

    verdict: str | None
    """What it says in a word; None where it says nothing that can be right or wrong."""
    score: float | None
    """Its own number, where the task asks for one."""
    remarks: list[Remark] | None
    """None where the text alone is shown."""


class RewardSettings(Protocol):
    """What a task reads of the configuration: its section `reward`."""

    @property
    def rubric(self) -> str | None:
        """One of the task's names for its rules."""
        ...

    @property
    def weights(self) -> Mapping[str, float]:
        """The weights to change, by component."""
        ...

    @property
    def limits(self) -> Mapping[str, float]:
        """The limits to change, by name."""
        ...


class Task(Protocol):
    """A task that comes with the package; what has a default is left out by a task that has no use for it."""

    rubrics: Mapping[str, str]
    """The names that `reward.rubric` may have, each with the version of its rules."""
    bundled: Mapping[str, tuple[Path, Path]] = {}
    """The names that `data.train` may have, each with its files of training and held-out rows."""
    cluster: str | None = None
    """The column whose equal values tie rows together; such rows are resampled as one."""
    caution: str = ""
    """A sentence for the model card on what a trained model must not be used for."""

    def grader(self, reward: RewardSettings) -> Grader:
        """Return the reward that trains; raise UserError where the configured one can't be made."""
        ...

    def weights(self, reward: RewardSettings) -> Mapping[str, float]:
        """Return the weight of each component in the total."""
        ...

    def problem(self, reward: RewardSettings, columns: Row) -> str | None:
        """Return the reason why a row can't be graded, and after a semicolon a remedy; None where it can."""
        ...

    def judge(self, completions: Sequence[str], /, **columns: Any) -> list[Figures]:
        """Return the figures of each completion, independent of the reward that trains.

        columns: those of the rows, as lists, and `context`.
        """
        ...

    def alarms(self, steps: Sequence[Mapping[str, Any]]) -> Iterator[Alarm]:
        """Yield warnings from the metrics of a run's GRPO steps, in their order."""
        return iter(())

    def prompt_form(self, context: str) -> str | None:
        """Return the name of a prompt's form, which a run records; None where there is only one.

        context: the text that a completion is about, the column of this name or the last message of the prompt.
        """
        return None

    def show_row(self, row: Row, context: str) -> ShownRow:
        """Return a row as the report shows it."""
        return ShownRow(None, [])

    def show(self, completion: str, row: Row, reward: RewardSettings) -> Shown:
        """Return a completion as the report shows it; the row is empty where its dataset is gone."""
        return Shown(None, None, None)
