"""Fixtures: tiny random models, and a whole toy run to compare with."""

from __future__ import annotations

from pathlib import Path

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import pytest
from support.tiny_models import LLAMA, QWEN3, make_model_folder


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer Qwen3 (tied head, q/k norm) and a byte-level tokenizer."""
    return make_model_folder(tmp_path_factory.mktemp("models") / "tiny-qwen3", QWEN3)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in Llama's architecture, with a head of its own."""
    return make_model_folder(tmp_path_factory.mktemp("models") / "tiny-llama", LLAMA)


# These need PyTorch, which only the tests that take them ask for.


@pytest.fixture(scope="session")
def llama_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama as the converters' tests write it."""
    from support.convert_cases import make_base

    return make_base(tmp_path_factory.mktemp("base") / "llama", "llama")


@pytest.fixture(scope="session")
def llama_lora(llama_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA adapter of it."""
    from support.convert_cases import make_lora

    return make_lora(llama_base, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="session")
def torch_llama():
    """A random Llama in PyTorch."""
    from support.gguf_cases import random_model

    return random_model()


@pytest.fixture
def tiny_gguf(tmp_path: Path, torch_llama) -> Path:
    """The same as a GGUF file."""
    from support.gguf_cases import tensors_of, write_gguf

    return write_gguf(tmp_path / "tiny.gguf", tensors_of(torch_llama))


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def uninterrupted(
    tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], dict[str, int]]:
    """What a whole toy run leaves, and how many calls each module made in it."""
    from support.toy_run import run_whole

    return run_whole(tmp_path_factory.mktemp("uninterrupted"), tiny_qwen3)
