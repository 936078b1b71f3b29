"""A data set on the Hub as a file of rows: parquet or JSONL, its columns renamed, kept beside the Hub's cache.

The file's path names the commit and all that shapes a row, so that it is written once and never changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from mlx_grpo.config.schema import DataConfig
from mlx_grpo.data.hub_files import COMMIT, REMEDY, Split, fetch, find_split, split_in
from mlx_grpo.errors import UserError, short_repr
from mlx_grpo.json_files import UNREADABLE, json_lines, open_text, without_nan

Row = dict[str, Any]
Columns = tuple[tuple[str, str | None], ...]
"""The items of `data.columns`."""

FORMAT = 1
"""The version of the rows that are written; it is a part of their file's path."""
NO_PYARROW = "is parquet, which pyarrow reads: pip install 'mlx-grpo[datasets]'"
HELDOUT = "test"
"""The split that is held out where the config names none."""


def hub_train_rows(data: DataConfig) -> Path:
    """Return the file of training rows of `data.train`, a data set on the Hub."""
    return _rows_file("data.train", data.train, data.subset, data.split, *_shape(data))


def hub_heldout_rows(data: DataConfig) -> Path | None:
    """Return the file of held-out rows of `data.heldout`, a data set on the Hub.

    Without `data.heldout`, they are those of another split of `data.train`; None where it has no test split.
    """
    key, shape = "data.heldout", _shape(data)
    if data.heldout is not None or data.heldout_split is not None:
        return _rows_file(key, data.heldout or data.train, data.subset, data.heldout_split or HELDOUT, *shape)
    written = _path_of(pin(data, "data.train"), data.subset, HELDOUT, *shape)
    if written.is_file():
        return written
    train = find_split("data.train", data.train, data.subset, data.split)
    if split_in(train.listing, data.subset, HELDOUT) is None:
        return None
    return _rows_file(key, train.pinned, data.subset, HELDOUT, *shape)


def _shape(data: DataConfig) -> tuple[Columns, bool, str | None]:
    """Return all that shapes a row."""
    return tuple(data.columns.items()), data.as_messages, data.system


def pin(data: DataConfig, key: str) -> str:
    """Return the id of `data.train` or `data.heldout` with the commit that is read, `org/name@commit`."""
    name, split = (data.train, data.split) if key == "data.train" else (data.heldout, data.heldout_split or HELDOUT)
    assert name is not None
    if COMMIT.fullmatch(name.partition("@")[2]):
        return name
    return find_split(key, name, data.subset, split).pinned


@lru_cache
def _rows_file(
    key: str,
    name: str,
    subset: str | None,
    split: str,
    columns: Columns,
    as_messages: bool,
    system: str | None,
) -> Path:
    path = _path_of(name, subset, split, columns, as_messages, system)
    if COMMIT.fullmatch(name.partition("@")[2]) and path.is_file():
        return path
    found = find_split(key, name, subset, split)
    path = _path_of(found.pinned, subset, split, columns, as_messages, system)
    if not path.is_file():
        _write(path, _shaped(found, key, dict(columns), as_messages, system))
    return path


def _path_of(
    pinned: str, subset: str | None, split: str, columns: Columns, as_messages: bool, system: str | None
) -> Path:
    """Return the path of the rows of `org/name@commit`."""
    repo, _, commit = pinned.partition("@")
    shape = json.dumps([FORMAT, subset, columns, as_messages, system])
    folder = _kept_in() / repo.replace("/", "--") / commit
    return folder / hashlib.sha256(shape.encode()).hexdigest()[:12] / f"{split}.jsonl"


def rows_remedy(path: Path) -> tuple[str, ...]:
    """Return a line on what mends bad rows in a file of a data set on the Hub; none for any other file."""
    if not path.is_relative_to(_kept_in()):
        return ()
    repo = path.relative_to(_kept_in()).parts[0].replace("--", "/", 1)
    return (
        f"{path}: is made of {repo}: choose other columns (data.columns: {{id: null}} leaves `id` out) or another "
        "split, or give a JSONL file of your own",
    )


