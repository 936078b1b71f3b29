"""Reasons as evidence: each clause confirmed, refuted or unread, and the share of the decisive facts they state.

A clause is one statement in one of the forms of `reward.forms`; a reason is one clause or several joined by `;`. Only
confirmed clauses earn, so the rubric needs to understand no other English.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reward.facts import Facts, read_facts
from reward.forms import Finding, Status, read_clause
from reward.names import plain

MAX_REASON_CHARS = 600
_CLAUSE = re.compile(r"[^;；]+")


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause of a reason, and what the facts say to it. A list of names in it gives a Clause for each fact."""

    text: str
    """As written, without the white space around it."""
    start: int
    """Its place in the reason; `stop` is the index after its last character."""
    stop: int
    status: Status
    why: str
    facts: tuple[str, ...] = ()
    """The facts it speaks of, in canonical wording; mostly one."""
    parts: frozenset[str] = frozenset()
    """What a confirmed clause states of them, such as the level or the months."""

    @property
    def fact(self) -> str:
        """Return the fact it speaks of in words; "" where it speaks of none."""
        return "; ".join(self.facts)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The clauses of an answer's reasons, and how much of each decisive fact they state."""

    reasons: tuple[tuple[Clause, ...], ...]
    """The clauses of each reason, in order; a clause that states nothing new is unread."""
    covered: dict[str, float]
    """Each decisive fact, in order and in canonical wording: 1 stated, 0.5 in part, 0 not stated or contradicted."""

    @property
    def coverage(self) -> float:
        """Return the share of the decisive facts that is stated, in [0, 1]; 0 without a decisive fact."""
        return sum(self.covered.values()) / len(self.covered) if self.covered else 0.0

    def count(self, status: Status) -> int:
        """Count clauses with a status, without those that are idle."""
        return sum(clause.status == status and not self.is_idle(clause) for row in self.reasons for clause in row)

    def is_idle(self, clause: Clause) -> bool:
        """Return True if a clause is confirmed, but about nothing decisive or what another clause contradicts."""
        return clause.status == "confirmed" and not any(self.covered.get(fact) for fact in clause.facts)

    @property
    def confirmed(self) -> float:
        """Return the share of the clauses that count which is confirmed, in [0, 1]; 0 without one."""
        confirmed = self.count("confirmed")
        out_of = confirmed + self.count("unread") + self.count("refuted")
        return confirmed / out_of if out_of else 0.0

    @property
    def no_hallucination(self) -> float:
        """Return confirmed / (confirmed + unread + 2 refuted), in [0, 1]; 0 without a clause that counts."""
        confirmed = self.count("confirmed")
        out_of = confirmed + self.count("unread") + 2 * self.count("refuted")
        return confirmed / out_of if out_of else 0.0


def judge(reason: str, facts: Mapping[str, Any]) -> list[Clause]:
    """Return the clauses of one reason; never raise on any text.

    facts: the column of a row. Raises ValueError where it is not in the schema.
    """
    return list(weigh([reason], read_facts(facts)).reasons[0])


def weigh(reasons: Sequence[object], facts: Facts, max_chars: int = MAX_REASON_CHARS) -> Evidence:
    """Check an answer's reasons; one that is no string, or longer than `max_chars`, is a single unread clause."""
    said: set[str] = set()
    rows: list[tuple[Clause, ...]] = []
    for reason in reasons:
        row: list[Clause] = []
        for clause in _clauses(reason, facts, max_chars):
            repeats = clause.status == "confirmed" and clause.parts <= said
            said |= clause.parts
            row.append(replace(clause, status="unread", why="repeats an earlier clause") if repeats else clause)
        rows.append(tuple(row))
    return Evidence(tuple(rows), _covered(rows, facts))


def _clauses(reason: object, facts: Facts, max_chars: int) -> Iterator[Clause]:
    if not isinstance(reason, str):
        yield Clause("", 0, 0, "unread", "is no text")
        return
    if len(reason) > max_chars:
        yield Clause(reason, 0, len(reason), "unread", f"has {len(reason)} characters, over {max_chars}")
        return
    for match in _CLAUSE.finditer(reason):
        text = match.group().strip()
        if text:
            start = match.start() + match.group().index(text)
            for finding in _findings(text, facts):
                yield Clause(text, start, start + len(text), *finding)


def _findings(clause: str, facts: Facts) -> list[Finding]:
    findings = read_clause(plain(clause).rstrip(" .,"), facts)
    return findings or [Finding("unread", "is in none of the forms")]


def _covered(rows: list[tuple[Clause, ...]], facts: Facts) -> dict[str, float]:
    clauses = [clause for row in rows for clause in row]
    covered: dict[str, float] = {}
    for fact, parts in facts.decisive().items():
        about = [clause for clause in clauses if fact in clause.facts]
        stated = frozenset[str]().union(*(clause.parts for clause in about if clause.status == "confirmed"))
        contradicted = any(clause.status == "refuted" for clause in about)
        covered[fact] = 0.0 if contradicted else min(1.0, len(stated) / parts)
    return covered
