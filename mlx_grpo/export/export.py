"""A run's adapter as a folder for Hugging Face, MLX, PEFT or GGUF, with its model card and pictures.

Nothing else writes a card.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from convert.hf import MARKER, ExportSummary, export_hf
from convert.peft import export_peft
from convert.to_gguf import Quant, export_gguf
from mlx_grpo.errors import UserError
from mlx_grpo.export.modelfile import modelfile_lines
from mlx_grpo.json_files import read_json
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.policy import ADAPTER_WEIGHTS, find_model, load_tokenizer_of, model_name, trained_dtype
from mlx_grpo.reporting.card import model_card
from mlx_grpo.runs import ADAPTER, Run


def export_run(
    name: str | None,
    formats: Sequence[str],
    out: Path | None = None,
    *,
    dtype: str | None = None,
    bits: int | None = None,
    quant: Quant | None = None,
    verify: bool = True,
    repo: str | None = None,
) -> tuple[Path, ExportSummary]:
    """Write a run's adapter as `out` (RUN/hf, /mlx, /peft or /gguf by default), fused into its base but for PEFT.

    `repo` is its name on the Hub, for its card. Raises UserError for options that exclude each other, where there is
    no such run or it has no adapter yet, and where the export, loaded again, differs from the policy.
    """
    check_formats(formats, dtype, bits, quant)
    run = Run.find(name)
    config, adapter = run.config, run.adapter()
    folder = out or run.folder / formats[0]
    base = find_model(config.model)
    if formats[0] == "peft":
        return folder, export_peft(base, folder, adapter=adapter, base_name=model_name(config.model), verify=verify)
    if formats[0] == "gguf":
        return folder, _export_gguf(run, base, folder, quant or "F16", verify)
    summary = export_hf(
        base,
        folder,
        adapter=adapter,
        dtype=dtype or trained_dtype(config.fine_tune_type, config.dtype),
        bits=bits,
        card=model_card(run, base, repo, "mlx" if formats[0] == "mlx" else "transformers"),
        extra_files=_beside_card(run, base),
        stop_ids=load_tokenizer_of(base).eos_token_ids,
        verify=verify,
    )
    return folder, summary


def _export_gguf(run: Run, base: Path, folder: Path, quant: Quant, verify: bool) -> ExportSummary:
    tokenizer = load_tokenizer_of(base)
    modelfile = modelfile_lines(tokenizer, run.config.data.enable_thinking, run.today)
    stops = tokenizer.eos_token_ids
    return export_gguf(
        base, folder, adapter=run.adapter(), quant=quant, modelfile=modelfile, stop_ids=stops, verify=verify
    )


def check_formats(formats: Sequence[str], dtype: str | None, bits: int | None, quant: Quant | None = None) -> None:
    """Raise UserError unless one format is named, and the options belong to it."""
    problems = []
    if len(formats) != 1:
        problems.append(
            "export: name one format: --hf (Hugging Face), --mlx, --peft (an adapter for PyTorch), --gguf, --space"
        )
    if quant is not None and "gguf" not in formats:
        problems.append(f"--quant {quant}: belongs to --gguf; --mlx takes --bits")
    if bits is not None and "mlx" not in formats:
        problems.append(f"--bits {bits}: belongs to --mlx; the other formats are not quantized")
    if dtype is not None and "gguf" in formats:
        problems.append(f"--dtype {dtype}: belongs to --hf and --mlx; --gguf takes --quant F16 or Q8_0")
    elif dtype is not None and "peft" in formats:
        problems.append(f"--dtype {dtype}: belongs to --hf and --mlx; an adapter keeps the fp32 it was trained in")
    elif dtype is not None and "space" in formats:
        problems.append(f"--dtype {dtype}: belongs to --hf and --mlx; a Space asks the export as it is")
    if problems:
        raise UserError(*problems)


def exported_model(run: Run, base: Path, adapter: Path | None, dtype: str) -> Path:
    """Return the Hugging Face folder of a run's base or of one of its adapters in `dtype`, made now if need be.

    A base in plain weights is such a folder; PyTorch can't read MLX's packed ones. A folder made here has no card and
    was not checked: `export_run` does both.
    """
    if adapter is None and not ModelFolder.read(base).is_packed:
        return base
    name = "base" if adapter is None else adapter.name
    folder = run.folder / ("hf" if name == ADAPTER else f"hf-{name}")
    source = base / "config.json" if adapter is None else adapter / ADAPTER_WEIGHTS
    if _exported_dtype(folder) not in (None, dtype):  # the user's own export in another dtype stays
        folder = folder.with_name(f"{folder.name}-{dtype}")
    if _exported_dtype(folder) != dtype or not _is_newer(folder / MARKER, source):
        export_hf(base, folder, adapter=adapter, dtype=dtype)
    return folder


def write_card(run: Run) -> Path | None:
    """Write the model card of RUN/hf again, with its pictures and licences, and return its path.

    Return None, and write nothing, where RUN/hf is no export of the adapter as it is now.
    """
    folder = run.folder / "hf"
    if _exported_dtype(folder) is None or not _is_newer(folder / MARKER, run.adapter() / ADAPTER_WEIGHTS):
        return None
    base = find_model(run.config.model)
    card = folder / "README.md"
    card.write_text(model_card(run, base), encoding="utf-8")
    for file in _beside_card(run, base):
        shutil.copyfile(file, folder / file.name)
    return card


def _beside_card(run: Run, base: Path) -> list[Path]:
    """Return the files that belong to a card: the pictures of an evaluation, if there was one, and the licences."""
    return [*sorted((run.folder / "plots").glob("*.png")), *sorted(base.glob("LICENSE*"))]


def _exported_dtype(folder: Path) -> str | None:
    """Return the dtype of an export of ours; None where there is none."""
    marker = folder / MARKER
    return read_json(marker)["dtype"] if marker.is_file() else None


def _is_newer(marker: Path, source: Path) -> bool:
    """Return True if an export was made after its source, or at the same time."""
    return marker.stat().st_mtime >= source.stat().st_mtime
