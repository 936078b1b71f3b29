"""The tokens that end a completion: one set for training, evaluation in MLX and in PyTorch, and ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_grpo.data.chat import turn_end
from mlx_grpo.errors import UserError, short_repr
from mlx_grpo.models.checks import read_object
from mlx_grpo.models.folder import ModelFolder

GENERATION = "generation_config.json"


def stop_tokens(folder: ModelFolder, tokenizer: TokenizerWrapper) -> set[int]:
    """Return the ids of all tokens that a model's files, its tokenizer or its chat template end a completion with.

    `tokenizer` comes from mlx-lm, whose loaders take generation_config.json or config.json; here both count. Raises
    UserError where one of them names no token ids.
    """
    file = folder.path / GENERATION
    generation = read_object(file) if file.is_file() else {}
    named = [(folder.config_file, folder.settings), (folder.config_file, folder.text_settings), (file, generation)]
    stops = {token_id for path, settings in named for token_id in _ids(path, settings.get("eos_token_id"))}
    end = turn_end(tokenizer)
    return stops | tokenizer.eos_token_ids | ({end} if end is not None else set())


def _ids(file: Path, value: Any) -> list[int]:
    """Return the token ids that a file gives as a number, a list or nothing."""
    ids = value if isinstance(value, list) else [value] if value is not None else []
    if not all(type(token_id) is int for token_id in ids):
        raise UserError(f"model: {file}: eos_token_id is {short_repr(value)}; give a token's number, or several")
    return ids
