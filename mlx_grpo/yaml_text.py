"""YAML of a user's hand: plain values by `safe_load`, every mistake told with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mlx_grpo.errors import UserError


def read_yaml(path: Path) -> Any:
    """The value that a YAML file holds; raises UserError where it can't be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as a UTF-8 text file") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text without aliases: ten lines of them can stand for gigabytes."""
    try:
        alias = next((token for token in yaml.scan(text, yaml.SafeLoader) if isinstance(token, yaml.AliasToken)), None)
        if alias is not None:
            line = alias.start_mark.line + 1
            raise UserError(f"{where}, line {line}: alias *{alias.value[:40]}: not read here; write the value out")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2024-99-99, or an integer of 5000 digits
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: not readable as YAML ({reason[:300]}); correct it, or quote the value") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply to be a config; flatten it") from None