def _kept_in() -> Path:
    return Path(constants.HF_HOME) / "mlx-grpo"


def _write(path: Path, rows: Iterator[Row]) -> None:
    """Write rows to a file that is there only once it is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}); set HF_HOME to a folder with room") from None
    finally:
        temporary.unlink(missing_ok=True)


def _shaped(
    split: Split, key: str, columns: dict[str, str | None], as_messages: bool, system: str | None
) -> Iterator[Row]:
    """Yield a split's rows as they are trained on: with the config's columns, as plain values, prompts as messages."""
    repo = split.listing.repo
    first = True
    for row in _read(split, key):
        if first:
            _check_columns(row, columns, key, repo)
            first = False
        renamed = {old for old in columns.values() if old is not None}
        kept = {name: value for name, value in row.items() if name not in renamed and name not in columns}
        kept |= {new: row[old] for new, old in columns.items() if old is not None and old in row}
        plain = {name: _plain_column(value, name, repo) for name, value in kept.items()}
        yield {**plain, "prompt": _prompt(plain.get("prompt"), as_messages, system)}


def _check_columns(row: Row, columns: dict[str, str | None], key: str, repo: str) -> None:
    """Raise UserError where the first row lacks a column that the config names, or has none for the prompt."""
    has = f"{repo} has {', '.join(row)}"
    absent = {new: old for new, old in columns.items() if old is not None and old not in row}
    if absent:
        raise UserError(*(f"data.columns.{new}: there is no column {old!r}; {has}" for new, old in absent.items()))
    if "prompt" not in row and "prompt" not in columns:
        raise UserError(f"{key}: {has}, and no `prompt`; name the column, such as data.columns: {{prompt: question}}")


def _prompt(prompt: Any, as_messages: bool, system: str | None) -> Any:
    """Return a prompt without the empty fields that parquet gives a message, as messages if the config asks for it."""
    if isinstance(prompt, list):
        prompt = [
            {name: value for name, value in message.items() if value is not None}
            if isinstance(message, dict)
            else message
            for message in prompt
        ]
    if not as_messages:
        return prompt
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    begun = isinstance(messages, list) and messages[:1] and isinstance(messages[0], dict)
    if system is None or (begun and messages[0].get("role") == "system"):
        return messages
    return [{"role": "system", "content": system}, *messages] if isinstance(messages, list) else messages


def _plain_column(value: Any, name: str, repo: str) -> Any:
    """Return a column's value as JSON can hold it; raise UserError where it can't."""
    try:
        return json.loads(json.dumps(without_nan(value), default=_plain))
    except (TypeError, ValueError, RecursionError):
        raise UserError(
            f"data.columns: {repo}'s column {name!r} holds {short_repr(value)}, which JSON can't hold; leave it out: "
            f"data.columns: {{{name}: null}}"
        ) from None


def _plain(value: Any) -> Any:
    match value:
        case date() | time():  # a datetime is a date
            return value.isoformat()
        case Decimal():
            return float(value)
    raise TypeError(type(value).__name__)


def _read(split: Split, key: str) -> Iterator[Row]:
    for path in fetch(split, key):
        if path.suffix == ".parquet":
            yield from _read_parquet(path, key, split.listing.repo)
        else:
            yield from _read_jsonl(path)


def _read_parquet(path: Path, key: str, repo: str) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{key}: {repo} {NO_PYARROW}") from None
    try:
        for batch in ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{path}: not readable as parquet ({reason}); {REMEDY}") from None


def _read_jsonl(path: Path) -> Iterator[Row]:
    try:
        with open_text(path) as file:
            for number, row, fault in json_lines(file):
                if fault:
                    raise UserError(f"{path}, line {number}: not JSON ({fault}); {REMEDY}")
                if not isinstance(row, dict):
                    raise UserError(f"{path}, line {number}: holds {type(row).__name__}, not an object; {REMEDY}")
                yield row
    except UNREADABLE as error:
        raise UserError(f"{path}: not readable ({error}); {REMEDY}") from None
