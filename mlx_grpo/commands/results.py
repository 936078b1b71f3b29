"""What is made of a run: `export`, `eval`, `score`, `report`."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mlx_grpo.commands.terminal import GOES_ON, console, errors, show, spelled, tell


@click.command()
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
    from mlx_grpo.models import hub

    hub.check_options(formats, push, private, dry_run)
    from mlx_grpo.export.export import describe, export_run

    folder, summary = export_run(run, formats, out, repo=push, **options)
    if push and "training_curves.png" not in summary.files:
        tell("note: this run has not been evaluated, so its card shows no results; `mlx-grpo eval` measures them")
    sent = hub.push(folder, list(summary.files), push, private, tell) if push and not dry_run else None
    if as_json:
        pushed = {"url": sent.url, "commit": sent.commit} if sent else {}
        click.echo(json_module.dumps({"folder": str(folder)} | asdict(summary) | pushed))
        return
    lines = describe(folder, summary)
    if dry_run:
        lines += [f"{push} would hold:", *(f"{count:>14,}  {name}" for name, count in summary.files.items())]
    elif sent:
        lines.append(f"{sent.url}  ({len(summary.files)} files)")
    show(lines)


@click.command("eval")
@click.argument("run", required=False)
@click.argument("others", nargs=-1)
@click.option("--backend", type=click.Choice(["torch", "mlx"]), default="torch", show_default=True)
@click.option("--device", default="auto", show_default=True, help="For torch: cuda, mps or cpu.")
@click.option("--episodes", type=click.IntRange(min=1), help="Held-out prompts; the config's number by default.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="The config's number by default.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for eval.json and plots; RUN by default.")
@click.option("--processes", type=click.IntRange(min=1), default=1, help="For CPUs, with --backend mlx: so many.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def evaluate(run: str | None, others: tuple[str, ...], processes: int, as_json: bool, **options: Any) -> None:
    """Compare a run with its base model on held-out prompts.

    RUN is its folder; the latest by default. OTHERS stand beside it as further rows on the same prompts: other
    seeds, GRPO without a warm start, a run with reward.shuffle.

    \b
    mlx-grpo eval
    mlx-grpo eval runs/latest --backend mlx --episodes 208
    mlx-grpo eval runs/a runs/seed1 runs/seed2 runs/shuffled --out comparison
    """
    from mlx_grpo.distributed import launch
    from mlx_grpo.evaluation.eval import compare, print_comparison

    names = [run, *others] if run else []
    with (
        launch.processes(processes, ["eval", *spelled(options), "--", *names], GOES_ON) as ranks,
        errors.status("loading", spinner="line") as status,
    ):
        results, pictures = compare(
            run,
            others=others,
            **options,
            progress=lambda model, done, total: status.update(f"{model}: {done} of {total} episodes"),
            ranks=ranks,
        )
    if not ranks.leads:
        return
    if options["episodes"] and results["n_episodes"] < options["episodes"]:
        errors.print(f"{results['n_episodes']} held-out prompts are left to evaluate on, not {options['episodes']}")
    if as_json:
        click.echo(json_module.dumps({key: value for key, value in results.items() if key != "models"}))
    else:
        print_comparison(console, results, pictures)


@click.command()
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
    from mlx_grpo.evaluation.score import grade_file, print_grades

    grades = grade_file(file, rubric, data)
    if as_json:
        click.echo(json_module.dumps(asdict(grades)))
    else:
        print_grades(console, grades)


@click.command()
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
    from mlx_grpo.reporting.report import write_report

    written = write_report(run, out)
    if as_json:
        click.echo(json_module.dumps(asdict(written), default=str))
        return
    tell(*(f"left out: {problem}" for problem in written.missing))
    size = f"{written.size / 2**20:.1f} MB, {written.episodes} held-out episodes"
    show([f"{written.path}  ({size})"])
