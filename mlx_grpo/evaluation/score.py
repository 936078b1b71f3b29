"""`mlx-grpo score`: completions from a file, each graded and explained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_grpo.config.schema import DataConfig
from mlx_grpo.data.dataset import context_of, dataset_files, read_rows
from mlx_grpo.data.thinking import strip_thinking
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import Record
from mlx_grpo.runs import CONFIG, EPISODES, Run, find_episodes
from reward import RUBRICS, Rubric
from reward.checks import check_reasons, columns_problem


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
    clauses: list[Record]
    """What the strict rubric reads in the reasons, in order: reason (from 1), text, status, fact, why."""


@dataclass(frozen=True, slots=True)
class Grades:
    """All completions of a file, and the mean marks of each model in it (under "" where the file names none)."""

    rubric: str
    """Its version."""
    means: dict[str, dict[str, float]]
    completions: list[Grade]


def grade_file(file: Path, rubric: str, data: str | None) -> Grades:
    """Grade a JSONL file of completions, or a run's samples.jsonl, episodes.jsonl or eval.json.

    Raises UserError listing every row that can't be graded, by line number.
    """
    grader = RUBRICS[rubric]
    labels = read_labels(file, data, grader)
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
    return Grades(grader.version, means, grades)


def read_labels(file: Path, data: str | None, grader: Rubric) -> dict[str, Record]:
    """Return dataset rows by id: of `data` (as data.train names it), else of the run whose folder holds the file.

    Raises UserError where the run's rows, or the rubric that trained it, have changed since.
    """
    if data is not None:
        settings = DataConfig(train=data)
    elif (file.parent / CONFIG).is_file():
        run = Run(file.parent)
        trained_by_it = run.config.reward.rubric == grader.name
        run.check_inputs("train", "heldout", *(["rubric"] if trained_by_it else []))
        settings = run.config.data
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
    completion = strip_thinking(row["completion"], row.get("prompt_opens_thought", False))
    columns = _gold_columns(row, labels, grader)
    sheet = grader(completion, **columns)
    clauses = _clauses(completion, columns["facts"]) if "facts" in columns else []
    return Grade(str(row.get("prompt_id", row["id"])), model, completion, sheet.as_dict(), sheet.lines()[:-1], clauses)


def _clauses(completion: str, facts: Record) -> list[Record]:
    reasons = enumerate(check_reasons(completion, facts).evidence.reasons, start=1)
    return [
        {"reason": number, "text": clause.text, "status": clause.status, "fact": clause.fact, "why": clause.why}
        for number, clauses in reasons
        for clause in clauses
    ]


def _gold_columns(row: Record, labels: dict[str, Record], grader: Rubric) -> Record:
    """Return the rubric's columns that a row holds, or that the dataset's row holds which its `prompt_id` names."""
    label = labels.get(str(row.get("prompt_id")))
    if label is None or all(column in row for column in grader.columns):
        return {column: row[column] for column in grader.columns if column in row}
    label = label if "context" in label else {**label, "context": context_of(label)}
    return {column: label[column] for column in grader.columns if column in label}


def _problem(row: object, labels: dict[str, Record], grader: Rubric) -> str | None:
    """Return the reason why a row can't be graded, with the remedy; None where it can."""
    if not isinstance(row, dict):
        return f'holds {type(row).__name__}, not an object; write {{"completion": ...}}'
    if not isinstance(row.get("completion"), str):
        return "has no `completion` that is text; add it"
    columns = _gold_columns(row, labels, grader)
    missing = [column for column in grader.columns if column not in columns]
    if missing and "prompt_id" in row and str(row["prompt_id"]) not in labels:
        return f"{row['prompt_id']!r} is in no dataset here; name the one it comes from with --data"
    if missing == ["facts"]:
        return f"has no facts, which {grader.version} confirms reasons against; add them, or --rubric published"
    if missing:
        return f"has no {', '.join(missing)}; add what to grade against, or a `prompt_id` and --data"
    return columns_problem(columns, grader)
