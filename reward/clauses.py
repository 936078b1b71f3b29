"""A reason's clauses: the terms it names, and the polarity and degree that each clause gives them.

"has Python but lacks Spark, thin on SQL": Python is present, Spark is missing, SQL is thin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from reward.breakdown import quote
from reward.profile import MAX_TERM_TOKENS, Context, Term
from reward.tokens import Token
from reward.words import (
    ABSENT,
    AUXILIARIES,
    ENOUGH,
    FOUND,
    GENERIC_WORDS,
    HAS,
    LACKS,
    LIST_WORDS,
    PRAISES,
    PRESENT,
    SHORTCOMINGS,
    SLIGHTS,
    TURNS,
    VERBS,
)

_JOINS = frozenset(("and", "or"))
_HARD = frozenset(".!?;:")


class Fault(NamedTuple):
    """A false claim in a reason: its tokens, from `start` to before `stop`, and one phrase."""

    start: int
    stop: int
    text: str


@dataclass(slots=True)
class Item:
    """A term or a single word of a reason, with its clause and what the clause says of it."""

    words: Term
    start: int  # index of its first token in the reason
    named: bool  # a term of the job or the candidate
    clause: int = 0
    hard: bool = False  # its clause opens after a full stop, semicolon or colon
    polarity: int = 0  # +1 said to be there, -1 said to be missing, 0 neither
    degree: int = 0  # +1 said to be strong, -1 said to be thin, 0 neither

    @property
    def name(self) -> str:
        """Return the term as a fault quotes it."""
        return quote(" ".join(self.words))

    def fault(self, text: str) -> Fault:
        """Return a fault at the term's place."""
        return Fault(self.start, self.start + len(self.words), text)


def find_terms(tokens: list[Token], terms: frozenset[Term]) -> list[tuple[int, Term]]:
    """Find terms in `tokens`, the longest at each place, left to right without overlap: (index, term)."""
    keys = [token.key for token in tokens]
    found: list[tuple[int, Term]] = []
    at = 0
    while at < len(keys):
        runs = (tuple(keys[at : at + n]) for n in range(MAX_TERM_TOKENS, 0, -1))
        term = next((run for run in runs if run in terms), None)
        if term:
            found.append((at, term))
        at += len(term) if term else 1
    return found


def read_items(tokens: list[Token], context: Context) -> list[Item]:
    """Read terms and words in order, each term with its polarity and degree."""
    items = _items(tokens, context)
    _set_polarities(items)
    _set_degrees(items)
    return items


def clauses_of(tokens: list[Token], context: Context) -> list[list[Item]]:
    """Return the items of each clause, in order."""
    return _clauses(_items(tokens, context))


def _items(tokens: list[Token], context: Context) -> list[Item]:
    """Cut terms and words into clauses at punctuation and "and"; leave out words in brackets."""
    starts = dict(find_terms(tokens, context.terms))
    items: list[Item] = []
    depth = clause = at = 0
    hard = False
    while at < len(tokens):
        token = tokens[at]
        depth = max(0, depth + token.before.count("(") - token.before.count(")"))
        ends = any(c in _HARD for c in token.before)
        if ends or (depth == 0 and ("," in token.before or token.key in _JOINS)):
            clause, hard = clause + 1, ends
        term = starts.get(at)
        if term or (depth == 0 and token.key not in _JOINS):
            items.append(Item(term or (token.key,), at, term is not None, clause, hard))
        at += len(term) if term else 1
    return items


def _set_polarities(items: list[Item]) -> None:
    """Give each term what its clause says of it: "has Python but lacks Spark" -> Python +1, Spark -1.

    "has" and "lacks" reach over commas and "and" as long as what follows is a bare list: "lacks A, B and C".
    """
    state = 0
    waiting: list[Item] = []  # terms seen before any verb: "Airflow and Spark are missing"
    for clause in _clauses(items):
        if clause[0].hard:
            state, waiting = 0, []
        elif any(not item.named and item.words[0] in VERBS for item in clause) or (
            # "lacks Airflow, good Python" denies one of them.
            state < 0 and any(not item.named and item.words[0] not in LIST_WORDS for item in clause)
        ):
            state = 0
        turned = False
        for at, item in enumerate(clause):
            if item.named:
                item.polarity = state
                waiting += [item] if state == 0 else []
                continue
            if said := _said_of_waiting(clause, at, waiting):
                for earlier in waiting:
                    earlier.polarity = said
                state, waiting = 0, []
                continue
            word = item.words[0]
            turned = turned or word in TURNS
            if not (turned and word in PRAISES):
                state = _turn(state, word, clause[at - 1].words[0] if at else "")
        if not all(item.named for item in clause):
            waiting = []


def _clauses(items: list[Item]) -> list[list[Item]]:
    clauses: dict[int, list[Item]] = {}
    for item in items:
        clauses.setdefault(item.clause, []).append(item)
    return list(clauses.values())


def _said_of_waiting(clause: list[Item], at: int, waiting: list[Item]) -> int:
    """Return the polarity that a word gives the terms before it: "A and B are missing" -1, "are there" 1, else 0."""
    word = clause[at].words[0]
    before = clause[at - 1] if at else None
    follows = before is not None and (before.named or before.words[0] in AUXILIARIES)
    negated = word == "not" and at + 1 < len(clause) and clause[at + 1].words[0] in FOUND
    if not waiting or not follows:
        return 0
    return -1 if word in ABSENT or negated else 1 if word in PRESENT else 0


def _turn(state: int, word: str, before: str) -> int:
    """Return the polarity after `word`; a second denial right after a first one undoes it ("not lacking Python")."""
    if before in LACKS and (word in SHORTCOMINGS or (word == "only" and before == "not")):
        return 1  # "no gap in Python", "not only Python"
    if word in LACKS:
        return 1 if before in LACKS and word != "no" else -1
    if word in HAS | PRAISES:
        return -1 if before in LACKS else 1
    return 0 if word in TURNS | SLIGHTS else state


def _set_degrees(items: list[Item]) -> None:
    """Give each term how much its clause says of it: "strong in A and B, thin on C" -> A +1, B +1, C -1.

    "lacks depth in A" says thin of it. Any other word than "in" or "on" ends the list ("strong in A, three of five"
    says nothing of five), but for a noun before it: "strong skills in A".
    """
    state = clause = 0
    listing = False  # whether a term has followed the praise
    before = ""
    for item in items:
        word = item.words[0]
        if item.named:
            state = state if listing or item.clause == clause else 0  # "strong candidate, has A"
            # A praise that is asked for ("needs strong Python") claims nothing.
            item.degree = state if state < 0 or item.polarity > 0 else 0
            listing = True
        elif word in PRAISES or (word in ENOUGH and before in LACKS):
            state, clause, listing = -1 if before in LACKS else 1, item.clause, False
        elif word in SLIGHTS:
            state, clause, listing = 0 if before in LACKS else -1, item.clause, False
        elif word not in ("in", "on", "with") and (listing or item.clause != clause or word not in GENERIC_WORDS):
            state = 0
        before = word
