"""`mlx-grpo score`: completions from a file, each graded and explained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_grpo.config.schema import DataConfig
from mlx_grpo.data.dataset import dataset_files, read_rows
from mlx_grpo.data.jsonl import Record
from mlx_grpo.errors import UserError
from mlx_grpo.rewards import RUBRIC_COLUMNS, strip_thinking
from mlx_grpo.runs import CONFIG, EPISODES, Run, find_episodes
from reward import RUBRICS, Rubric


@dataclass(frozen=True, slots=True)
class Grade:
    """One completion's marks, and for each component a line with the reason."""

    id: str
    model: str | None
    """The model that wrote it; None where the file names none."""
    completion: str
    marks: dict[str, float]
    """The six components and `total`."""
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Grades:
    """All completions of a file, and the mean marks of each model in it (under "" where the file names none)."""

    rubric: str
    means: dict[str, dict[str, float]]
    completions: list[Grade]


def grade_file(file: Path, rubric: str, data: str | None) -> Grades:
    """Grade a JSONL file of completions, or a run's samples.jsonl, episodes.jsonl or eval.json.

    Raises UserError listing every row that can't be graded, by line number.
    """
    grader, labels = RUBRICS[rubric], read_labels(file, data)
    if file.suffix == ".json":
        rows = _episodes_of_eval_json(file, labels, grader)
    else:
        lines = read_rows(file, lambda row: _problem(row, labels, grader))
        rows = [(row.get("model") if file.name == EPISODES else None, row) for row in lines]
    grades = [_grade(row, model, labels, grader) for model, row in rows]
    by_model: dict[str, list[dict[str, float]]] = {}
    for grade in grades:
        by_model.setdefault(grade.model or "", []).append(grade.marks)
    means = {
        model: {name: float(np.mean([each[name] for each in marks])) for name in marks[0]}
        for model, marks in by_model.items()
    }
    return Grades(rubric, means, grades)


def read_labels(file: Path, data: str | None) -> dict[str, Record]:
    """Return dataset rows by id: of `data` (as data.train names it), else of the run whose folder holds the file."""
    if data is not None:
        settings = DataConfig(train=data)
    elif (file.parent / CONFIG).is_file():
        settings = Run(file.parent).config.data
    else:
        return {}
    return {str(row["id"]): row for path in dataset_files(settings) if path is not None for row in read_rows(path)}


def _episodes_of_eval_json(file: Path, labels: dict[str, Record], grader: Rubric) -> list[tuple[str | None, Record]]:
    """Return the episodes of an evaluation, each with its model's name."""
    rows: list[tuple[str | None, Record]] = []
    try:
        for model, episodes in find_episodes(json.loads(file.read_text(encoding="utf-8")), file).items():
            rows += [(model, {"id": episode["prompt_id"], **episode}) for episode in episodes]
    except OSError as error:
        raise UserError(f"{file}: not readable ({error.strerror}); correct the path") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{file}: not an eval.json; write JSON objects, one a line, into a .jsonl file") from None
    if not rows:
        raise UserError(f"{file}: holds figures alone, and no {EPISODES} is beside it; run `mlx-grpo eval` again")
    problems = [f"{file}, {model}, {row['id']}: {p}" for model, row in rows if (p := _problem(row, labels, grader))]
    if problems:
        raise UserError(*problems)
    return rows


def _grade(row: Record, model: str | None, labels: dict[str, Record], grader: Rubric) -> Grade:
    completion = strip_thinking(row["completion"])
    sheet = grader(completion, **(_gold_columns(row, labels) or {}))
    return Grade(str(row.get("prompt_id", row["id"])), model, completion, sheet.as_dict(), sheet.lines()[:-1])


def _gold_columns(row: Record, labels: dict[str, Record]) -> Record | None:
    """Return the columns to grade a row against: its own, or those of the dataset's row that its `prompt_id` names."""
    source = row if all(column in row for column in RUBRIC_COLUMNS) else labels.get(str(row.get("prompt_id")))
    return source and {column: source.get(column) for column in RUBRIC_COLUMNS}


def _problem(row: object, labels: dict[str, Record], grader: Rubric) -> str | None:
    """Return the reason why a row can't be graded, with the remedy; None where it can."""
    if not isinstance(row, dict):
        return f'holds {type(row).__name__}, not an object; write {{"completion": ...}}'
    if not isinstance(row.get("completion"), str):
        return "has no `completion` that is text; add it"
    gold = _gold_columns(row, labels)
    if gold is None and "prompt_id" in row:
        return f"{row['prompt_id']!r} is in no dataset here; name the one it comes from with --data"
    if gold is None:
        missing = [column for column in RUBRIC_COLUMNS if column not in row]
        return f"has no {', '.join(missing)}; add what to grade against, or a `prompt_id` and --data"
    if not isinstance(gold["context"], str):
        return "`context` is not text; give the job and profile that the completion is about"
    try:
        grader("", **gold)
    except ValueError as error:
        return str(error)
    return None
