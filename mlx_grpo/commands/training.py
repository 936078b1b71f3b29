"""`train`, and what tells beforehand how it will go: `plan`, `bench`, `doctor`."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path

import click

from mlx_grpo.commands.terminal import console, errors, show
from mlx_grpo.errors import UserError


@click.command()
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--resume", is_flag=True, help="Go on with the latest run of CONFIG, or with the run folder given.")
@click.option(
    "--until",
    type=click.IntRange(min=1),
    help="End after so many GRPO steps, best a multiple of eval_steps; --resume takes the rest.",
)
@click.option("--processes", type=click.IntRange(min=1), default=1, help="For CPUs: share each step among them.")
@click.option("--force", is_flag=True, help="Train even where the predicted memory does not fit.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's folder and last metrics as JSON.")
def train(
    config: str,
    overrides: tuple[str, ...],
    resume: bool,
    until: int | None,
    processes: int,
    force: bool,
    as_json: bool,
) -> None:
    """Train as CONFIG says; KEY=VALUE overrides its keys.

    CONFIG is a file, or the name of an example: qwen3, qwen3-full, published, smollm2, smollm2-long,
    smollm2-split, smollm2-branch, smollm2-noisy.

    \b
    mlx-grpo train configs/qwen3.yaml
    mlx-grpo train configs/smollm2.yaml max_steps=5 lora.rank=8
    mlx-grpo train configs/qwen3.yaml --until 40
    mlx-grpo train configs/qwen3.yaml --resume
    """
    from mlx_grpo.config.files import load_config
    from mlx_grpo.distributed import launch
    from mlx_grpo.runs import METRICS, find_resumable, read_jsonl
    from mlx_grpo.training.progress import ConsoleReporter
    from mlx_grpo.training.trainer import train as run_training

    settings, resumed = find_resumable(config, overrides) if resume else (load_config(config, overrides), None)
    same = [*overrides, *["--resume"][:resume], *["--force"][:force], *(["--until", str(until)] if until else [])]
    with (
        launch.processes(processes, ["train", config, *same], "--resume goes on from the last checkpoint") as ranks,
        ConsoleReporter(errors if as_json else console, settings.logging_steps) as reporter,
    ):
        run = run_training(settings, reporter, resumed, force, ranks, until)
    if not ranks.leads:
        return
    if as_json:
        click.echo(json_module.dumps({"run": str(run), "metrics": read_jsonl(run / METRICS)[-1]}))
    else:
        where = "" if run.parent == Path("runs") else f" {run}"
        show((f"adapter: {run / 'adapter'}", f"next: mlx-grpo export --hf{where}, then mlx-grpo eval{where}"))


@click.command("plan")
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--memory", help="Plan for a Mac with this much unified memory, such as 16GB; this machine by default.")
@click.option("--prompt-tokens", type=click.IntRange(min=2), help="Longest prompt; counted in the data by default.")
@click.option("--gflops", type=click.FloatRange(min=0, min_open=True), help="Speed to reckon hours with.")
@click.option("--machines", type=click.IntRange(min=1), default=1, help="What so many, each like it, would send.")
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def plan_command(
    config: str,
    overrides: tuple[str, ...],
    memory: str | None,
    prompt_tokens: int | None,
    gflops: float | None,
    machines: int,
    as_json: bool,
) -> None:
    """Predict a run's memory and time from the model's config.json, without its weights.

    CONFIG and its overrides are those of `train`.

    \b
    mlx-grpo plan configs/qwen3.yaml --memory 16GB
    mlx-grpo plan smollm2 micro_batch_size=2 --prompt-tokens 500
    mlx-grpo plan configs/qwen3.yaml --memory 16GB --gflops 2000 --machines 4
    """
    from mlx_grpo.config.files import load_config
    from mlx_grpo.planning.plan import plan, print_plan

    result = plan(load_config(config, overrides), memory, prompt_tokens, gflops, machines)
    if as_json:
        click.echo(json_module.dumps(result))
    else:
        print_plan(console, result)


@click.command("bench")
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--shapes", default="256x8x48,750x8x96,1000x16x96", show_default=True, help="PxGxT, comma-separated.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--plain/--no-plain", default=True, help="Whether to time the prompt run for each completion too.")
@click.option("--processes", type=click.IntRange(min=1), default=1, help="For CPUs: so many, with a prompt each.")
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def bench_command(
    config: str,
    overrides: tuple[str, ...],
    shapes: str,
    repeats: int,
    plain: bool,
    processes: int,
    as_json: bool,
) -> None:
    """Time the parts of a step on this machine: one prompt of P tokens, G completions of T tokens.

    CONFIG and its overrides are those of `train`.

    \b
    mlx-grpo bench smollm2
    mlx-grpo bench configs/qwen3.yaml --shapes 512x8x128 micro_batch_size=2
    """
    from mlx_grpo.bench import Shape, bench, print_bench
    from mlx_grpo.config.files import load_config
    from mlx_grpo.distributed import launch

    settings = load_config(config, overrides)
    try:
        wanted = [Shape.parse(text) for text in shapes.split(",")]
    except ValueError:
        raise UserError(f"--shapes: {shapes!r} are no shapes; give PxGxT, such as 256x8x48,750x8x96") from None
    same = ["--shapes", shapes, "--repeats", str(repeats), "--plain" if plain else "--no-plain"]
    with (
        launch.processes(processes, ["bench", config, *overrides, *same]) as ranks,
        errors.status("loading", spinner="line") as status,
    ):
        results = bench(settings, wanted, repeats, plain, status.update, ranks)
    if not ranks.leads:
        return
    if as_json:
        click.echo(json_module.dumps(results))
    else:
        print_bench(console, results)


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor_command(context: click.Context, as_json: bool) -> None:
    """Examine this machine before the first run: back end, speed, memory, dtype, Hub, disk.

    Exits with 1 where training can't work.

    \b
    mlx-grpo doctor
    mlx-grpo doctor --json
    """
    from mlx_grpo.doctor import can_train, examine, print_findings

    with errors.status("examining", spinner="line"):
        findings = examine()
    if as_json:
        click.echo(json_module.dumps({"can_train": can_train(findings), "findings": [asdict(f) for f in findings]}))
    else:
        print_findings(console, findings)
    context.exit(0 if can_train(findings) else 1)
