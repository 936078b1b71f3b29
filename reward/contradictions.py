"""Where a reason says the opposite of the profile, as far as rules can tell.

Read: "lacks Python" where the candidate lists it, "has Rust" where only the job does, "covers none / all of the
required skills", "Python is beginner level" or "(advanced, 48m)" where the profile says otherwise, "1 year is
inside 3-6". A clause the rules cannot place counts as neither; they are meant to be right when they speak.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from reward.breakdown import quote
from reward.profile import MAX_TERM_TOKENS, Context, Part, Term
from reward.tokens import Token, grounded
from reward.words import (
    ABOVE,
    ABSENT,
    AUXILIARIES,
    BELOW,
    BESIDES,
    EVERY,
    FOUND,
    HAS,
    INSIDE,
    LACKING,
    LACKS,
    LEVELS,
    NONE,
    PRAISES,
    QUALIFIERS,
    REQUIREMENTS,
    TURNS,
    VERBS,
)

_JOINS = frozenset(("and", "or"))
_HARD = frozenset(".!?;:")


class Fault(NamedTuple):
    """What is false in a reason: the tokens it stands in, from `start` to before `stop`, and one phrase."""

    start: int
    stop: int
    text: str


@dataclass(slots=True)
class Item:
    """A term or a single word of a reason, with the clause it stands in and what the clause says of it."""

    words: Term
    start: int  # index of its first token in the reason
    named: bool  # a term of the job or the candidate
    clause: int = 0
    hard: bool = False  # its clause opens after a full stop, semicolon or colon
    polarity: int = 0  # +1 said to be there, -1 said to be missing, 0 neither


def contradictions(tokens: list[Token], context: Context) -> list[Fault]:
    """What the reason made of `tokens` says against the context; [] where nothing is found."""
    wrong = [fault for at, token in enumerate(tokens) if (fault := _wrong_comparison(at, token, tokens))]
    if context.job is None or context.candidate is None:
        return wrong
    items = _items(tokens, context)
    _set_polarities(items)
    wrong += _claimed_and_denied(items, context.job, context.candidate)
    wrong += _claimed_numbers(tokens, context.job, context.candidate)
    wrong += _quantified(items, context.job, context.candidate)
    return wrong + _wrong_details(items, tokens, context.job, context.candidate)


def find_terms(tokens: list[Token], terms: frozenset[Term]) -> list[tuple[int, Term]]:
    """Where terms stand in `tokens`, the longest at each place, left to right without overlap: (index, term)."""
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


def _items(tokens: list[Token], context: Context) -> list[Item]:
    """Terms and words in order, cut into clauses at punctuation and "and"; words in brackets are left out."""
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
        elif any(not item.named and item.words[0] in VERBS for item in clause):
            state = 0
        turned = False
        for at, item in enumerate(clause):
            if item.named:
                item.polarity = state
                waiting += [item] if state == 0 else []
                continue
            if _denies_waiting(clause, at, waiting):
                for earlier in waiting:
                    earlier.polarity = -1
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


def _denies_waiting(clause: list[Item], at: int, waiting: list[Item]) -> bool:
    word = clause[at].words[0]
    before = clause[at - 1] if at else None
    follows = before is not None and (before.named or before.words[0] in AUXILIARIES)
    negated = word == "not" and at + 1 < len(clause) and clause[at + 1].words[0] in FOUND
    return bool(waiting) and follows and (word in ABSENT or negated)


def _turn(state: int, word: str, before: str) -> int:
    """The polarity after `word`: a second denial right after a first one undoes it ("not lacking Python")."""
    if word in LACKS:
        return 1 if before in LACKS and word != "no" else -1
    if word in HAS | PRAISES:
        return -1 if before in LACKS else 1
    return 0 if word in TURNS else state


def _claimed_and_denied(items: list[Item], job: Part, candidate: Part) -> list[Fault]:
    wrong: list[Fault] = []
    for at, item in enumerate(items):
        name = quote(" ".join(item.words))
        if item.polarity > 0 and item.words in job.runs and item.words not in candidate.runs:
            wrong.append(_fault_at(item, f"claims {name}, which only the job names"))
        if item.polarity < 0 and item.words in candidate.runs and not _qualified(items, at):
            wrong.append(_fault_at(item, f"denies {name}, which stands in the candidate's profile"))
    return wrong


def _fault_at(item: Item, text: str) -> Fault:
    return Fault(item.start, item.start + len(item.words), text)


def _claimed_numbers(tokens: list[Token], job: Part, candidate: Part) -> list[Fault]:
    """ "has 6 years" where only the job speaks of 6."""
    return [
        Fault(at, at + 1, f"claims {quote(token.text)}, which only the job names")
        for at, (verb, token) in enumerate(pairwise(tokens), start=1)
        if verb.key in HAS and token.unit and grounded(token, job.numbers) and not grounded(token, candidate.numbers)
    ]


def _qualified(items: list[Item], at: int) -> bool:
    """Whether "lacks Python" is about how much: "lacks advanced Python", "no Python at expert level"."""
    near = [item for item in items[max(0, at - 3) : at + 4] if item.clause == items[at].clause and not item.named]
    return any(item.words[0] in QUALIFIERS or item.words[0].isdigit() for item in near)


def _quantified(items: list[Item], job: Part, candidate: Part) -> list[Fault]:
    """ "covers none of the required skills" and "has all required skills", held against the job's own list."""
    words = [item.words[0] for item in items]
    have = {term for term in job.required if term in candidate.runs}
    wrong: list[Fault] = []
    for at, word in enumerate(words):
        ahead = words[at + 1 : at + 5]
        if word not in NONE | EVERY or REQUIREMENTS.isdisjoint(ahead) or not BESIDES.isdisjoint(words[at:]):
            continue
        before = words[max(0, at - 2) : at]
        none = word in NONE or not LACKING.isdisjoint(before)
        text = ""
        if none and have:
            text = f"says none of what the job asks for, but {quote(' '.join(min(have)))} is in the profile"
        elif not none and "not" not in before and len(have) < len(job.required):
            gap = min(job.required - have)
            text = f"says all of what the job asks for, but {quote(' '.join(gap))} is not in the profile"
        if text:
            asked = next(i for i, word in enumerate(ahead, start=at + 1) if word in REQUIREMENTS)
            wrong.append(Fault(items[at].start, items[asked].start + 1, text))
    return wrong


