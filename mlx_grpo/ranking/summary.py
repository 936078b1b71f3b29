"""What a ranking found, counted while it goes on, and as a person reads it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mlx_grpo.ranking.answers import Answer
from mlx_grpo.ranking.files import Outputs, Place
from mlx_grpo.tasks.shortlist.pool import Entry

LISTED = 5
COUNTS = ("ranked", "shortlisted", "no_answer", "unreadable", "retried", "reused", "reasons", "grounded")


@dataclass(frozen=True, slots=True)
class RankSummary:
    """What `Ranker.rank` did, for printing or as JSON (`dataclasses.asdict`)."""

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
    """Answers that an earlier, interrupted ranking had left."""
    reasons: int
    grounded: int
    seconds: float
    notes: tuple[str, ...]
    """Of the first few without a rank, why."""
    best: tuple[Answer, ...]


class Tally:
    """Counts answers as they come; of each it holds its place alone."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.places: list[Place] = []
        self.notes: list[str] = []

    def add(self, key: str, entry: Entry, answer: Answer) -> None:
        kind = "unreadable" if entry.candidate is None else "ranked" if answer.valid else "no_answer"
        self.counts.update(
            {
                kind: 1,
                "shortlisted": answer.decision == "shortlist",
                "retried": answer.retried,
                "reasons": len(answer.reasons),
                "grounded": sum(reason.grounded for reason in answer.reasons),
            }
        )
        if kind != "ranked" and len(self.notes) < LISTED:
            self.notes.append(answer.note if kind == "unreadable" else f"{answer.candidate_id}: {answer.note}")
        self.places.append(Place.of(answer, len(self.places), key))

    def summary(self, files: Outputs, best: tuple[Answer, ...], seconds: float) -> RankSummary:
        counts = {name: self.counts[name] for name in COUNTS}
        return RankSummary(
            files.csv, files.jsonl, len(self.places), **counts, seconds=seconds, notes=tuple(self.notes), best=best
        )
