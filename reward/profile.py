"""The context a completion is checked against: its tokens, and the job and the candidate where markers part them.

A term is what a reason can claim or deny: a run of capitalised words ("Data Engineer", "Python") or an item of a
labelled list ("Required: dbt, pandas"), outside brackets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from reward.tokens import Token, quantities, tokenise
from reward.words import FUNCTION_WORDS, GENERIC_WORDS, LEVELS

Term = tuple[str, ...]
MAX_TERM_TOKENS = 4

_MARKER = re.compile(r"^[ \t]*\[(JOB|CANDIDATE)(?:[ ]\w{1,20})?\]", re.IGNORECASE | re.MULTILINE)
_BRACKETED = re.compile(r"\([^()]*\)")
_STAY = re.compile(r"\bat ([^,;:()\n]{1,60}), (\d[\d.]* ?(?:m|months?|years?))[ \t]*(?=[;:(.]|$)", re.MULTILINE)
# The text after a stay on its line; none where a full stop ends it.
_WORK = re.compile(r"(?!\.)[^;\n]*|")
_TITLE = re.compile(r"\A\s*(?:(?:job )?(?:title|role|position|job|description)[ ]?:)?([^\n:,.;|(]*)", re.IGNORECASE)
_SEGMENT_END = re.compile(r"[,;:|\n]|[.!?](?=\s|$)")
_JOINED = re.compile(r"\b(?:and|or)\b|[/&]")
_ASKS = re.compile(r"requir|need|must", re.IGNORECASE)


class Detail(NamedTuple):
    """The level and months in the brackets after a skill: "Python (advanced, 30m)"."""

    level: str  # "" where none is given
    numbers: frozenset[tuple[float, str]]
    text: str  # as it stands there, brackets included


@dataclass(frozen=True)
class Part:
    """One side of the context: every run of up to four token keys in it, its terms, and those it asks for."""

    title: str  # what it begins with: "Data Engineer" of "Title: Data Engineer" and of "Data Engineer: ..."
    runs: frozenset[Term]
    terms: frozenset[Term]
    required: frozenset[Term]
    asked: tuple[int, int]  # at least and at most so many things: "Wiring, Testing and Tagging" are two or three
    numbers: frozenset[tuple[float, str]]
    years: frozenset[float]  # those written as years, not months that come to some
    details: dict[Term, Detail]  # what stands in brackets after a term
    used: frozenset[Term] | None  # every run in the text about the work at each stay; None where there is none
    stays: dict[Term, frozenset[tuple[float, str]]]  # how long where: "Data Analyst at Northwind, 24m"


@dataclass(frozen=True)
class Context:
    """The whole context for grounding, and its two parts for contradictions (None without the two markers)."""

    tokens: tuple[Token, ...]
    keys: frozenset[str]
    numbers: frozenset[tuple[float, str]]
    terms: frozenset[Term]
    job: Part | None
    candidate: Part | None


@lru_cache(maxsize=64)  # a group of G completions shares one context
def read_context(text: str) -> Context:
    """Split `text` at its [JOB] and [CANDIDATE] headings and index both sides."""
    marks = list(_MARKER.finditer(text))
    sides = {"job": "", "candidate": ""}
    for mark, following in zip(marks, [*(m.start() for m in marks[1:]), len(text)], strict=False):
        sides[mark[1].lower()] += text[mark.end() : following] + "\n"
    plain = _MARKER.sub("\n", text)
    tokens = tokenise(plain)
    parted = {mark[1].lower() for mark in marks} == set(sides)
    job, candidate = (_part(sides["job"]), _part(sides["candidate"])) if parted else (None, None)
    return Context(
        tokens=tuple(tokens),
        keys=frozenset(token.key for token in tokens if token.value is None),
        numbers=quantities(tokens),
        terms=job.terms | candidate.terms if job and candidate else _part(plain).terms,
        job=job,
        candidate=candidate,
    )


def _part(text: str) -> Part:
    tokens = tokenise(text)
    terms: set[Term] = set()
    listed: set[Term] = set()  # after "Required:"
    needed: set[Term] = set()  # in a sentence such as "You will need Python"
    asks = labelled = listing = False
    starts = opens = True
    least = most = 0
    for segment, end in _segments(_BRACKETED.sub(" ", text)):
        asks = asks or bool(_ASKS.search(segment))
        if end != ":":
            found = _terms(tokenise(segment), starts, labelled)
            terms |= found
            listed |= found if listing else set()
            needed |= found if asks else set()
            least += listing
            most += listing * (1 + len(_JOINED.findall(segment)))
        starts = end in ".!?\n"
        labelled = end == ":" or (labelled and not starts)
        # "Required: A, B; Nice: C" opens a list and ends it; "About: We need two things: A, B" opens none.
        listing = opens and bool(_ASKS.search(segment)) if end == ":" else listing and not starts
        opens = end in ".!?\n;|"
        asks = asks and not starts
    required = frozenset(listed or needed)
    years = frozenset(token.value for token in tokens if token.unit == "year" and token.value is not None)
    title = _TITLE.search(text)
    return Part(
        title=title[1].strip() if title else "",
        runs=_runs(tokens),
        terms=frozenset(terms),
        required=required,
        asked=(least, most),
        numbers=quantities(tokens),
        years=years,
        details=_details(text),
        used=_used(text),
        stays=_stays(text),
    )


def _runs(tokens: list[Token]) -> frozenset[Term]:
    keys = [token.key for token in tokens]
    return frozenset(tuple(keys[at : at + n]) for n in range(1, MAX_TERM_TOKENS + 1) for at in range(len(keys) - n + 1))


def _segments(text: str) -> list[tuple[str, str]]:
    """Cut `text` at list and sentence punctuation; return each piece with the sign that ended it."""
    pieces: list[tuple[str, str]] = []
    at = 0
    for match in _SEGMENT_END.finditer(text):
        pieces.append((text[at : match.start()], match[0]))
        at = match.end()
    return [*pieces, (text[at:], "\n")]


def _terms(tokens: list[Token], starts: bool, labelled: bool) -> set[Term]:
    keys = tuple(token.key for token in tokens)
    # "ISO 9001" is a name, "24m" is none.
    plain = [not _empty(token, at) and not token.unit for at, token in enumerate(tokens)]
    # "Skills: Employment Claims" lists one name, though "employment" alone says nothing.
    named = any(plain) and all(token.namelike for token in tokens)
    if labelled and (all(plain) or named) and 0 < len(plain) <= 3:
        return {keys}
    found: set[Term] = set()
    run: list[str] = []
    for at, token in enumerate([*tokens, None]):
        if token is not None and token.namelike and not _empty(token, at):
            run.append(token.key)
            continue
        prose = starts and at == len(run)  # the run opened a sentence: its first capital may be no name
        if run and not (prose and len(run) == 1 and token is not None):
            found.add(tuple(run[:MAX_TERM_TOKENS]))
        if prose and len(run) > 1 and token is not None:
            found.add(tuple(run[1:MAX_TERM_TOKENS]))
        run = []
    return found


def _empty(token: Token, at: int) -> bool:
    """Return True if the word at this place of a segment is no part of a name."""
    if token.key in GENERIC_WORDS:
        return True
    # Inside a name such words have a capital ("Special Needs Teacher"); at its start only "A/B Testing" does.
    inside = token.namelike and (at > 0 or token.text == "A")
    return token.key in FUNCTION_WORDS and not inside


def _details(text: str) -> dict[Term, Detail]:
    details: dict[Term, Detail] = {}
    for match in _BRACKETED.finditer(text):
        tokens = tokenise(match[0])
        level = next((token.key for token in tokens if token.key in LEVELS), "")
        name = _SEGMENT_END.split(text[max(0, match.start() - 60) : match.start()].replace(")", ","))[-1]
        if term := tuple(token.key for token in tokenise(name)):
            detail = Detail(level, quantities(tokens), match[0])
            if (other := details.get(term)) and other.level != level:
                detail = Detail("", detail.numbers | other.numbers, f"{other.text} and {detail.text}")
            details[term] = detail
    return details


def _stays(text: str) -> dict[Term, frozenset[tuple[float, str]]]:
    stays: dict[Term, frozenset[tuple[float, str]]] = {}
    for match in _STAY.finditer(text):
        term = tuple(token.key for token in tokenise(match[1]))
        stays[term] = stays.get(term, frozenset()) | quantities(tokenise(match[2]))
    return stays


def _used(text: str) -> frozenset[Term] | None:
    """Return the runs in the text after each stay: "at Northwind, 24m (SQL)" -> SQL."""
    used: frozenset[Term] = frozenset()
    for match in _STAY.finditer(text):
        work = _WORK.match(text, match.end())
        used |= _runs(tokenise(work[0])) if work else frozenset()
    return used or None
