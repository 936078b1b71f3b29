"""`mlx-grpo score`: completions from a file, each graded and explained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_grpo.config.schema import DataConfig
from mlx_grpo.data.dataset import dataset_files, read_rows
from mlx_grpo.errors import UserError
from mlx_grpo.rewards import RUBRIC_COLUMNS, strip_thinking
from mlx_grpo.runs import CONFIG, EPISODES, Run, read_episodes
from reward import RUBRICS, Rubric

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Grade:
    """One completion's marks, and the line for each component that says why."""

    id: str
    model: str | None
    """Whose completion it is, where FILE tells (eval.json does)."""
    completion: str
    marks: dict[str, float]
    """The six components and `total`."""
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Grades:
    """All completions of a file, and the mean marks of each model in it (under "" where FILE names none)."""

    rubric: str
    means: dict[str, dict[str, float]]
    completions: list[Grade]


def grade_file(file: Path, rubric: str, data: str | None) -> Grades:
    """Grade a JSONL file of completions, or a run's samples.jsonl, eval.json or episodes.jsonl.

    Raises UserError listing every row that can't be graded, by line number.
    """
    grader, labels = RUBRICS[rubric], read_labels(file, data)
    if file.suffix == ".json":
        rows = _evaluated(file, labels, grader)
    else:
        by_model = file.name == EPISODES
        rows = [
            (row.get("model") if by_model else None, row)
            for row in read_rows(file, lambda r: _problem(r, labels, grader))
        ]
    grades = [_grade(row, model, labels, grader) for model, row in rows]
    marks = {model: [g.marks for g in grades if g.model == model] for model in dict.fromkeys(g.model for g in grades)}
    means = {
        model or "": {name: float(np.mean([each[name] for each in found])) for name in found[0]}
        for model, found in marks.items()
    }
    return Grades(rubric, means, grades)


def read_labels(file: Path, data: str | None) -> dict[str, Row]:
    """Dataset rows by id: of `data` (as data.train names it), or of the run whose folder holds FILE; none without."""
    if data is not None:
        settings = DataConfig(train=data)
    elif (file.parent / CONFIG).is_file():
        settings = Run(file.parent).config.data
    else:
        return {}
    return {str(row["id"]): row for path in dataset_files(settings) if path is not None for row in read_rows(path)}


def _evaluated(file: Path, labels: dict[str, Row], grader: Rubric) -> list[tuple[str, Row]]:
    """The episodes of an eval.json, each with its model's name."""
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        models = results["models"] if "models" in results else read_episodes(file.with_name(EPISODES))
        rows = [(model, {"id": e["prompt_id"], **e}) for model, episodes in models.items() for e in episodes]
    except OSError as error:
        raise UserError(f"{file}: not readable ({error.strerror}); correct the path") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file}: not an eval.json; write JSON objects, one a line, into a .jsonl file") from None
    problems = [f"{file}, {model}, {row['id']}: {p}" for model, row in rows if (p := _problem(row, labels, grader))]
    if problems:
        raise UserError(*problems)
    return rows


def _grade(row: Row, model: str | None, labels: dict[str, Row], grader: Rubric) -> Grade:
    completion = strip_thinking(row["completion"])
    found = grader(completion, **_gold(row, labels))
    return Grade(str(row.get("prompt_id", row["id"])), model, completion, found.as_dict(), found.lines()[:-1])


def _gold(row: Row, labels: dict[str, Row]) -> Row | None:
    """What a row is graded against: its own columns, or those of the dataset's row that its `prompt_id` names."""
    source = row if all(column in row for column in RUBRIC_COLUMNS) else labels.get(str(row.get("prompt_id")))
    return source and {column: source.get(column) for column in RUBRIC_COLUMNS}


def _problem(row: Any, labels: dict[str, Row], grader: Rubric) -> str | None:
    """Why a row can't be graded, with the remedy."""
    if not isinstance(row, dict):
        return f'holds {type(row).__name__}, not an object; write {{"completion": ...}}'
    if not isinstance(row.get("completion"), str):
        return "has no `completion` that is text; add it"
    gold = _gold(row, labels)
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
