"""JSON and JSON lines in files: one reader and one writer of each."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from mlx_grpo.errors import UserError

Record = dict[str, Any]

UNREADABLE = (OSError, EOFError, zlib.error, UnicodeDecodeError)
"""The errors of reading a file that is absent, damaged, cut off or not UTF-8."""


class JsonLine(NamedTuple):
    """A line of JSON lines that is not blank."""

    number: int
    """From 1, as editors count."""
    value: Any
    fault: str
    """The reason why the line is not JSON; empty where it is."""


def read_json(path: Path) -> Record:
    """Return the object in a JSON file; raise UserError where it is absent or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {type(value).__name__}, not an object")
    return value


def write_json(path: Path, value: Record) -> None:
    """Write `value` as indented UTF-8 JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def json_lines(lines: Iterable[str]) -> Iterator[JsonLine]:
    """Parse each line that is not blank; what is no JSON is yielded as None with the fault."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value, fault = json.loads(line), ""
        except (ValueError, RecursionError) as error:  # ValueError: also an integer of more than 4300 digits
            value, fault = None, str(error)
        yield JsonLine(number, value, fault)


def open_text(path: Path) -> TextIO:
    """Open a UTF-8 file for reading, with or without a byte order mark; gzip where its name ends in .gz."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def read_jsonl(path: Path) -> list[Record]:
    """Return the records of a JSONL file that this program wrote, none where the file is not there yet.

    Raises UserError where the file, or its folder, can't be read.
    """
    if not path.is_file() and path.parent.is_dir():
        return []
    try:
        with open_text(path) as file:
            lines = list(json_lines(file))
    except UNREADABLE as error:
        raise UserError(f"{path}: cannot be read ({error}); give the folder of a whole run") from None
    for line in lines:
        if line.fault:
            raise UserError(f"{path}, line {line.number}: not JSON ({line.fault}); remove the line")
    return [line.value for line in lines]


def append_jsonl(path: Path, *records: Mapping[str, Any]) -> None:
    """Add records to a JSONL file, one a line; NaN and infinity become null."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(_lines(records))


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as a JSONL file, one a line; NaN and infinity become null.

    A name that ends in .gz is compressed, without a date or a name inside, so that equal records give equal bytes.
    """
    if path.suffix != ".gz":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(_lines(records))
        return
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
        packed.write("".join(_lines(records)).encode())


def without_nan(value: Any) -> Any:
    """Return plain values with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(records: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    return (json.dumps(without_nan(record), ensure_ascii=False) + "\n" for record in records)
