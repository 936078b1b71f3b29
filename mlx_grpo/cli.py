"""The command line: parse, make one call, print."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path

import click
from rich.console import Console

from mlx_grpo import BLAS, __version__
from mlx_grpo.cpu import REMEDY, on_linux_cpu
from mlx_grpo.errors import UserError

console = Console()
errors = Console(stderr=True)


class Commands(click.Group):
    """Turns a user's mistake into its lines on stderr and exit code 2, in place of a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UserError as error:
            for problem in error.problems:
                errors.print(f"error: {problem}", highlight=False, markup=False, soft_wrap=True)
            ctx.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Train a small language model with GRPO on one Mac, and prove what it learned.

    \b
    mlx-grpo train configs/qwen3.yaml     train
    mlx-grpo export --hf                  write a Hugging Face folder
    mlx-grpo eval                         compare it with its baseline
    """
    if on_linux_cpu() and BLAS is None:
        errors.print(f"warning: {REMEDY}", highlight=False, soft_wrap=True)


@main.command()
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--processes", type=click.IntRange(min=1), default=1, help="For CPUs: share each step among them.")
@click.option("--force", is_flag=True, help="Train even where the predicted memory does not fit.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's folder and last metrics as JSON.")
def train(config: str, overrides: tuple[str, ...], processes: int, force: bool, as_json: bool) -> None:
    """Train as CONFIG says; KEY=VALUE overrides its keys.

    CONFIG is a file, or the name of an example: qwen3, qwen3-full, published, smollm2.

    \b
    mlx-grpo train configs/qwen3.yaml
    mlx-grpo train configs/smollm2.yaml max_steps=5 lora.rank=8
    """
    from mlx_grpo import launch
    from mlx_grpo.config import load_config
    from mlx_grpo.progress import ConsoleReporter
    from mlx_grpo.ranks import join_ranks
    from mlx_grpo.runs import METRICS, read_jsonl
    from mlx_grpo.trainer import train as run_training

    settings = load_config(config, overrides)
    with (
        launch.processes(processes, ["train", config, *overrides]),
        ConsoleReporter(errors if as_json else console, settings.logging_steps) as reporter,
    ):
        run = run_training(settings, reporter, force)
    if not join_ranks().leads:
        return
    if as_json:
        click.echo(json_module.dumps({"run": str(run), "metrics": read_jsonl(run / METRICS)[-1]}))
    else:
        where = "" if run.parent == Path("runs") else f" {run}"
        for line in (f"adapter: {run / 'adapter'}", f"next: mlx-grpo export --hf{where}, then mlx-grpo eval{where}"):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


@main.command()
@click.argument("run", required=False)
@click.option("--hf", is_flag=True, help="Write a Hugging Face folder with the adapter fused in.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to; RUN/hf by default.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="As trained by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the export's folder and files as JSON.")
def export(run: str | None, hf: bool, out: Path | None, dtype: str | None, as_json: bool) -> None:
    """Export a run for use outside MLX.

    RUN is its folder; the latest by default.

    \b
    mlx-grpo export --hf
    mlx-grpo export --hf runs/latest --out my-model --dtype bfloat16
    """
    from mlx_grpo.exporting import export_run

    if not hf:
        raise UserError("export: name a format; --hf writes a Hugging Face folder")
    folder, summary = export_run(run, out, dtype)
    if as_json:
        click.echo(json_module.dumps({"folder": str(folder), "files": summary.files}))
    else:
        size = sum(summary.files.values()) / 2**20
        console.print(f"{folder}  ({summary.dtype}, {size:.0f} MB)", highlight=False, soft_wrap=True)


@main.command("eval")
@click.argument("run", required=False)
@click.option("--backend", type=click.Choice(["torch", "mlx"]), default="torch", show_default=True)
@click.option("--device", default="auto", show_default=True, help="For torch: cuda, mps or cpu.")
@click.option("--episodes", type=click.IntRange(min=1), help="Held-out prompts; the config's number by default.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="The config's number by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def evaluate(
    run: str | None, backend: str, device: str, episodes: int | None, max_new_tokens: int | None, as_json: bool
) -> None:
    """Compare a run with its base model on held-out prompts.

    RUN is its folder; the latest by default.

    \b
    mlx-grpo eval
    mlx-grpo eval runs/latest --backend mlx --episodes 32
    """
    from mlx_grpo.compare import compare, print_comparison

    with errors.status("loading", spinner="line") as status:
        results, pictures = compare(
            run,
            backend=backend,
            device=device,
            episodes=episodes,
            max_new_tokens=max_new_tokens,
            progress=lambda model, done, total: status.update(f"{model}: {done} of {total} episodes"),
        )
    if as_json:
        click.echo(json_module.dumps({key: value for key, value in results.items() if key != "models"}))
    else:
        print_comparison(console, results, pictures)


@main.command("bench")
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--shapes", default="256x8x48,750x8x96,1000x16x96", show_default=True, help="PxGxT, comma-separated.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def bench_command(config: str, overrides: tuple[str, ...], shapes: str, repeats: int, as_json: bool) -> None:
    """Time the parts of a step on this machine: one prompt of P tokens, G completions of T tokens.

    CONFIG and its overrides are those of `train`.

    \b
    mlx-grpo bench smollm2
    mlx-grpo bench configs/qwen3.yaml --shapes 512x8x128 micro_batch_size=2
    """
    from mlx_grpo.bench import Shape, bench, print_bench
    from mlx_grpo.config import load_config

    settings = load_config(config, overrides)
    try:
        wanted = [Shape.parse(text) for text in shapes.split(",")]
    except ValueError:
        raise UserError(f"--shapes: {shapes!r} are no shapes; give PxGxT, such as 256x8x48,750x8x96") from None
    with errors.status("loading", spinner="line") as status:
        results = bench(settings, wanted, repeats, status.update)
    if as_json:
        click.echo(json_module.dumps(results))
    else:
        print_bench(console, results)


@main.command("plan")
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--memory", help="Plan for a Mac with this much unified memory, such as 16GB; this machine by default.")
@click.option("--prompt-tokens", type=click.IntRange(min=2), help="Longest prompt; counted in the data by default.")
@click.option("--gflops", type=click.FloatRange(min=0, min_open=True), help="Speed to reckon hours with.")
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
    """
    from mlx_grpo.config import load_config
    from mlx_grpo.plan import plan, print_plan

    result = plan(load_config(config, overrides), memory, prompt_tokens, gflops)
    if as_json:
        click.echo(json_module.dumps(result))
    else:
        print_plan(console, result)


@main.group()
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
    from dataclasses import asdict

    from mlx_grpo.data import token_counter
    from mlx_grpo.tasks.build import build_dataset

    summary = build_dataset(jd, candidates, out, count_tokens=token_counter(tokenizer), **options)
    if as_json:
        click.echo(json_module.dumps(asdict(summary), default=str))
        return
    for line in summary.lines():
        console.print(line, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
