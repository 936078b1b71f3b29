"""A run's adapter as a Hugging Face folder with its model card and pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from convert.hf import ExportSummary, export_hf
from mlx_grpo.card import model_card
from mlx_grpo.errors import UserError
from mlx_grpo.policy import ADAPTER_WEIGHTS, compute_dtype, find_model, stores_packed
from mlx_grpo.runs import ADAPTER, find_run, read_config

MARKER = "export.json"


def export_run(name: str | None, out: Path | None, dtype: str | None) -> tuple[Path, ExportSummary]:
    """Fuse a run's adapter into its base model, as `out` (RUN/hf by default), in the dtype it was trained in.

    Raises UserError where there is no such run, or it has no adapter yet.
    """
    run = find_run(name)
    config = read_config(run)
    if not (run / ADAPTER / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{run}: has no {ADAPTER} yet; let `mlx-grpo train` finish first")
    folder = out or run / "hf"
    summary = export_hf(
        find_model(config.model),
        folder,
        adapter=run / ADAPTER,
        dtype=dtype or trained_dtype(config.fine_tune_type, config.dtype),
        card=model_card(run),
        extra_files=pictures(run),
    )
    return folder, summary


def exported_model(run: Path, base: Path, adapter: Path | None, dtype: str) -> Path:
    """The Hugging Face folder of a run's base or one of its adapters in `dtype`, made now unless it is up to date.

    A base in plain weights is one already; PyTorch cannot read MLX's packed ones.
    """
    if adapter is None and not stores_packed(base):
        return base
    name = "base" if adapter is None else adapter.name
    folder = run / ("hf" if name == ADAPTER else f"hf-{name}")
    marker, source = folder / MARKER, base / "config.json" if adapter is None else adapter / ADAPTER_WEIGHTS
    fresh = marker.is_file() and marker.stat().st_mtime >= source.stat().st_mtime
    if not fresh or json.loads(marker.read_text(encoding="utf-8"))["dtype"] != dtype:
        export_hf(base, folder, adapter=adapter, dtype=dtype, card=model_card(run) if name == ADAPTER else None)
    return folder


def refresh_card(run: Path) -> None:
    """Bring the card and pictures of a run's export up to its latest evaluation."""
    if (run / "hf" / MARKER).is_file():
        (run / "hf" / "README.md").write_text(model_card(run), encoding="utf-8")
        for picture in pictures(run):
            shutil.copyfile(picture, run / "hf" / picture.name)


def pictures(run: Path) -> list[Path]:
    """What `mlx-grpo eval` drew, if it has."""
    return sorted((run / "plots").glob("*.png"))


def trained_dtype(fine_tune_type: str, dtype: str) -> str:
    """The dtype that a run computed in, as a config names it."""
    return "float32" if fine_tune_type == "full" else str(compute_dtype(dtype)).rpartition(".")[2]
