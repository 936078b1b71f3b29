"""A pool in batches: the entries whose answers are logged together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlx_grpo.data.batch import batched
from mlx_grpo.ranking.answers import Answer
from mlx_grpo.ranking.files import ScoreLog
from mlx_grpo.tasks.shortlist.pool import Entry, stream_pool
from mlx_grpo.tasks.shortlist.records import Candidate

LOGGED_TOGETHER = 16
"""Answers written to the score log at a time, where no batch size is set."""


class Batch(NamedTuple):
    """Entries of the pool whose answers are logged together."""

    number: int
    entries: list[Entry]
    keys: list[str]
    """Of the entries' answers in the score log."""

    def candidates(self) -> list[Candidate | Answer]:
        """Return the candidates; an unreadable entry's place has the answer that holds its problems."""
        return [entry.candidate or Answer(entry.candidate_id, note="; ".join(entry.problems)) for entry in self.entries]


def pool_batches(pool: Path, size: int) -> Iterator[Batch]:
    """Read a pool in batches of `size` entries."""
    for number, entries in enumerate(batched(stream_pool(pool), size)):
        yield Batch(number, entries, [_key(entry) for entry in entries])


def batches_held(log: ScoreLog | None, pool: Path, size: int) -> list[int]:
    """Return the numbers of the batches whose answers the log holds already."""
    if log is None or not log.offsets:
        return []
    return [batch.number for batch in pool_batches(pool, size) if log.holds(batch.keys)]


def _key(entry: Entry) -> str:
    """Return the key of an entry's answer: a hash of everything that was read of the entry."""
    return hashlib.sha256(repr(entry).encode("utf-8", "backslashreplace")).hexdigest()[:32]
