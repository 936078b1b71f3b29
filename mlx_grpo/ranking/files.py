"""A ranking's files: the score log that an interrupted ranking continues from, and the ranked CSV and JSONL.

Nothing here holds a whole pool in memory: answers stay in the log, and only scores, ids and log keys are sorted.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TextIO

from mlx_grpo.errors import UserError
from mlx_grpo.ranking.answers import Answer

# Characters that a spreadsheet reads as the start of a formula, full-width forms included.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


class Outputs(NamedTuple):
    """The files that a ranking writes."""

    csv: Path
    jsonl: Path
    scores: Path
    """The log of all answers, in the order of the pool."""


def outputs(out: Path, *inputs: Path) -> Outputs:
    """Return the files of a ranking; raise UserError where one of them is an input or a folder."""
    if out.suffix != ".csv":
        raise UserError(f"--out: {out}: give a name that ends in .csv; the same as JSONL is written beside it")
    files = Outputs(out, out.with_suffix(".jsonl"), out.with_suffix(".scores.jsonl"))
    for path in files:
        if path.exists() and any(given.exists() and path.samefile(given) for given in inputs):
            raise UserError(f"--out: {path} would be written over, and it is an input; give another name")
        if path.is_dir():
            raise UserError(f"--out: {path} is a folder; give another name")
    return files


class ScoreLog:
    """Answers by key in a JSONL file that grows a batch at a time; an incomplete last line is cut off on opening.

    The scores of another `header` are refused. `notes` are written beside it and never compared.
    """

    def __init__(self, path: Path, header: dict[str, Any], notes: dict[str, Any] | None = None):
        self.path = path
        self._notes = notes or {}
        self.offsets: dict[str, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise UserError(f"--out: {path} can't be written ({error.strerror}); choose another place") from None
        try:
            self._lock()
            self._check(json.loads(json.dumps(header)), self._index())
        except UserError:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def holds(self, keys: Iterable[str]) -> bool:
        """Return True if there is an answer for each key."""
        return all(key in self.offsets for key in keys)

    def append(self, keys: Sequence[str], answers: Sequence[Answer]) -> None:
        """Add a batch's answers and wait until they are on the disk.

        After a kill the log may hold a part of the batch; that part is not written again.
        """
        for key, answer in zip(keys, answers, strict=True):
            if key not in self.offsets:
                self.offsets[key] = self._write({"key": key, **asdict(answer)})
        self._file.flush()
        os.fsync(self._file.fileno())

    def read(self, key: str) -> Answer:
        """Return the answer for a key."""
        self._file.seek(self.offsets[key])
        record = json.loads(self._file.readline())
        del record["key"]
        return Answer.from_dict(record)

    def _write(self, record: dict[str, Any]) -> int:
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(record).encode() + b"\n")
        return offset

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path}: another ranking is writing it; wait for it, or name another --out") from None

    def _index(self) -> dict[str, Any] | None:
        """Record the offset of each answer; return the header, or None where the file has none yet."""
        header, offset = None, 0
        self._file.seek(0)
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
                if header is None:
                    header = record["ranking"]
                else:
                    self.offsets[record["key"]] = offset
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{self.path}: holds no scores that `mlx-grpo rank` wrote; name another --out, or remove the file"
                ) from None
            offset += len(line)
        self._file.truncate(offset)
        return header

    def _check(self, header: dict[str, Any], written: dict[str, Any] | None) -> None:
        if written is None:
            self._write({"ranking": header, **self._notes})
            return
        changed = [name for name in header if header[name] != written.get(name)]
        if changed:
            raise UserError(
                f"{self.path}: its scores don't compare with new ones: {' and '.join(changed)} changed since; name "
                "another --out to keep them, or remove the file to start over"
            )


class Place(NamedTuple):
    """An answer's place in the ranking; sorts in the order of the ranking."""

    invalid: bool
    worth: float
    """Minus the score."""
    rejected: bool
    candidate_id: str
    """Breaks ties, so that the pool's order has no influence."""
    position: int
    key: str

    @classmethod
    def of(cls, answer: Answer, position: int, key: str) -> Self:
        """Return the place of an answer; invalid ones come last, in the pool's order."""
        if answer.score is None:
            return cls(True, 0.0, False, "", position, key)
        return cls(False, -answer.score, answer.decision == "reject", answer.candidate_id, position, key)


def write_ranked(files: Outputs, log: ScoreLog, places: list[Place], max_reasons: int, top_k: int | None) -> None:
    """Sort the places and write both files, each completely or not at all.

    Candidates without a rank follow the first `top_k` ranked ones.
    """
    places.sort()
    new_csv = files.csv.with_name(files.csv.name + ".tmp")
    new_jsonl = files.jsonl.with_name(files.jsonl.name + ".tmp")
    with _open_text(new_csv) as as_csv, _open_text(new_jsonl) as as_jsonl:
        _write_rows(as_csv, as_jsonl, _ranks(log, places, top_k), max_reasons)
    new_csv.replace(files.csv)
    new_jsonl.replace(files.jsonl)


def _open_text(path: Path) -> TextIO:
    # A lone surrogate, which JSON can hold and UTF-8 cannot, is written as its escape.
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n")


def _ranks(log: ScoreLog, places: list[Place], top_k: int | None) -> Iterator[tuple[int | None, Answer]]:
    for rank, place in enumerate(places, start=1):
        if place.invalid:
            yield None, log.read(place.key)
        elif top_k is None or rank <= top_k:
            yield rank, log.read(place.key)


def _write_rows(
    as_csv: TextIO, as_jsonl: TextIO, ranked: Iterable[tuple[int | None, Answer]], max_reasons: int
) -> None:
    table = csv.writer(as_csv, lineterminator="\n")
    columns = [name for n in range(1, max_reasons + 1) for name in (f"reason_{n}", f"status_{n}")]
    table.writerow(["rank", "candidate_id", "decision", "score", "coverage", "valid", "retried", *columns, "note"])
    for rank, answer in ranked:
        cells = [cell for reason in answer.reasons for cell in (safe_cell(reason.text), reason.status)]
        cells += [""] * (len(columns) - len(cells))
        verdict = [rank, safe_cell(answer.candidate_id), answer.decision, answer.score, _rounded(answer.coverage)]
        table.writerow([*verdict, _truth(answer.valid), _truth(answer.retried), *cells, safe_cell(answer.note)])
        as_jsonl.write(json.dumps(_record(rank, answer), ensure_ascii=False) + "\n")


def _record(rank: int | None, answer: Answer) -> dict[str, Any]:
    """Return an answer's line of the ranked JSONL."""
    reasons = [
        {"text": reason.text, "status": reason.status, "clauses": [mark._asdict() for mark in reason.marks]}
        for reason in answer.reasons
    ]
    own = {"coverage": _rounded(answer.coverage), "valid": answer.valid, "reasons": reasons}
    return {"rank": rank, **asdict(answer), **own}


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def safe_cell(text: str) -> str:
    """Return the text of a CSV cell, with an apostrophe before anything that a spreadsheet reads as a formula."""
    return "'" + text if text.lstrip(" ").startswith(FORMULA) else text


def _truth(value: bool) -> str:
    return "true" if value else "false"