def _wrong_details(items: list[Item], tokens: list[Token], job: Part, candidate: Part) -> list[Fault]:
    """Levels and months tied to a skill that has others: "Python (expert, 48m)" where these are SQL's."""
    wrong: list[Fault] = []
    for item in items:
        known = candidate.details.get(item.words)
        if not item.named or known is None or item.words in job.details:
            continue
        said, numbers = _said_of(item, tokens)
        if said and known.level and said != known.level:
            wrong.append(_fault_at(item, f"says {said} of {quote(' '.join(item.words))}, which is {known.level}"))
        wrong += [
            Fault(at := tokens.index(token), at + 1, f"says {token.text} of {quote(' '.join(item.words))}")
            for token in numbers
            if known.numbers and not grounded(token, known.numbers)
        ]
    return wrong


def _said_of(item: Item, tokens: list[Token]) -> tuple[str, list[Token]]:
    """The level said of a term, and the numbers in brackets after it."""
    after = tokens[item.start + len(item.words) :]
    if after and "(" in after[0].before:
        ends = (at for at, token in enumerate(after) if at and ")" in token.before)
        inside = after[: next(ends, len(after))]
        level = next((token.key for token in inside if token.key in LEVELS), "")
        return level, [token for token in inside if token.value is not None]
    rest = [token.key for token in after[:3]]
    while rest and rest[0] in ("is", "at", "skill", "skills"):
        rest.pop(0)
    if rest and rest[0] in LEVELS and item.polarity >= 0:  # "no Excel at expert level" says none of it
        return rest[0], []
    before = tokens[item.start - 1].key if item.start else ""
    return (before, []) if item.polarity > 0 and before in LEVELS else ("", [])


def _wrong_comparison(at: int, word: Token, tokens: list[Token]) -> Fault | None:
    """What is wrong with a comparison of years or months such as "1 year is inside 3-6"; None if nothing or none."""
    far = next((i for i in range(at - 1, max(-1, at - 5), -1) if tokens[i].value is not None), None)
    near = next((i for i in range(at + 1, min(at + 4, len(tokens))) if tokens[i].value is not None), None)
    if word.key not in BELOW | ABOVE | INSIDE or far is None or near is None:
        return None
    left, right = tokens[far], tokens[near]
    after = tokens[near + 1] if near + 1 < len(tokens) else None
    ranged = after is not None and after.value is not None and after.before.strip() in ("-", "–", "—")
    low, high = right.value, after.value if ranged else math.inf if right.text.endswith("+") else right.value
    same_unit = {left.unit, right.unit} in ({"year"}, {"year", ""}, {"month"})
    if not same_unit or (word.key in INSIDE and low == high):
        return None
    if word.key in BELOW:
        holds = left.value < low
    else:
        holds = left.value > (low if high == math.inf else high) if word.key in ABOVE else low <= left.value <= high
    shown = f"{right.text}-{after.text}" if ranged else right.text
    return None if holds else Fault(far, near + 1 + ranged, f"{quote(left.text)} is not {word.key} {quote(shown)}")
