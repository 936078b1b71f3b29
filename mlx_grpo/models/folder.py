"""A base model's folder in the Hugging Face format, with its config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpo.models.checks import read_settings


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """Where a base model lies and what its config.json holds; read once, then passed on."""

    path: Path
    settings: dict[str, Any]
    """The object in config.json."""

    @classmethod
    def read(cls, path: Path) -> ModelFolder:
        """Read a folder's config.json; raise UserError if it names no architecture, or code of its own."""
        return cls(path, read_settings(path))

    @property
    def config_file(self) -> Path:
        """Return the path of config.json."""
        return self.path / "config.json"

    @property
    def quantization(self) -> dict[str, Any] | None:
        """Return the group size and bits of packed weights, None if the weights are plain."""
        return self.settings.get("quantization")

    @property
    def is_packed(self) -> bool:
        """Return True if the weights are packed integers, as in mlx-community's 4- and 8-bit checkpoints."""
        return self.quantization is not None

    @property
    def stored_weight_bytes(self) -> int:
        """Return the size of a stored weight by `torch_dtype`; 2 if config.json names none."""
        return 4 if self.settings.get("torch_dtype") == "float32" else 2
