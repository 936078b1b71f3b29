"""Checks of a model's folder before mlx-lm and transformers read it: it may hold weights, never code to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx.core as mx
from huggingface_hub.errors import StrictDataclassError
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import MODEL_REMAPPING

from mlx_grpo.errors import UserError, short_repr
from mlx_grpo.json_files import read_json

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
SUPPORTED = "use a Qwen, Llama, Mistral, Phi-3, Gemma, Granite or LFM2 model"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.npz")
# Raised by mlx-lm, transformers and MLX for a file whose content they do not expect.
FAULTS = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a model folder's config.json; raise UserError if it names no architecture, or code of its own."""
    file = path / "config.json"
    settings = read_object(file)
    if not isinstance(settings.get("model_type"), str):
        raise UserError(
            f"model: {file}: model_type is {short_repr(settings.get('model_type'))}; it must name an architecture, "
            'such as "qwen3"'
        )
    if settings.get("model_file") is not None:
        raise UserError(
            f"model: {file}: model_file is {short_repr(settings['model_file'])}: a model's own code is never run; "
            "remove the key, or take a model that mlx-lm knows"
        )
    return settings


def check_family(settings: dict[str, Any], file: Path) -> None:
    """Raise UserError if mlx-lm has no model of the family that config.json (`file`) names."""
    family = MODEL_REMAPPING.get(settings["model_type"], settings["model_type"])
    if not re.fullmatch(r"[\w-]+", family) or find_spec(f"mlx_lm.models.{family}") is None:
        raise UserError(f"model: {file}: mlx-lm has no model of the type {short_repr(family)}; {SUPPORTED}")


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in one of a model's files; raise UserError if it holds anything else."""
    try:
        return read_json(path)
    except UserError as error:
        raise UserError(f"model: {error}; fetch the folder again") from None


def check_weights(path: Path) -> None:
    """Raise UserError if the folder has no readable safetensors; other formats may run code when they are read."""
    for file in sorted(path.glob("model*.safetensors")):
        with faults_as_user_error(f"model: {file}", "fetch it again"):
            mx.load(str(file))  # reads the header only; arrays are read when they are used
    if any(path.glob("model*.safetensors")):
        return
    others = sorted(file.name for kind in PICKLES for file in path.glob(kind))
    only = f", only {', '.join(others[:3])}, which may run code when it is read" if others else ""
    raise UserError(
        f"model: {path} can't be loaded: it has no model*.safetensors{only}; give a folder with safetensors weights"
    )


def check_tokenizer_files(path: Path) -> None:
    """Raise UserError if the tokenizer is absent (transformers would make an empty one) or not JSON."""
    if not any((path / name).is_file() for name in TOKENIZERS):
        raise UserError(f"model: {path} has no tokenizer ({', '.join(TOKENIZERS)}); fetch the folder again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (path / name).exists():
            read_object(path / name)


def check_tokenizer(path: Path, tokenizer: TokenizerWrapper, settings: dict[str, Any]) -> None:
    """Raise UserError if no token ends a completion, or if a token lies beyond the model's vocabulary."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"model: {path}: its tokenizer names no eos_token, so completions would never end; "
            "add it to tokenizer_config.json"
        )
    # Gemma 3 adds a token beyond its vocabulary and never writes it; the tokens of a text must all be inside.
    text_ids = set(tokenizer.get_vocab().values()) - set(tokenizer.added_tokens_decoder)
    largest, size = max({*text_ids, *tokenizer.eos_token_ids}), settings.get("vocab_size")
    if isinstance(size, int) and largest >= size:
        raise UserError(
            f"model: {path}: its tokenizer has token {largest}, its config.json a vocab_size of {size}; "
            "give the tokenizer that the model was trained with"
        )


@contextmanager
def faults_as_user_error(what: str, remedy: str) -> Iterator[None]:
    """Turn the errors of a library that reads foreign files into a UserError about `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # For a broken file, tokenizers raises Exception itself.
        if not (isinstance(error, (*FAULTS, StrictDataclassError)) or type(error) is Exception):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{what} can't be loaded: {reason[:300]}; {remedy}") from error
