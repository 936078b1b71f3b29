"""A user's own candidates: `rank` and `data build`."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path

import click

from mlx_grpo.commands.terminal import GOES_ON, console, errors, show, spelled


@click.command()
@click.option("--model", required=True, help="A run's folder, a model's folder, or a Hub id.")
@click.option("--jd", type=click.Path(path_type=Path), required=True, help="The job description, as text.")
@click.option("--candidates", type=click.Path(path_type=Path), required=True, help="The pool; JSONL of any size.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="NAME.csv; NAME.jsonl goes beside it.")
@click.option("--top-k", type=click.IntRange(min=1), help="Write the best so many; all are scored.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Candidates at once; the run's by default, or 16.")
@click.option("--form", type=click.Choice(["compact", "full"]), help="As the run was trained; else compact.")
@click.option("--token-budget", type=click.IntRange(min=1), help="Most tokens of a prompt; 220 compact, 1000 full.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="The run's by default, or 384.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the second try at an answer.")
@click.option("--processes", type=click.IntRange(min=1), default=1, help="For CPUs: share the pool among them.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def rank(
    model: str,
    jd: Path,
    candidates: Path,
    out: Path,
    top_k: int | None,
    processes: int,
    as_json: bool,
    **options: object,
) -> None:
    """Rank a pool of candidates for a job, with reasons and whether each is grounded.

    Interrupted, the same command goes on where it was; NAME.scores.jsonl keeps what is done.

    \b
    mlx-grpo rank --model runs/latest --jd job.txt --candidates pool.jsonl --out ranked.csv
    """
    from mlx_grpo.distributed import launch
    from mlx_grpo.ranking.ranker import Ranker
    from mlx_grpo.ranking.summary import print_ranking
    from mlx_grpo.training.progress import CountReporter

    same = spelled({"model": model, "jd": jd, "candidates": candidates, "out": out, "top_k": top_k, **options})
    with (
        launch.processes(processes, ["rank", *same], GOES_ON) as ranks,
        CountReporter(errors, "ranking") as bar,
    ):
        ranker = Ranker(model, **options, ranks=ranks)
        summary = ranker.rank(jd, candidates, out, top_k=top_k, progress=bar.update)
    if summary is None:
        return
    if as_json:
        click.echo(json_module.dumps(asdict(summary), default=str))
    else:
        print_ranking(console, summary)


@click.group()
def data() -> None:
    """Make datasets of your own files."""


@data.command()
@click.option("--jd", type=click.Path(path_type=Path), required=True, help="The job description, as text.")
@click.option("--candidates", type=click.Path(path_type=Path), required=True, help="The pool, as JSON or JSONL.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for train.jsonl and heldout.jsonl.")
@click.option("--form", type=click.Choice(["compact", "full"]), default="compact", show_default=True)
@click.option("--token-budget", type=click.IntRange(min=1), help="Most tokens of a prompt; 220 compact, 1000 full.")
@click.option("--tokenizer", default="Qwen/Qwen3-0.6B", show_default=True, help="The model whose tokens count.")
@click.option("--heldout-fraction", type=float, default=0.2, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--skip-bad", is_flag=True, help="Leave bad candidates out, listed, instead of stopping.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def build(jd: Path, candidates: Path, out: Path, tokenizer: str, as_json: bool, **options: object) -> None:
    """Build training and held-out prompts from one job description and a pool of candidates.

    \b
    mlx-grpo data build --jd job.txt --candidates pool.json --out my-data
    mlx-grpo train configs/qwen3.yaml data.train=my-data
    """
    from mlx_grpo.data.dataset import token_counter
    from mlx_grpo.tasks.shortlist.build import build_dataset

    summary = build_dataset(jd, candidates, out, count_tokens=token_counter(tokenizer), **options)
    if as_json:
        click.echo(json_module.dumps(asdict(summary), default=str))
        return
    show(summary.lines())
