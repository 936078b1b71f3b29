"""`mlx-grpo plan`: predict a run's memory and time."""

from __future__ import annotations

import json as json_module
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from mlx_grpo.cli.terminal import console, console_table
from mlx_grpo.errors import UserError


@click.command("plan")
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--memory", help="Plan for a Mac with this much unified memory, such as 16GB; this machine by default.")
@click.option("--prompt-tokens", type=click.IntRange(min=2), help="Longest prompt; counted in the data by default.")
@click.option("--gflops", type=click.FloatRange(min=0, min_open=True), help="Speed to compute the hours with.")
@click.option("--measure", is_flag=True, help="Load the weights and measure this machine's peak beside the prediction.")
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def plan_command(
    config: str,
    overrides: tuple[str, ...],
    memory: str | None,
    prompt_tokens: int | None,
    gflops: float | None,
    measure: bool,
    as_json: bool,
) -> None:
    """Predict a run's memory and time from the model's config.json, without its weights.

    CONFIG and its overrides are those of `train`. With --measure the weights are loaded, and one micro-batch of the
    longest texts runs.

    \b
    mlx-grpo plan configs/qwen3.yaml --memory 16GB
    mlx-grpo plan smollm2 micro_batch_size=2 --prompt-tokens 500
    mlx-grpo plan configs/qwen3.yaml --memory 16GB --gflops 2000
    mlx-grpo plan configs/qwen3.yaml --measure
    """
    from mlx_grpo.config.files import load_config
    from mlx_grpo.planning.plan import plan
    from mlx_grpo.training.measure import load_and_measure

    if measure and memory:
        raise UserError("--measure: runs on this machine, so --memory has no meaning beside it; leave one out")
    result = plan(load_config(config, overrides), memory, prompt_tokens, gflops, load_and_measure if measure else None)
    if as_json:
        click.echo(json_module.dumps(result))
    else:
        print_plan(console, result)


def print_plan(console: Console, result: dict[str, Any]) -> None:
    """Print the bytes by kind of array, each phase's peak, the verdict, and the time."""
    from mlx_grpo.planning.plan import GB

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    def rows(sizes: dict[str, int]) -> list[list[str]]:
        return [[name, f"{size / GB:.2f}"] for name, size in sizes.items()]

    lengths = result["lengths"]
    say(
        f"{result['model']}, {result['fine_tune_type']}, {result['dtype']}: "
        f"{result['parameters'] / 1e6:,.1f}M parameters, {result['trainable'] / 1e6:,.1f}M trained; "
        f"prompts of up to {lengths['prompt']} tokens"
    )
    say(result["path"])
    console.print(console_table(["what", "GB"], rows(result["bytes"]), title="What it takes, by shape"))
    console.print(phases_table(result["phases"], result["measured"]))
    if result["measured"]:
        say("measured: one micro-batch of the longest texts, with Adam's moments and the reference by count")
    if result["memory"]:
        kept = (result["memory"] - result["available"]) / GB
        say(f"a Mac with {result['memory'] / GB:g} GB: {kept:.1f} GB are left to macOS by Metal's recommendation")
    say(result["verdict"])
    if not result["fits"]:
        say(f"cheapest change that fits: {result['change']}" if result["change"] else "no change here makes it fit")
    say(f"a step: up to {result['step_tokens']:,} tokens, {result['step_flops'] / 1e12:.1f} TFLOP")
    if result["gflops"]:
        say(f"the run: at least {result['hours']:.1f} hours at {result['gflops']:,.0f} GFLOP/s throughout")
    else:
        say(f"the run: {result['run_flops'] / 1e15:.2f} PFLOP; give --gflops for its hours")


def phases_table(predicted: dict[str, int], measured: dict[str, int]) -> Table:
    """Make the table of each phase's peak, with a column of measured ones if there are any."""
    from mlx_grpo.planning.plan import GB

    if not measured:
        rows = [[phase, f"{peak / GB:.2f}"] for phase, peak in predicted.items()]
        return console_table(["phase", "GB"], rows, title="Peak of each phase")
    rows = [
        [phase, f"{peak / GB:.2f}", f"{measured[phase] / GB:.2f}" if phase in measured else ""]
        for phase, peak in predicted.items()
    ]
    return console_table(["phase", "predicted GB", "measured GB"], rows, title="Peak of each phase")
