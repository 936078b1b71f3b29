"""A base model's folder in the Hugging Face format, with its config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpo.data.types import LengthLimit
from mlx_grpo.errors import UserError
from mlx_grpo.models.checks import read_settings

WINDOWED = {
    "gemma2": 4096,
    "ministral3": None,
    "mistral": 4096,
    "mixtral": None,
    "phi3": None,
    "phimoe": None,
    "starcoder2": None,
}
"""Families with a sliding window in all or half of their layers in transformers, and its default; none in mlx-lm."""
WINDOWED_ON_REQUEST = {"qwen2": 4096, "qwen2_moe": 4096, "qwen3": 4096, "qwen3_moe": 4096, "smollm3": None}
"""Families that have one where config.json sets `use_sliding_window`, and its default. mlx-lm gives them none."""
FULL_LAYERS = {"qwen2": 28, "qwen3": 28}
"""How many first layers of such a family have no window, where config.json has no `max_window_layers`."""


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
    def text_settings(self) -> dict[str, Any]:
        """Return the settings of the text model, which a model of texts and images keeps in an object of their own."""
        text = self.settings.get("text_config")
        return text if isinstance(text, dict) else self.settings

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

    def check_quantization(self) -> None:
        """Raise UserError if the weights are packed in another way than MLX's: no export of a trained one is right."""
        places = [self.settings, self.text_settings]
        stated = next((place["quantization_config"] for place in places if place.get("quantization_config")), None)
        if self.is_packed or not (stated or (self.path / "hf_quant_config.json").is_file()):
            return
        method = stated.get("quant_method", "another library") if isinstance(stated, dict) else "ModelOpt"
        raise UserError(
            f"model: {self.config_file}: its weights are quantized by {method} (quantization_config), which can be "
            "neither trained nor exported; use the model that it was quantized from, or an MLX quantization of that"
        )

    @property
    def length_limit(self) -> LengthLimit:
        """Return the most tokens up to which mlx-lm computes what the model was trained for."""
        context, window = self.text_settings.get("max_position_embeddings"), self._ignored_window
        if window and (not context or window < context):
            return LengthLimit(window, "sliding window", ", which mlx-lm does not apply")
        return LengthLimit(context)

    @property
    def _ignored_window(self) -> int | None:
        """Return the sliding window that transformers applies and mlx-lm does not; None if there is none."""
        family, settings = self.settings["model_type"], self.text_settings
        if family in WINDOWED:
            return settings.get("sliding_window", WINDOWED[family])
        if family not in WINDOWED_ON_REQUEST or not settings.get("use_sliding_window"):
            return None
        layers = settings.get("layer_types")
        if layers is None and family in FULL_LAYERS:
            slides = settings.get("max_window_layers", FULL_LAYERS[family]) < settings.get("num_hidden_layers", 0)
        else:
            slides = layers is None or "sliding_attention" in layers
        return settings.get("sliding_window", WINDOWED_ON_REQUEST[family]) if slides else None

    @property
    def stored_weight_bytes(self) -> int:
        """Return the size of a stored weight by `torch_dtype`; 2 if config.json names none."""
        return 4 if self.settings.get("torch_dtype") == "float32" else 2
