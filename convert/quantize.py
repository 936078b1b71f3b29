"""Quantization as mlx-lm does it, without its printed lines."""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mlx_grpo.backend.openblas  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.nn as nn
from mlx_lm.utils import load_model, quantize_model, save_config, save_model


def quantize(model: nn.Module, bits: int, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """Quantize `model` in place in groups of 64; return `config` with the settings that mlx-lm reads.

    Layers whose width 64 does not divide stay as they are.
    """
    with redirect_stdout(io.StringIO()):
        return quantize_model(model, config or {}, group_size=64, bits=bits)[1]


def quantize_folder(folder: Path, bits: int) -> None:
    """Replace a model folder's weights and config.json by quantized ones, an array at a time."""
    model, config = load_model(folder, lazy=True)
    config = quantize(model, bits, config)
    quantized = folder / "quantized"
    save_model(quantized, model)
    save_config(config, quantized / "config.json")
    for plain in [*folder.glob("model*.safetensors"), *folder.glob("model*.index.json")]:
        plain.unlink()
    for file in list(quantized.iterdir()):
        file.replace(folder / file.name)
    shutil.rmtree(quantized)
