"""`mlx-grpo score`: grade completions and say why."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from mlx_grpo.cli.terminal import console, printable
from reward import COMPONENTS

if TYPE_CHECKING:  # it brings MLX with it, which `mlx-grpo --help` does without
    from mlx_grpo.evaluation.score import Grades


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--rubric", type=click.Choice(["strict", "published"]), default="strict", show_default=True)
@click.option("--data", help="Where rows with a prompt_id find their labels; the dataset of FILE's run by default.")
@click.option("--json", "as_json", is_flag=True, help="Print every mark and finding as JSON.")
def score(file: Path, rubric: str, data: str | None, as_json: bool) -> None:
    """Grade completions by a rubric and say why, clause by clause.

    FILE holds JSON objects, one a line, with `completion`, `decision`, `score` and `facts` (`context` for the published
    rubric); or it is a run's samples.jsonl or episodes.jsonl. For an eval.json the episodes.jsonl beside it is taken.

    \b
    mlx-grpo score completions.jsonl
    mlx-grpo score runs/latest/episodes.jsonl --rubric published
    """
    from mlx_grpo.evaluation.score import grade_file

    grades = grade_file(file, rubric, data)
    if as_json:
        click.echo(json_module.dumps(asdict(grades)))
    else:
        print_grades(console, grades)


def print_grades(console: Console, grades: Grades) -> None:
    """Print every completion with a line for each component and each clause of its reasons, and the means."""
    for grade in grades.completions:
        of = f"  {grade.model}" if grade.model else ""
        console.print(
            Text.assemble((printable(grade.id), "bold"), f"{of}  total {grade.marks['total']:.3f}"), soft_wrap=True
        )
        clauses = [f"{clause['status']}: {clause['text']} ({clause['why']})" for clause in grade.clauses]
        for line in [grade.completion, *grade.lines, *clauses]:
            console.print(f"  {printable(' '.join(line.split()))}", highlight=False, markup=False, soft_wrap=True)
    for model, means in grades.means.items():
        count = sum((grade.model or "") == model for grade in grades.completions)
        marks = ", ".join(f"{name} {means[name]:.3f}" for name in ("total", *COMPONENTS))
        name = f"{model}, mean" if model else "mean"
        console.print(f"{name} of {count} by {grades.rubric}: {marks}", highlight=False, markup=False)
