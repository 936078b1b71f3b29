"""A run's adapter as a Hugging Face folder with its model card and pictures."""

from __future__ import annotations

from pathlib import Path

from convert.hf import ExportSummary, export_hf
from mlx_grpo.card import model_card
from mlx_grpo.data import dataset_files, read_rows
from mlx_grpo.errors import UserError
from mlx_grpo.policy import ADAPTER_WEIGHTS, compute_dtype, find_model
from mlx_grpo.runs import ADAPTER, find_run, read_config


def export_run(name: str | None, out: Path | None, dtype: str | None) -> tuple[Path, ExportSummary]:
    """Fuse a run's adapter into its base model, as `out` (RUN/hf by default), in the dtype it was trained in.

    Raises UserError where there is no such run, or it has no adapter yet.
    """
    run = find_run(name)
    config = read_config(run)
    if not (run / ADAPTER / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{run}: has no {ADAPTER} yet; let `mlx-grpo train` finish first")
    example = read_rows(dataset_files(config.data)[0])[0]["prompt"]
    if isinstance(example, str):
        example = [{"role": "user", "content": example}]
    folder = out or run / "hf"
    summary = export_hf(
        find_model(config.model),
        folder,
        adapter=run / ADAPTER,
        dtype=dtype or trained_dtype(config.fine_tune_type, config.dtype),
        card=model_card(run, example),
        extra_files=sorted((run / "plots").glob("*.png")),
    )
    return folder, summary


def trained_dtype(fine_tune_type: str, dtype: str) -> str:
    """The dtype that a run computed in, as a config names it."""
    return "float32" if fine_tune_type == "full" else str(compute_dtype(dtype)).rpartition(".")[2]


def exported_adapter(run: Path, base: Path, adapter: Path, dtype: str) -> Path:
    """The Hugging Face folder of one of a run's adapters, made now unless it is newer than the adapter."""
    folder = run / ("hf" if adapter.name == ADAPTER else f"hf-{adapter.name}")
    weights = adapter / ADAPTER_WEIGHTS
    marker = folder / "export.json"
    if not marker.is_file() or marker.stat().st_mtime < weights.stat().st_mtime:
        export_hf(base, folder, adapter=adapter, dtype=dtype)
    return folder
