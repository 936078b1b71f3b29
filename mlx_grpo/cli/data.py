"""`mlx-grpo data`: make datasets."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mlx_grpo.cli.terminal import printable, show
from mlx_grpo.errors import UserError


@click.group()
def data() -> None:
    """Make a dataset from your own files, the synthetic benchmark, or the countdown task."""


@data.command(short_help="Print what is read of a job description.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--candidates", type=click.Path(path_type=Path), help="A pool, whose names of skills are known then.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a job.yaml to correct and to give as --jd.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def job(file: Path, candidates: Path | None, out: Path | None, as_json: bool) -> None:
    """Print the job that is read of a description: title, years, skills, where each stands, and what is doubtful.

    FILE is text, Markdown, HTML or a job.yaml. Nothing doubtful is required of a candidate.

    \b
    mlx-grpo data job job.txt --out job.yaml
    mlx-grpo rank --model runs/latest --jd job.yaml --candidates pool.jsonl --out ranked.csv
    """
    from mlx_grpo.tasks.shortlist.jd import pool_skills, read_description

    reading = read_description(file, pool_skills(candidates) if candidates else [])
    if out is not None:
        reading.write(out, source=file.name)
    if as_json:
        click.echo(json_module.dumps(reading.as_dict()))
        return
    doubts = [f"doubt     {line}" for line in reading.doubts]
    show(map(printable, [*reading.lines(), *doubts, *([f"{out}"] if out else [])]))


@data.command(short_help="Build prompts from a job description and a pool of candidates.")
@click.option("--jd", type=click.Path(path_type=Path), required=True, help="The job's text, HTML or job.yaml.")
@click.option("--candidates", type=click.Path(path_type=Path), required=True, help="The pool: JSONL, or a JSON list.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for train.jsonl and heldout.jsonl.")
@click.option(
    "--form",
    type=click.Choice(["compact", "full"]),
    default="compact",
    show_default=True,
    help="compact: titles, years and skills; full: the texts too.",
)
@click.option(
    "--token-budget", type=click.IntRange(min=1), help="Most tokens of a user message; 200 by default, 1000 for full."
)
@click.option(
    "--labels",
    type=click.Choice(["rule", "rank"]),
    default="rule",
    show_default=True,
    help="rule: shortlist from a fit of 0.5; rank: the pool's upper half, whose score is the place in the pool.",
)
@click.option(
    "--wording",
    type=click.Choice(["example", "published"]),
    default="example",
    show_default=True,
    help="example: rules and a worked example; published: the published run's system message.",
)
@click.option("--tokenizer", default="Qwen/Qwen3-0.6B", show_default=True, help="Model whose tokenizer counts.")
@click.option("--heldout-fraction", type=float, default=0.2, show_default=True, help="Share of held-out candidates.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the split.")
@click.option("--skip-bad", is_flag=True, help="Leave out bad candidates and list them, instead of stopping.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def build(jd: Path, candidates: Path, out: Path, tokenizer: str, as_json: bool, **options: Any) -> None:
    """Build training and held-out prompts from one job description and a pool of candidates.

    \b
    mlx-grpo data build --jd job.txt --candidates pool.json --out my-data
    mlx-grpo train configs/qwen3.yaml data.train=my-data
    """
    from mlx_grpo.models.policy import token_counter
    from mlx_grpo.tasks.shortlist.build import build_dataset

    try:
        count_tokens = token_counter(tokenizer)
    except UserError as error:
        raise UserError(*(f"--tokenizer: {line.removeprefix('model: ')}" for line in error.problems)) from None
    summary = build_dataset(jd, candidates, out, count_tokens=count_tokens, **options)
    if as_json:
        click.echo(json_module.dumps(asdict(summary), default=str))
        return
    show(summary.lines())


@data.command(short_help="Write the synthetic benchmark of made-up jobs and candidates.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the four files.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of jobs, candidates and split.")
@click.option(
    "--per-job", type=click.IntRange(min=1), default=20, show_default=True, help="Training candidates for each job."
)
def synthetic(out: Path, **options: Any) -> None:
    """Write the synthetic benchmark: made-up jobs and candidates, split into training and held-out rows.

    \b
    mlx-grpo data synthetic --out data/synthetic-60 --per-job 60
    """
    from mlx_grpo.tasks.shortlist.synthetic import write_bundle

    show(write_bundle(out, **options))


@data.command(short_help="Write rows of the countdown task: reach a number from given numbers.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for train.jsonl and heldout.jsonl.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the numbers.")
def countdown(out: Path, seed: int) -> None:
    """Write rows of the countdown task, made up by a seed: reach a number from given numbers.

    \b
    mlx-grpo data countdown --out data/countdown
    mlx-grpo train configs/countdown.yaml
    """
    from mlx_grpo.json_files import write_jsonl
    from mlx_grpo.tasks.countdown.task import make_rows

    for split, rows in make_rows(seed):
        path = out / f"{split}.jsonl"
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_jsonl(path, rows)
        except OSError as error:
            raise UserError(f"--out: {out} can't be written ({error.strerror}); choose another folder") from None
        show([f"{path}: {len(rows)} rows"])
