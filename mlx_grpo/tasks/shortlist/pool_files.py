"""Read the entries of a pool's file: JSON lines, a JSON list or `{"candidates": [...]}`, plain or gzip, in Unicode.

The content decides which of these it is, whatever the file's name. JSON lines are read one at a time.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from mlx_grpo.errors import UserError, short_repr
from mlx_grpo.json_files import json_lines

FIELDS = ("candidate_id", "profile", "skills", "career_history")
REMEDY = f"write each candidate as one line of JSON, an object with {', '.join(FIELDS[:-1])} and {FIELDS[-1]}"

Entry = tuple[str, Any, str]
"""Place, value, and the fault of a line that is no JSON."""


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield every entry in file order; raise UserError where the file is no pool or cannot be read."""
    try:
        with path.open("rb") as file:
            zipped = file.peek(2).startswith(b"\x1f\x8b")
            yield from _entries(path, _as_text(path, gzip.GzipFile(fileobj=file) if zipped else file))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: is damaged or cut off: {error}; copy it again") from error
    except UnicodeDecodeError as error:
        name = error.encoding.upper()
        raise UserError(f"{path}: cannot be read as {name} text: {error}; save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _as_text(path: Path, file: io.BufferedReader | gzip.GzipFile) -> io.TextIOWrapper:
    """Decode by the byte order mark, as UTF-8 without one."""
    head = file.peek(4)[:4]
    if head == b"PK\x03\x04":
        raise UserError(f"{path}: is an XLSX or ZIP file: {REMEDY}")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return io.TextIOWrapper(file, encoding="utf-16")
    if b"\0" in head:
        raise UserError(f"{path}: is binary, or UTF-16 without a byte order mark; save it as UTF-8 text")
    return io.TextIOWrapper(file, encoding="utf-8-sig")


def _entries(path: Path, text: TextIO) -> Iterator[Entry]:
    read: list[str] = []
    first_two: list[str] = []
    while len(first_two) < 2 and (line := text.readline()):
        read.append(line)
        first_two += [line] if line.strip() else []
    signs = [line.lstrip()[0] for line in first_two]
    if signs[:1] == ["["] or (signs[:1] == ["{"] and _is_one_object(first_two)):
        yield from _items(path, "".join(read) + text.read())
    elif "{" in signs or not signs:
        yield from _lines(path, chain(read, text))
    else:
        first = first_two[0].strip()
        kind = "looks like CSV" if any(sign in first for sign in ",;\t") else "is no pool of JSON objects"
        raise UserError(f"{path}: {kind}, beginning with {short_repr(first)}: {REMEDY}")


def _is_one_object(lines: list[str]) -> bool:
    """Return True if a file that opens an object holds just this one, by its first two lines."""
    try:
        value = json.loads(lines[0])
    except (ValueError, RecursionError):
        # A pretty-printed object goes on where its line ends; after a broken one of JSON lines comes the next object.
        opens_list = lines[0].rstrip().endswith("[") and not any(f'"{name}"' in lines[0] for name in FIELDS)
        goes_on = lines[0].rstrip().endswith(("{", "[", ",", ":")) and not lines[-1].lstrip().startswith("{")
        return opens_list or goes_on
    return len(lines) == 1 and value.keys().isdisjoint(FIELDS)


def _items(path: Path, text: str) -> Iterator[Entry]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data" and text.lstrip()[0] == "{":
            raise UserError(f"{path}: is several objects over several lines each: {REMEDY}") from error
        raise UserError(f"{path}: not valid JSON: {error}") from error
    if isinstance(value, dict):
        value = _listed(path, value)
    yield from ((f"{path.name}[{index}]", item, "") for index, item in enumerate(value))


def _listed(path: Path, value: dict[str, Any]) -> list[Any]:
    candidates = value.get("candidates")
    if isinstance(candidates, list):
        return candidates
    if not value.keys().isdisjoint(FIELDS):
        raise UserError(f"{path}: is one pretty-printed object: {REMEDY}, or put it into a list [...]")
    raise UserError(f"{path}: is one JSON object without a list named candidates: {REMEDY}")


def _lines(path: Path, lines: Iterable[str]) -> Iterator[Entry]:
    for number, value, fault in json_lines(lines):
        where = f"{path.name}:{number}"
        yield where, value, f"{where}: not valid JSON: {fault}" if fault else ""
