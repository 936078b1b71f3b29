"""What a ranking found, counted while it goes on, and as a person reads it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

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


def print_ranking(console: Console, summary: RankSummary) -> None:
    """The best few, how many have no rank and why, and where everything is."""
    table = Table(title="Best", title_justify="left", title_style="bold", header_style="bold")
    for name, justify in (("", "right"), ("candidate", "left"), ("score", "right"), ("decision, reasons", "left")):
        table.add_column(name, justify=justify, overflow="fold")
    for rank, answer in enumerate(summary.best, start=1):
        said = [reason.text if reason.grounded else f"{reason.text} (not grounded)" for reason in answer.reasons]
        cells = str(rank), answer.candidate_id, f"{answer.score:.2f}", "\n".join([answer.decision, *said])
        table.add_row(*(Text(_shown(cell)) for cell in cells))
    if summary.best:
        console.print(table)
    for line in _lines(summary):
        console.print(_shown(line), highlight=False, markup=False, soft_wrap=True)


def _lines(summary: RankSummary) -> list[str]:
    """What follows the table."""
    made = summary.candidates - summary.reused
    speed = f" ({summary.seconds / made:.2f} s each)" if made else ""
    kept = f", {summary.reused} scored earlier" if summary.reused else ""
    unranked = summary.no_answer + summary.unreadable
    more = [f"and {unranked - len(summary.notes)} more, listed at the end"] if unranked > len(summary.notes) else []
    return [
        f"{summary.candidates} candidates in {summary.seconds:.0f} s{speed}{kept}",
        f"{summary.ranked} ranked, {summary.shortlisted} of them shortlisted; {summary.grounded} of {summary.reasons} "
        "reasons grounded",
        f"{summary.no_answer} without a valid answer, {summary.retried} asked twice, {summary.unreadable} unreadable",
        *(f"no rank: {line}" for line in [*summary.notes, *more]),
        str(summary.csv),
        str(summary.jsonl),
    ]


def _shown(text: str) -> str:
    """A model's or a stranger's text without what would steer a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)
