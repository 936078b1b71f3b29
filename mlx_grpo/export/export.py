"""A run's adapter as a folder for Hugging Face, MLX or PEFT, with its model card and pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from convert.hf import MARKER, ExportSummary, export_hf
from convert.peft import export_peft
from mlx_grpo.errors import UserError
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.policy import ADAPTER_WEIGHTS, find_model, model_name, trained_dtype
from mlx_grpo.reporting.card import model_card
from mlx_grpo.runs import ADAPTER, Run


def export_run(
    name: str | None,
    formats: Sequence[str],
    out: Path | None = None,
    *,
    dtype: str | None = None,
    bits: int | None = None,
    verify: bool = True,
    repo: str | None = None,
) -> tuple[Path, ExportSummary]:
    """Write a run's adapter as `out` (RUN/hf, RUN/mlx or RUN/peft by default), fused into its base but for PEFT.

    `repo` is where it will live on the Hub, for its card. Raises UserError for options that exclude each other, where
    there is no such run or it has no adapter yet, and where the export, loaded again, does not compute what the
    policy does.
    """
    _check_options(formats, dtype, bits)
    run = Run.find(name)
    config, adapter = run.config, run.adapter()
    folder = out or run.folder / formats[0]
    base = find_model(config.model)
    if formats[0] == "peft":
        return folder, export_peft(base, folder, adapter=adapter, base_name=model_name(config.model), verify=verify)
    summary = export_hf(
        base,
        folder,
        adapter=adapter,
        dtype=dtype or trained_dtype(config.fine_tune_type, config.dtype),
        bits=bits,
        card=model_card(run, base, repo),
        extra_files=[*pictures(run), *sorted(base.glob("LICENSE*"))],
        verify=verify,
    )
    return folder, summary


def _check_options(formats: Sequence[str], dtype: str | None, bits: int | None) -> None:
    problems = []
    if len(formats) != 1:
        problems.append("export: name one format: --hf (Hugging Face), --mlx or --peft (an adapter for PyTorch)")
    if bits is not None and "mlx" not in formats:
        problems.append(f"--bits {bits}: belongs to --mlx; the other formats are not quantized")
    if dtype is not None and "peft" in formats:
        problems.append(f"--dtype {dtype}: belongs to --hf and --mlx; an adapter keeps the fp32 it was trained in")
    if problems:
        raise UserError(*problems)


def exported_model(run: Run, base: Path, adapter: Path | None, dtype: str) -> Path:
    """The Hugging Face folder of a run's base or one of its adapters in `dtype`, made now unless it is up to date.

    A base in plain weights is one already; PyTorch cannot read MLX's packed ones.
    """
    if adapter is None and not ModelFolder.read(base).is_packed:
        return base
    name = "base" if adapter is None else adapter.name
    folder = run.folder / ("hf" if name == ADAPTER else f"hf-{name}")
    source = base / "config.json" if adapter is None else adapter / ADAPTER_WEIGHTS
    if _exported_as(folder) not in (None, dtype):  # the user's own export in another dtype stays
        folder = folder.with_name(f"{folder.name}-{dtype}")
    fresh = _exported_as(folder) == dtype and (folder / MARKER).stat().st_mtime >= source.stat().st_mtime
    if not fresh:
        card = model_card(run, base) if name == ADAPTER else None
        papers = sorted(base.glob("LICENSE*")) if name == ADAPTER else ()
        export_hf(base, folder, adapter=adapter, dtype=dtype, card=card, extra_files=papers)
    return folder


def _exported_as(folder: Path) -> str | None:
    """The dtype of an export of ours; None where there is none."""
    marker = folder / MARKER
    return json.loads(marker.read_text(encoding="utf-8"))["dtype"] if marker.is_file() else None


def refresh_card(run: Run) -> None:
    """Bring the card and pictures of a run's export up to its latest evaluation."""
    if (run.folder / "hf" / MARKER).is_file():
        card = model_card(run, find_model(run.config.model))
        (run.folder / "hf" / "README.md").write_text(card, encoding="utf-8")
        for picture in pictures(run):
            shutil.copyfile(picture, run.folder / "hf" / picture.name)


def pictures(run: Run) -> list[Path]:
    """What `mlx-grpo eval` drew, if it has."""
    return sorted((run.folder / "plots").glob("*.png"))
