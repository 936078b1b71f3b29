"""`mlx-grpo bench`: time the parts of a step on this machine."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from mlx_grpo.cli.bench_processes import Counts, bench_counts, print_counts
from mlx_grpo.cli.terminal import console, console_table, errors
from mlx_grpo.errors import UserError

if TYPE_CHECKING:
    from mlx_grpo.planning.flops import Shape

RATES = "Sampling, steps and memory"


@click.command("bench")
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--shapes", default="256x8x48,750x8x96,1000x16x96", show_default=True, help="PxGxT, comma-separated.")
@click.option(
    "--prompts", type=click.IntRange(min=1), default=1, show_default=True, help="Prompts of a step, for each process."
)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Steps whose median time is printed."
)
@click.option(
    "--plain/--no-plain", default=True, help="Also time the training half with the prompt run for each completion."
)
@click.option(
    "--processes",
    type=Counts(),
    default="1",
    help="For CPUs: this many processes, each with a prompt of its own; 1,2 compares one with two.",
)
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def bench_command(
    config: str,
    overrides: tuple[str, ...],
    shapes: str,
    prompts: int,
    repeats: int,
    plain: bool,
    processes: tuple[int, ...],
    as_json: bool,
) -> None:
    """Time the parts of a step on this machine: one prompt of P tokens, G completions of T tokens.

    CONFIG and its overrides are those of `train`. Of several prompts, 2000/250x8x96 has 2000 tokens in common, such as
    a job's text, and 250 of its own. 19x4x256 is the shape of the public figures on Macs; docs/performance.md has them.

    \b
    mlx-grpo bench smollm2
    mlx-grpo bench configs/qwen3.yaml --shapes 512x8x128 micro_batch_size=2
    mlx-grpo bench smollm2 --prompts 4 --shapes 500/250x8x96
    mlx-grpo bench smollm2 --processes 1,2
    mlx-grpo bench qwen3 model=mlx-community/Qwen3-0.6B-4bit --shapes 19x4x256
    """
    from mlx_grpo.config.files import load_config
    from mlx_grpo.distributed import launch
    from mlx_grpo.training.bench import bench

    settings = load_config(config, overrides)
    parsed = _parse_shapes(shapes, prompts)
    options = [*overrides, "--shapes", shapes, "--repeats", str(repeats)]
    if len(processes) > 1:
        print_counts(console, bench_counts(["bench", config, *options], processes, prompts), as_json)
        return
    options += ["--prompts", str(prompts), "--plain" if plain else "--no-plain"]
    with (
        launch.processes(processes[0], ["bench", config, *options]) as ranks,
        errors.status("loading", spinner="line") as status,
    ):
        results = bench(settings, parsed, repeats, plain, status.update, ranks)
    if ranks.leads:
        print_bench(console, results, as_json)


def _parse_shapes(text: str, prompts: int) -> list[Shape]:
    from mlx_grpo.planning.flops import Shape

    try:
        return [Shape.parse(shape, prompts) for shape in text.split(",")]
    except ValueError:
        raise UserError(f"--shapes: {text!r} are no shapes; give PxGxT, such as 256x8x48,500/250x8x96") from None


def print_bench(console: Console, results: dict[str, Any], as_json: bool = False) -> None:
    """Print a table of the whole step, and one of its training half; or all figures as JSON."""
    if as_json:
        click.echo(json_module.dumps(results))
        return
    from mlx_grpo.models.policy import model_name
    from mlx_grpo.planning.flops import MATRIX, Shape
    from mlx_grpo.training.bench import PARTS

    each = f"{results['processes']} processes with prompts of their own, " if results["processes"] > 1 else ""
    console.print(
        f"{model_name(results['model'])}, {results['fine_tune_type']}, {each}MLX {results['mlx']} on "
        f"{results['machine']}, {results['device']}: "
        f"{results['matrix_gflops']:.0f} GFLOP/s in a matrix product of {MATRIX}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    names = [str(Shape.of(r)) for r in results["shapes"]]
    parts = (*PARTS, "step")
    whole = [
        [name, *(f"{r[part]:.2f}" for part in parts), f"{r['tokens_per_s']:.0f}"]
        for name, r in zip(names, results["shapes"], strict=True)
    ]
    console.print(console_table(["P x G x T", *parts, "tok/s"], whole, title="Seconds of a step"))
    rates = [[name, *_rate_cells(r)] for name, r in zip(names, results["shapes"], strict=True)]
    header = ["P x G x T", "rollout tok/s", "steps/s", "peak GB"]
    console.print(console_table(header, rates, title=RATES))
    half = [[name, *_training_cells(r)] for name, r in zip(names, results["shapes"], strict=True)]
    if all("train_plain" in r for r in results["shapes"]):
        header = ["P x G x T", "shared s", "plain s", "faster", "shared GB", "plain GB", "of matrix speed"]
        title = "Its training half: the prompt run once, or for each completion"
    else:
        header, title = ["P x G x T", "s", "GB", "of matrix speed"], "Its training half"
    console.print(console_table(header, half, title=title))
    if all("train_groups" in r for r in results["shapes"]):
        header = ["P x G x T", "once s", "for each s", "faster", "once GB", "for each GB"]
        rows = [[name, *_group_cells(r)] for name, r in zip(names, results["shapes"], strict=True)]
        title = "The training half of several prompts: what they begin with run once, or for each prompt"
        console.print(console_table(header, rows, title=title))


def _rate_cells(r: dict[str, Any]) -> list[str]:
    return [f"{r['rollout_tokens_per_s']:.0f}", f"{r['steps_per_s']:.3g}", f"{r['peak_gb']:.2f}"]


def _group_cells(r: dict[str, Any]) -> list[str]:
    times = [f"{r['train']:.2f}", f"{r['train_groups']:.2f}", f"{r['train_groups'] / r['train']:.2f}x"]
    return [*times, f"{r['train_peak_gb']:.2f}", f"{r['train_groups_peak_gb']:.2f}"]


def _training_cells(r: dict[str, Any]) -> list[str]:
    share = f"{r['share_of_matrix_speed']:.0%}"
    if "train_plain" not in r:
        return [f"{r['train']:.2f}", f"{r['train_peak_gb']:.2f}", share]
    faster = f"{r['train_plain'] / r['train']:.1f}x"
    memory = [f"{r['train_peak_gb']:.2f}", f"{r['train_plain_peak_gb']:.2f}"]
    return [f"{r['train']:.2f}", f"{r['train_plain']:.2f}", faster, *memory, share]
