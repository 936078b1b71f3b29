"""`mlx-grpo plan`: predict a run's memory and time."""

from __future__ import annotations

import json as json_module
from typing import Any

import click
from rich.console import Console

from mlx_grpo.cli.terminal import console, console_table


@click.command("plan")
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--memory", help="Plan for a Mac with this much unified memory, such as 16GB; this machine by default.")
@click.option("--prompt-tokens", type=click.IntRange(min=2), help="Longest prompt; counted in the data by default.")
@click.option("--gflops", type=click.FloatRange(min=0, min_open=True), help="Speed to compute the hours with.")
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def plan_command(
    config: str,
    overrides: tuple[str, ...],
    memory: str | None,
    prompt_tokens: int | None,
    gflops: float | None,
    as_json: bool,
) -> None:
    """Predict a run's memory and time from the model's config.json, without its weights.

    CONFIG and its overrides are those of `train`.

    \b
    mlx-grpo plan configs/qwen3.yaml --memory 16GB
    mlx-grpo plan smollm2 micro_batch_size=2 --prompt-tokens 500
    mlx-grpo plan configs/qwen3.yaml --memory 16GB --gflops 2000
    """
    from mlx_grpo.config.files import load_config
    from mlx_grpo.planning.plan import plan

    result = plan(load_config(config, overrides), memory, prompt_tokens, gflops)
    if as_json:
        click.echo(json_module.dumps(result))
    else:
        print_plan(console, result)


def print_plan(console: Console, result: dict[str, Any]) -> None:
    """Print the bytes by kind of array, each phase's peak, the verdict, and the time."""
    from mlx_grpo.planning.plan import GB, verdict

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
    console.print(console_table(["what", "GB"], rows(result["bytes"]), title="What it takes, by shape"))
    console.print(console_table(["phase", "GB"], rows(result["phases"]), title="Peak of each phase"))
    if result["memory"]:
        kept = (result["memory"] - result["available"]) / GB
        say(f"a Mac with {result['memory'] / GB:g} GB: {kept:.1f} GB are left to macOS by Metal's recommendation")
    say(verdict(result["peak"], result["peak_in"], result["available"]))
    if not result["fits"]:
        say(f"cheapest change that fits: {result['change']}" if result["change"] else "no change here makes it fit")
    say(f"a step: up to {result['step_tokens']:,} tokens, {result['step_flops'] / 1e12:.1f} TFLOP")
    if result["gflops"]:
        say(f"the run: at least {result['hours']:.1f} hours at {result['gflops']:,.0f} GFLOP/s throughout")
    else:
        say(f"the run: {result['run_flops'] / 1e15:.2f} PFLOP; give --gflops for its hours")
