"""The record of what a run's prompts and rewards come from, beside its configuration: inputs.json.

Rows and rubric may change between versions. A later command compares them with the record, so that an old run is never
read under new rules in silence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import context_of, dataset_files, read_rows, read_text
from mlx_grpo.errors import UserError
from mlx_grpo.tasks.lookup import BUNDLED, TASK_OF_RUBRIC, TASKS


@dataclass(frozen=True, slots=True)
class Inputs:
    """A run's record."""

    instruction: list[dict[str, str]]
    """The chat messages before the last of the first training row, as all rows of one dataset have the same."""
    form: str | None
    """The form of the prompts, where a task of ours has several; else None."""
    rubric: str | None
    """The version of the rubric, such as "strict 2"; None for functions."""
    train: str
    """SHA-256 of the training rows."""
    heldout: str | None
    """SHA-256 of the held-out rows."""
    today: str | None = None
    """The day on which the run began, such as 2026-01-31: the date of a chat template that writes one.

    A run that is resumed, evaluated or ranked with on another day has the prompts that it began with. None in runs of
    older versions, whose prompts have the date of the clock.
    """

    @classmethod
    def of(cls, config: Config, today: str | None = None) -> Self:
        """Make the record of a config; raise UserError where one of its files can't be used."""
        train, heldout = dataset_files(config.data)
        first = read_rows(train)[0]
        prompt = first["prompt"]
        forms = (task.prompt_form(context_of(first)) for task in TASKS.values())
        return cls(
            instruction=[] if isinstance(prompt, str) else prompt[:-1],
            form=next(filter(None, forms), None),
            rubric=rubric_version(config),
            train=_fingerprint(train),
            heldout=None if heldout is None else _fingerprint(heldout),
            today=today,
        )

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the record in a file, None where the run is older than such files."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: not readable ({error}); give the folder of a whole run") from None

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def rubric_version(config: Config) -> str | None:
    """Return the version of the rubric that a config trains by, None for functions."""
    rubric = config.reward.rubric
    return TASK_OF_RUBRIC[rubric].rubrics[rubric] if rubric else None


def changed_inputs(before: Inputs | None, config: Config, names: Sequence[str]) -> list[str]:
    """Describe what is no longer as a run recorded it, among the names "rubric", "train" and "heldout".

    A run without a record is older than strict 2 and the bundled rows of today.
    """
    if before is None:
        old = config.reward.rubric == "strict" or config.data.train in BUNDLED
        return ["it is older than the rubric and the rows of this version"] if old else []
    changed = []
    now = rubric_version(config)
    if "rubric" in names and before.rubric != now:
        changed.append(f"the rubric was {before.rubric} and is {now} now")
    train, heldout = dataset_files(config.data)
    for name, path, fingerprint in (("train", train, before.train), ("heldout", heldout, before.heldout)):
        if name in names and path is not None and _fingerprint(path) != fingerprint:
            changed.append(f"data.{name}: the rows of {path} have changed since it began")
    return changed


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(read_text(path).encode("utf-8", "surrogatepass")).hexdigest()
