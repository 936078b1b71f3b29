"""What of a Hub repository is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects

from mlx_grpo.models import hub
from mlx_grpo.models.policy import find_model

MISTRAL = (
    "README.md",
    "LICENSE.txt",
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
)
DOUBLES = (
    "consolidated.safetensors",
    "consolidated.00.pth",
    "original/consolidated.00.pth",
    "original/params.json",
    "original/model.safetensors",
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "model.fp16.safetensors",
    "model.fp16-00001-of-00002.safetensors",
    "tf_model.h5",
    "flax_model.msgpack",
    "adapter_model.safetensors",
    "onnx/model.onnx",
    "onnx/config.json",
    "model-q4.gguf",
)


@pytest.mark.parametrize("files", [MISTRAL, ("config.json", "model.safetensors", "tokenizer.json")])
def test_weights_of_a_repository_are_fetched_once(
    files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    fetched: list[str] = []

    def snapshot(model: str, *, local_files_only: bool, **patterns: list[str]) -> str:
        fetched.extend(filter_repo_objects([*files, *DOUBLES], **patterns))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr(HfApi, "model_info", lambda *arguments, **options: None)
    find_model(f"someone/{len(files)}-files")
    assert fetched == list(files)
