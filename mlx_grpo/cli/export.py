"""`mlx-grpo export`: write a run as a model folder, and push it to the Hub."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_grpo.backend import DTYPE_NAMES
from mlx_grpo.cli.terminal import show, tell

if TYPE_CHECKING:  # it brings MLX with it, which `mlx-grpo --help` does without
    from huggingface_hub import CommitInfo

    from convert.hf import ExportSummary
    from convert.to_gguf import Quant

REMEDIES = {
    "Q8_0": "export with --quant F16",
    "F16": "export with --hf --dtype float32, or --peft",
    "float16": "export with --dtype float32, or --peft",
}
"""What rounds less, by the type of the stored weights; bfloat16 has that of float16."""


@click.command()
@click.argument("run", required=False)
@click.option("--hf", "formats", flag_value="hf", multiple=True, help="A Hugging Face folder, the adapter fused in.")
@click.option("--mlx", "formats", flag_value="mlx", multiple=True, help="The same for mlx-lm.")
@click.option("--peft", "formats", flag_value="peft", multiple=True, help="A LoRA adapter for PEFT, in PyTorch.")
@click.option("--space", "formats", flag_value="space", multiple=True, help="A Gradio page that asks the --hf export.")
@click.option("--model", metavar="USER/NAME", help="With --space: the model on the Hub, if not named as the Space.")
@click.option("--gguf", "formats", flag_value="gguf", multiple=True, help="A GGUF file for llama.cpp and Ollama.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to; RUN/ and the format's name by default.")
@click.option("--dtype", type=click.Choice(DTYPE_NAMES), help="As trained by default.")
@click.option("--bits", type=click.Choice([4, 8]), help="Quantize, with --mlx.")
@click.option("--quant", type=click.Choice(["F16", "Q8_0"]), help="Of the weights, with --gguf; F16 by default.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Load it again and compare logits.")
@click.option("--push", metavar="USER/NAME", help="Upload it to the Hugging Face Hub; `hf auth login` first.")
@click.option("--private", is_flag=True, help="With --push: a repository that others can't see.")
@click.option("--dry-run", is_flag=True, help="With --push: export, list what would be uploaded, upload nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the export's folder, files and verification as JSON.")
def export(
    run: str | None,
    formats: tuple[str, ...],
    model: str | None,
    out: Path | None,
    push: str | None,
    private: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Export a run for use elsewhere, and check that the export computes what was trained.

    RUN is its folder; the latest by default. Its adapter/ is in mlx-lm's own format and needs no export. The model
    card of --hf and --mlx shows the results of `mlx-grpo eval`, where it has been run.

    \b
    mlx-grpo export --hf
    mlx-grpo export --hf runs/latest --out my-model --dtype bfloat16
    mlx-grpo export --hf --push USER/NAME --private --dry-run
    mlx-grpo export --mlx --bits 4
    mlx-grpo export --peft
    mlx-grpo export --space --push USER/NAME
    mlx-grpo export --gguf --quant Q8_0
    """
    from mlx_grpo.export import push as push_module

    push_module.check_options(formats, push, private, dry_run, model)
    if formats == ("space",):
        return _export_space(run, out, model or push, push, private, dry_run, as_json, **options)
    from mlx_grpo.export.export import export_run

    folder, summary = export_run(run, formats, out, repo=push, **options)
    if push and "training_curves.png" not in summary.files:
        tell("note: this run has not been evaluated, so its card shows no results; `mlx-grpo eval` measures them")
    sent = push_module.push(folder, list(summary.files), push, private, tell) if push and not dry_run else None
    record = {"folder": str(folder)} | asdict(summary)
    _print_export(record, describe(folder, summary), push if dry_run else None, sent, as_json)


def _export_space(
    run: str | None,
    out: Path | None,
    model: str | None,
    repo: str | None,
    private: bool,
    dry_run: bool,
    as_json: bool,
    dtype: str | None,
    bits: int | None,
    quant: Quant | None,
    verify: bool,
) -> None:
    """Write a run's Space, push it if asked to, and print where it is."""
    from mlx_grpo.export import push as push_module
    from mlx_grpo.export.export import check_formats
    from mlx_grpo.export.space import export_space

    check_formats(["space"], dtype, bits, quant)
    folder, files = export_space(run, out, model)
    sent = push_module.push(folder, list(files), repo, private, tell, "space") if repo and not dry_run else None
    lines = [
        f"{folder}  ({len(files)} files)",
        f"pip install 'mlx-grpo[space]', then: python {folder / 'app.py'}",
    ]
    _print_export({"folder": str(folder), "files": files}, lines, repo if dry_run else None, sent, as_json)


def _print_export(
    record: dict[str, Any], lines: list[str], unsent: str | None, sent: CommitInfo | None, as_json: bool
) -> None:
    """Print an export's lines, or its record as JSON, with the repository that would hold it or does."""
    if as_json:
        pushed = {"url": sent.repo_url, "commit": sent.oid} if sent else {}
        click.echo(json_module.dumps(record | pushed))
        return
    files = record["files"]
    if unsent:
        lines += [f"{unsent} would hold:", *(f"{count:>14,}  {name}" for name, count in files.items())]
    elif sent:
        lines.append(f"{sent.repo_url}  ({len(files)} files)")
    show(lines)


def describe(folder: Path, summary: ExportSummary) -> list[str]:
    """Return lines on an export: its folder and size, and its measured distance from the trained policy."""
    kind = f"{summary.bits} bits and {summary.dtype}" if summary.bits else summary.dtype
    lines = [f"{folder}  ({kind}, {_megabytes(sum(summary.files.values()))})"]
    check = summary.verification
    if check is None:
        return [*lines, "not verified"]
    lines += [
        f"verified in {' and '.join(check.checked_in)}, relative to the logits' size:",
        f"  {check.error:.1e} from the trained policy, top token the same at {check.same_top_token:.0%} of positions",
    ]
    if check.adapter_effect is not None and check.kept is not None:
        lines.append(f"  {check.adapter_effect:.1e} is what training changed; the export keeps {check.kept:.0%} of it")
        if check.kept < 0.5 or check.error > check.adapter_effect:
            remedy = "export with more bits" if summary.bits else REMEDIES.get(summary.dtype, REMEDIES["float16"])
            lines.append(f"warning: {kind} changes the model more than training did; {remedy}")
    return lines


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.0f} MB" if size >= 2**20 else f"{size / 2**20:.2f} MB"
