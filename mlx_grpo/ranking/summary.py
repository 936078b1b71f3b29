"""The counts of a ranking, kept while it runs, and its summary."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpo.ranking.answers import Answer
from mlx_grpo.ranking.files import Outputs, Place
from mlx_grpo.tasks.shortlist.pool import Entry

LISTED = 5
COUNTS = ("ranked", "shortlisted", "no_answer", "unreadable", "retried", "reused", "confirmed", "refuted", "unread")


@dataclass(frozen=True, slots=True)
class RankSummary:
    """The result of `Ranker.rank`, for printing or as JSON (`dataclasses.asdict`)."""

    csv: Path
    jsonl: Path
    candidates: int
    """Entries of the pool, the unreadable included."""
    ranked: int
    shortlisted: int
    no_answer: int
    """Candidates without a valid answer; these and the unreadable are listed after the ranked ones."""
    unreadable: int
    """Entries of the pool that are no candidate of the schema."""
    retried: int
    reused: int
    """Answers taken from an earlier, interrupted ranking."""
    confirmed: int
    """Clauses of the reasons that the facts of the profile confirm."""
    refuted: int
    unread: int
    coverage: float | None
    """Mean of the valid answers' coverage, 0 to 1; None without a valid answer."""
    seconds: float
    notes: tuple[str, ...]
    """Why the first few without a rank have none."""
    best: tuple[Answer, ...]
    job: dict[str, Any]
    """The job as it was read, with sources and doubts (`JobReading.as_dict`)."""


class Tally:
    """Counts answers as they come, and keeps the place of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.coverage = 0.0
        self.places: list[Place] = []
        self.notes: list[str] = []

    def add(self, key: str, entry: Entry, answer: Answer) -> None:
        """Count the answer for a pool's entry; `key` finds it in the score log."""
        kind = "unreadable" if entry.candidate is None else "ranked" if answer.valid else "no_answer"
        self.counts.update(
            {
                kind: 1,
                "shortlisted": answer.decision == "shortlist",
                "retried": answer.retried,
            }
        )
        self.counts.update(mark.status for reason in answer.reasons for mark in reason.marks)
        self.coverage += answer.coverage or 0.0
        if kind != "ranked" and len(self.notes) < LISTED:
            self.notes.append(answer.note if kind == "unreadable" else f"{answer.candidate_id}: {answer.note}")
        self.places.append(Place.of(answer, len(self.places), key))

    def summary(self, files: Outputs, best: tuple[Answer, ...], seconds: float, job: dict[str, Any]) -> RankSummary:
        """Return the counts as a summary."""
        counts = {name: self.counts[name] for name in COUNTS}
        return RankSummary(
            files.csv,
            files.jsonl,
            len(self.places),
            **counts,
            coverage=self.coverage / counts["ranked"] if counts["ranked"] else None,
            seconds=seconds,
            notes=tuple(self.notes),
            best=best,
            job=job,
        )
