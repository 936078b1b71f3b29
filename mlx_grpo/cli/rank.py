"""`mlx-grpo rank`: rank a pool of candidates."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlx_grpo.cli.terminal import RESUME_HINT, console, errors, printable, show, spelled, tell

if TYPE_CHECKING:  # it brings MLX with it, which `mlx-grpo --help` does without
    from mlx_grpo.ranking.summary import RankSummary
    from mlx_grpo.tasks.shortlist.jd import JobReading


@click.command()
@click.option("--model", required=True, help="A run's folder, a model's folder, or a Hub id.")
@click.option("--jd", type=click.Path(path_type=Path), required=True, help="The job's text, HTML or job.yaml.")
@click.option(
    "--candidates", type=click.Path(path_type=Path), required=True, help="The pool: JSONL of any size, or a JSON list."
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="NAME.csv; NAME.jsonl is written beside it."
)
@click.option("--top-k", type=click.IntRange(min=1), help="Write only the best K; all are scored.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Most candidates at a time; by default the run's, or by memory."
)
@click.option(
    "--form", type=click.Choice(["compact", "full"]), help="Form of the prompts; the run's by default, or compact."
)
@click.option(
    "--token-budget", type=click.IntRange(min=1), help="Most tokens of a user message; 200 by default, 1000 for full."
)
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), help="Most tokens of an answer; the run's by default, or 384."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the second try at an answer.")
@click.option("--processes", type=click.IntRange(min=1), default=1, help="Processes that share the pool, for CPUs.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def rank(
    model: str,
    jd: Path,
    candidates: Path,
    out: Path,
    top_k: int | None,
    processes: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Rank a pool of candidates for a job, with reasons, each checked against the facts of the profile.

    The job as it was read is printed first, with all doubts; `mlx-grpo data job` shows it without a model.
    After an interruption, the same command continues where it stopped; NAME.scores.jsonl holds all finished answers.

    \b
    mlx-grpo rank --model runs/latest --jd job.txt --candidates pool.jsonl --out ranked.csv
    """
    from mlx_grpo.distributed import launch
    from mlx_grpo.ranking.ranker import Ranker
    from mlx_grpo.training.progress import CountReporter

    same = spelled({"model": model, "jd": jd, "candidates": candidates, "out": out, "top_k": top_k, **options})
    with (
        launch.processes(processes, ["rank", *same], RESUME_HINT) as ranks,
        CountReporter(errors, "ranking") as bar,
    ):
        ranker = Ranker(model, **options, ranks=ranks)
        summary = ranker.rank(
            jd, candidates, out, top_k=top_k, progress=bar.update, show_job=partial(show_job, as_json=as_json)
        )
    if summary is None:
        return
    if as_json:
        click.echo(json_module.dumps(asdict(summary), default=str))
    else:
        print_ranking(console, summary)


def show_job(reading: JobReading, *, as_json: bool) -> None:
    """Print the job as it was read, to stderr where stdout is for JSON, and a warning for each doubt to stderr."""
    lines = map(printable, reading.lines())
    if as_json:
        tell(*lines)
    else:
        show(lines)
    tell(*(printable(f"warning: {doubt}") for doubt in reading.doubts))


def print_ranking(console: Console, summary: RankSummary) -> None:
    """Print the best candidates, the number without a rank and why, and the paths of the files."""
    table = Table(title="Best", title_justify="left", title_style="bold", header_style="bold")
    table.add_column("", justify="right", overflow="fold")
    table.add_column("candidate", overflow="fold")
    table.add_column("score", justify="right", overflow="fold")
    table.add_column("decision, reasons", overflow="fold")
    for rank, answer in enumerate(summary.best, start=1):
        reasons = [f"{reason.text} ({reason.status})" for reason in answer.reasons]
        cells = str(rank), answer.candidate_id, f"{answer.score:.2f}", "\n".join([answer.decision, *reasons])
        table.add_row(*(Text(printable(cell)) for cell in cells))
    if summary.best:
        console.print(table)
    for line in _lines(summary):
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def _lines(summary: RankSummary) -> list[str]:
    """Return the lines below the table."""
    made = summary.candidates - summary.reused
    speed = f" ({summary.seconds / made:.2f} s each)" if made else ""
    kept = f", {summary.reused} scored earlier" if summary.reused else ""
    unranked = summary.no_answer + summary.unreadable
    more = [f"and {unranked - len(summary.notes)} more, listed at the end"] if unranked > len(summary.notes) else []
    return [
        f"{summary.candidates} candidates in {summary.seconds:.0f} s{speed}{kept}",
        f"{summary.ranked} ranked, {summary.shortlisted} of them shortlisted",
        f"of their reasons' clauses {summary.confirmed} confirmed, {summary.refuted} refuted, {summary.unread} unread"
        + ("" if summary.coverage is None else f"; they state {summary.coverage:.0%} of the decisive facts"),
        f"{summary.no_answer} without a valid answer, {summary.retried} asked twice, {summary.unreadable} unreadable",
        *(f"no rank: {line}" for line in [*summary.notes, *more]),
        str(summary.csv),
        str(summary.jsonl),
    ]
