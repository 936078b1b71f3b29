"""YAML of a user's hand: plain values by `safe_load`, every mistake told with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mlx_grpo.errors import UserError

MAX_BYTES, MAX_DEPTH = 1 << 20, 50
OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def read_yaml(path: Path) -> Any:
    """The value that a YAML file holds; raises UserError where it can't be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(
                f"{path}: holds {path.stat().st_size} bytes; a config has at most {MAX_BYTES}, so correct it"
            )
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as a UTF-8 text file") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text without aliases: ten lines of them can stand for gigabytes."""
    try:
        _refuse_bombs(text, where)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2024-99-99, or an integer of 5000 digits
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: not readable as YAML ({reason[:300]}); correct it, or quote the value") from None


def _refuse_bombs(text: str, where: str) -> None:
    depth = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        line = token.start_mark.line + 1
        if isinstance(token, yaml.AliasToken):
            raise UserError(f"{where}, line {line}: alias *{token.value[:40]}: not read here; write the value out")
        depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
        if depth > MAX_DEPTH:
            raise UserError(f"{where}, line {line}: nested too deeply to be a config; flatten it")
