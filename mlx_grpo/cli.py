"""The command line: parse, make one call, print."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mlx_grpo import BLAS, __version__
from mlx_grpo.cpu import REMEDY, on_linux_cpu
from mlx_grpo.errors import UserError
from mlx_grpo.interrupts import Interrupted

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
        except Interrupted as stopped:
            errors.print(str(stopped), highlight=False, markup=False, soft_wrap=True)
            ctx.exit(stopped.exit_code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Train a small language model with GRPO on one Mac, and prove what it learned.

    \b
    mlx-grpo train configs/qwen3.yaml     train
    mlx-grpo export --hf                  write a Hugging Face folder
    mlx-grpo eval                         compare it with its baseline
    mlx-grpo score FILE                   grade completions and say why
    """
    if on_linux_cpu() and BLAS is None:
        errors.print(f"warning: {REMEDY}", highlight=False, soft_wrap=True)


@main.command()
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--resume", is_flag=True, help="Go on with the latest run of CONFIG, or with the run folder given.")
@click.option("--processes", type=click.IntRange(min=1), default=1, help="For CPUs: share each step among them.")
@click.option("--force", is_flag=True, help="Train even where the predicted memory does not fit.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's folder and last metrics as JSON.")
def train(config: str, overrides: tuple[str, ...], resume: bool, processes: int, force: bool, as_json: bool) -> None:
    """Train as CONFIG says; KEY=VALUE overrides its keys.

    CONFIG is a file, or the name of an example: qwen3, qwen3-full, published, smollm2.

    \b
    mlx-grpo train configs/qwen3.yaml
    mlx-grpo train configs/smollm2.yaml max_steps=5 lora.rank=8
    mlx-grpo train configs/qwen3.yaml --resume
    """
    from mlx_grpo import launch
    from mlx_grpo.config import load_config
    from mlx_grpo.progress import ConsoleReporter
    from mlx_grpo.ranks import join_ranks
    from mlx_grpo.runs import METRICS, find_resumable, read_jsonl
    from mlx_grpo.trainer import train as run_training

    settings, resumed = find_resumable(config, overrides) if resume else (load_config(config, overrides), None)
    with (
        launch.processes(processes, ["train", config, *overrides, *["--resume"][:resume], *["--force"][:force]]),
        ConsoleReporter(errors if as_json else console, settings.logging_steps) as reporter,
    ):
        run = run_training(settings, reporter, resumed, force)
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
@click.option("--hf", "formats", flag_value="hf", multiple=True, help="A Hugging Face folder, the adapter fused in.")
@click.option("--mlx", "formats", flag_value="mlx", multiple=True, help="The same for mlx-lm.")
@click.option("--peft", "formats", flag_value="peft", multiple=True, help="A LoRA adapter for PEFT, in PyTorch.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to; RUN/hf, RUN/mlx or RUN/peft by default.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="As trained by default.")
@click.option("--bits", type=click.Choice([4, 8]), help="Quantize, with --mlx.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Load it again and compare logits.")
@click.option("--push", metavar="USER/NAME", help="Upload it to the Hugging Face Hub; `hf auth login` first.")
@click.option("--private", is_flag=True, help="With --push: a repository that others can't see.")
@click.option("--dry-run", is_flag=True, help="With --push: export, list what would be uploaded, upload nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the export's folder, files and verification as JSON.")
def export(
    run: str | None,
    formats: tuple[str, ...],
    out: Path | None,
    push: str | None,
    private: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Export a run for use elsewhere, and check that the export computes what was trained.

    RUN is its folder; the latest by default. Its adapter/ is in mlx-lm's own format and needs no export.

    \b
    mlx-grpo export --hf
    mlx-grpo export --hf runs/latest --out my-model --dtype bfloat16
    mlx-grpo export --hf --push USER/NAME --private --dry-run
    mlx-grpo export --mlx --bits 4
    mlx-grpo export --peft
    """
    from mlx_grpo import hub

    hub.check_options(formats, push, private, dry_run)
    from mlx_grpo.exporting import describe, export_run

    folder, summary = export_run(run, formats, out, repo=push, **options)
    if push and "training_curves.png" not in summary.files:
        _tell("note: this run has not been evaluated, so its card shows no results; `mlx-grpo eval` measures them")
    sent = hub.push(folder, list(summary.files), push, private, _tell) if push and not dry_run else None
    if as_json:
        pushed = {"url": sent.url, "commit": sent.commit} if sent else {}
        click.echo(json_module.dumps({"folder": str(folder)} | asdict(summary) | pushed))
        return
    lines = describe(folder, summary)
    if dry_run:
        lines += [f"{push} would hold:", *(f"{count:>14,}  {name}" for name, count in summary.files.items())]
    elif sent:
        lines.append(f"{sent.url}  ({len(summary.files)} files)")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _tell(line: str) -> None:
    errors.print(line, highlight=False, markup=False, soft_wrap=True)


@main.command("eval")
@click.argument("run", required=False)
@click.argument("others", nargs=-1)
@click.option("--backend", type=click.Choice(["torch", "mlx"]), default="torch", show_default=True)
@click.option("--device", default="auto", show_default=True, help="For torch: cuda, mps or cpu.")
@click.option("--episodes", type=click.IntRange(min=1), help="Held-out prompts; the config's number by default.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="The config's number by default.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for eval.json and plots; RUN by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def evaluate(run: str | None, others: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Compare a run with its base model on held-out prompts.

    RUN is its folder; the latest by default. OTHERS stand beside it as further rows on the same prompts: other
    seeds, GRPO without a warm start, a run with reward.shuffle.

    \b
    mlx-grpo eval
    mlx-grpo eval runs/latest --backend mlx --episodes 208
    mlx-grpo eval runs/a runs/seed1 runs/seed2 runs/shuffled --out comparison
    """
    from mlx_grpo.compare import compare, print_comparison

    with errors.status("loading", spinner="line") as status:
        results, pictures = compare(
            run,
            others=others,
            **options,
            progress=lambda model, done, total: status.update(f"{model}: {done} of {total} episodes"),
        )
    if as_json:
        click.echo(json_module.dumps({key: value for key, value in results.items() if key != "models"}))
    else:
        print_comparison(console, results, pictures)


@main.command()
@click.argument("run", required=False)
@click.option("--out", type=click.Path(path_type=Path), help="The page's file; RUN/report.html by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the page's path and size as JSON.")
def report(run: str | None, out: Path | None, as_json: bool) -> None:
    """Write a run as one HTML page: curves, samples, and every held-out completion with its claims.

    RUN is its folder; the latest by default.

    \b
    mlx-grpo report
    mlx-grpo report docs/demo --out demo.html
    """
    from mlx_grpo.report import write_report

    written = write_report(run, out)
    if as_json:
        click.echo(json_module.dumps(asdict(written), default=str))
        return
    for problem in written.missing:
        errors.print(f"left out: {problem}", highlight=False, markup=False, soft_wrap=True)
    size = f"{written.size / 2**20:.1f} MB, {written.episodes} held-out episodes"
    console.print(f"{written.path}  ({size})", highlight=False, markup=False, soft_wrap=True)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--rubric", type=click.Choice(["strict", "published"]), default="strict", show_default=True)
@click.option("--data", help="Where rows with a prompt_id find their labels; the dataset of FILE's run by default.")
@click.option("--json", "as_json", is_flag=True, help="Print every mark and finding as JSON.")
def score(file: Path, rubric: str, data: str | None, as_json: bool) -> None:
    """Grade completions by a rubric and say why.

    FILE holds JSON objects, one a line, with `completion`, `decision`, `score` and `context`; or it is a run's
    samples.jsonl or eval.json.

    \b
    mlx-grpo score completions.jsonl
    mlx-grpo score runs/latest/eval.json --rubric published
    """
    from mlx_grpo.grading import grade_file, print_grades

    grades = grade_file(file, rubric, data)
    if as_json:
        click.echo(json_module.dumps(asdict(grades)))
    else:
        print_grades(console, grades)


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


@main.command()
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
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def rank(
    model: str, jd: Path, candidates: Path, out: Path, top_k: int | None, as_json: bool, **options: object
) -> None:
    """Rank a pool of candidates for a job, with reasons and whether each is grounded.

    Interrupted, the same command goes on where it was; NAME.scores.jsonl keeps what is done.

    \b
    mlx-grpo rank --model runs/latest --jd job.txt --candidates pool.jsonl --out ranked.csv
    """
    from mlx_grpo.progress import CountReporter
    from mlx_grpo.ranking.ranker import Ranker
    from mlx_grpo.ranking.summary import print_ranking

    with CountReporter(errors, "ranking") as bar:
        summary = Ranker(model, **options).rank(jd, candidates, out, top_k=top_k, progress=bar.update)
    if as_json:
        click.echo(json_module.dumps(asdict(summary), default=str))
    else:
        print_ranking(console, summary)


@main.command("doctor")
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
