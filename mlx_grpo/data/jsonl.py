"""Records as lines of JSON, as runs and evaluations write them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlx_grpo.errors import UserError

Record = dict[str, Any]


def append_jsonl(path: Path, *records: Mapping[str, Any]) -> None:
    """Add records to a JSONL file, one a line; NaN and infinity become null."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(_lines(records))


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as a JSONL file, one a line; NaN and infinity become null."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(_lines(records))


def read_jsonl(path: Path) -> list[Record]:
    """Return the records of a JSONL file that a run wrote, none where the file is not there yet.

    Raises UserError where the file, or its folder, can't be read.
    """
    if not path.is_file() and path.parent.is_dir():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give the folder of a whole run") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records += [json.loads(line)] if line else []
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}); remove the line") from None
    return records


def without_nan(value: Any) -> Any:
    """Return plain values with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(records: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    return (json.dumps(without_nan(record), ensure_ascii=False) + "\n" for record in records)
