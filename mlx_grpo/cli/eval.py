"""`mlx-grpo eval`: compare models on held-out prompts."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from mlx_grpo.cli.terminal import (
    RESUME_HINT,
    console,
    console_table,
    errors,
    from_here,
    printable,
    show,
    spelled,
    tell,
)
from mlx_grpo.reporting import tables

if TYPE_CHECKING:
    from mlx_grpo.evaluation.eval import Evaluation
    from mlx_grpo.runs import Episodes


@click.command("eval")
@click.argument("run", required=False)
@click.argument("others", nargs=-1)
@click.option("--backend", type=click.Choice(["torch", "mlx"]), default="torch", show_default=True)
@click.option("--device", default="auto", show_default=True, help="For torch: cuda, mps or cpu.")
@click.option("--episodes", type=click.IntRange(min=1), help="Held-out prompts; the config's number by default.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="The config's number by default.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for all that is written; RUN by default.")
@click.option("--processes", type=click.IntRange(min=1), default=1, help="Processes that share --backend mlx, on CPUs.")
@click.option("--torch-episodes", type=click.IntRange(min=1), help="With --backend mlx, so many in PyTorch as well.")
@click.option("--all", "every", is_flag=True, help="Print every figure, not the main ones.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures, as eval.json holds them.")
def evaluate(
    run: str | None, others: tuple[str, ...], processes: int, every: bool, as_json: bool, **options: Any
) -> None:
    """Compare a run with its base model on held-out prompts.

    RUN is its folder; the latest by default. OTHERS are further runs, compared on the same prompts: other seeds,
    GRPO without a warm start, a run with reward.shuffle.

    It writes eval.json (the figures), episodes.jsonl (every model's completions, with their rewards) and plots/. The
    model card in RUN/hf, where `mlx-grpo export --hf` made that, then shows the results.

    \b
    mlx-grpo eval
    mlx-grpo eval runs/latest --backend mlx --episodes 208
    mlx-grpo eval runs/a runs/seed1 runs/seed2 runs/shuffled --out comparison
    """
    from mlx_grpo.distributed import launch
    from mlx_grpo.evaluation.eval import run_eval

    names = [run, *others] if run else []
    with (
        launch.processes(processes, ["eval", *spelled(options), "--", *names], RESUME_HINT) as ranks,
        errors.status("loading", spinner="line") as status,
    ):
        evaluation = run_eval(
            run,
            others=others,
            **options,
            progress=lambda model, done, total: status.update(f"{model}: {done} of {total} episodes"),
            ranks=ranks,
        )
    if evaluation is None:  # a process that helped another
        return
    count, wanted = evaluation.results["n_episodes"], options["episodes"]
    tell(*evaluation.notes)
    if wanted and count < wanted:
        errors.print(f"{count} held-out prompts are left to evaluate on, not {wanted}")
    if as_json:
        click.echo(json_module.dumps(evaluation.results))
    else:
        _print_evaluation(evaluation, whole=every or bool(others), in_run_folder=options["out"] is None)


def _print_evaluation(evaluation: Evaluation, whole: bool, in_run_folder: bool) -> None:
    """Print the figures and the files that were written."""
    if whole:
        print_comparison(console, evaluation.results)
    else:
        print_brief(console, evaluation.results, evaluation.episodes)
    show(map(from_here, [*evaluation.written, *([evaluation.card] if evaluation.card else [])]))
    if in_run_folder and evaluation.card is None:
        tell("note: `mlx-grpo export --hf` writes a model folder whose card shows these results")


def print_brief(console: Console, results: dict[str, Any], episodes: Episodes) -> None:
    """Print the main figures, what GRPO added, and one prompt's completions before and after."""
    from mlx_grpo.reporting.example import example_lines

    print_setting(console, results)
    console.print(console_table(*tables.brief(results), title=""))
    lines = ["", tables.grpo_gain(results), tables.in_torch(results), "", *example_lines(episodes, console.width), ""]
    for line in lines:
        if line is not None:
            console.print(printable(line), highlight=False, markup=False)


def print_setting(console: Console, results: dict[str, Any]) -> None:
    """Print what was evaluated, and how."""
    place = f"{results['backend']} on {results['device']}"
    console.print(
        f"{results['model']}: {results['n_episodes']} held-out prompts\n"
        f"greedy, up to {results['max_new_tokens']} tokens, {place}; "
        f"intervals and p-values over whole {results['resampled_by']}s\n",
        highlight=False,
        markup=False,
    )


def print_comparison(console: Console, results: dict[str, Any]) -> None:
    """Print the tables, and what GRPO added to the warm start."""
    print_setting(console, results)
    several = len(results["runs"]) > 1
    titled = {"Headline": tables.headline(results), "Components": tables.components(results)}
    if several:
        titled["Components of every run"] = tables.all_components(results)
    titled["Figures"] = tables.figures(results)
    if "seeds" in results:
        titled["Over seeds"] = tables.seeds(results)
    if several and results["over_warm_start"]:
        titled["What GRPO added in every run"] = tables.every_gain(results)
    titled["What GRPO added"] = tables.gains(results)
    for title, table in titled.items():
        console.print(console_table(*table, title=title), "")
    for line in (tables.grpo_gain(results), tables.in_torch(results)):
        if line is not None:
            console.print(line, highlight=False, markup=False)
