"""Names where they do not belong: "work as SQL", "24m at Python", "4 years is inside Northwind", "work shows Excel".

Skills are known by their brackets, companies by how long somebody was there; where a profile has neither, nothing is
held against a reason.
"""

from __future__ import annotations

from itertools import dropwhile, pairwise, takewhile

from reward.breakdown import quote
from reward.clauses import Fault, Item
from reward.profile import Part
from reward.titles import may_be_near, of_field
from reward.tokens import Token
from reward.words import LACKS, NUMBER_WORDS, TURNS, VERBS, WITHIN, WORKS

_CUTS = frozenset(",.;:(")
_LEADING = frozenset(("is", "was", "closely", "directly", "clearly", "very", "well"))


def misplaced(items: list[Item], tokens: list[Token], job: Part, candidate: Part) -> list[Fault]:
    """Find claims about a title, a skill, a company or the work that are not the candidate's."""
    named = [item for item in items if item.named]
    wrong = [fault for item in named for fault in _misplaced(item, tokens, candidate)]
    return wrong + _wrong_work(items, tokens, job, candidate) + _wrong_kinship(named, tokens, job, candidate)


def _misplaced(item: Item, tokens: list[Token], candidate: Part) -> list[Fault]:
    skill, company = item.words in candidate.details, item.words in candidate.stays
    before = [token.key for token in tokens[max(0, item.start - 2) : item.start]]
    link = before[-1] if len(before) == 2 else ""
    length = link in ("at", "of") and bool(tokens[item.start - 2].unit)
    if link == "as" and before[0] in WORKS:
        if item.words not in candidate.runs:
            return [item.fault(f"says work as {item.name}, which is not in the profile")]
        if skill or company:
            return [item.fault(f"says work as {item.name}, which is no title")]
    if before[:1] == ["is"] and link in WITHIN and _holds_years(item, tokens):
        return [item.fault(f"says years are {link} {item.name}, which is no range")]
    if company and not skill and (item.degree or (length and link == "of")):
        return [item.fault(f"takes {item.name} for a skill")]
    if skill and not company and length and link == "at":
        return [item.fault(f"takes {item.name} for a company")]
    return []


def _holds_years(item: Item, tokens: list[Token]) -> bool:
    """Return True if the name in "4 years is inside Data Engineer" ends its clause, and no range follows."""
    years = any(token.unit == "year" for token in tokens[max(0, item.start - 4) : item.start - 2])
    rest = tokens[item.start + len(item.words) :]
    ends = not rest or rest[0].key == "at" or not _CUTS.isdisjoint(rest[0].before)
    ranged = any(token.key in NUMBER_WORDS or (token.value is not None and token.unit != "month") for token in rest)
    return years and ends and not ranged


def _wrong_work(items: list[Item], tokens: list[Token], job: Part, candidate: Part) -> list[Fault]:
    """Check "work shows Excel" and "work ... is unrelated" against the profile's text about the work."""
    keys = [token.key for token in tokens]
    if candidate.used is None or "work" not in keys:
        return []
    wrong = [
        item.fault(f"says the work shows {item.name}, which does not stand there")
        for item in _shown(items, keys)
        if item.polarity >= 0 and item.words in candidate.details and item.words not in candidate.used
    ]
    at = keys.index("unrelated") if "unrelated" in keys else 0
    said = at > 0 and (keys[at - 1] in ("is", "are") or "," in tokens[at].before) and LACKS.isdisjoint(keys[:at])
    if said and (used := job.required & candidate.used):
        wrong.append(Fault(at, at + 1, f"says unrelated of work that shows {quote(' '.join(min(used)))}"))
    return wrong


def _wrong_kinship(named: list[Item], tokens: list[Token], job: Part, candidate: Part) -> list[Fault]:
    """Check verdicts on work such as "work as Data Analyst is unrelated" against the job's title."""
    wrong: list[Fault] = []
    for item in named:
        verdict = _kinship_said(item, tokens)
        title = " ".join(item.words)
        if verdict == "unrelated" and of_field(title, job.title):
            wrong.append(item.fault(f"says {item.name} is unrelated to {quote(job.title)}"))
        shown = candidate.used is None or job.terms & candidate.used or may_be_near(title, job.runs)
        if verdict == "related" and not shown:
            wrong.append(item.fault(f"says {item.name} is related to the job, which nothing shows"))
    return wrong


def _kinship_said(item: Item, tokens: list[Token]) -> str:
    """Return the verdict on work: "worked as a Baker, closely related" -> "related"; "" where none is plain."""
    opens = max((at for at in range(item.start) if not _CUTS.isdisjoint(tokens[at].before)), default=0)
    before = [token.key for token in tokens[opens : item.start] if token.key not in ("a", "an")]
    if before[-1:] != ["as"] or WORKS.isdisjoint(before[-2:]) or not LACKS.isdisjoint(before):
        return ""
    keys = [token.key for token in tokens[item.start + len(item.words) :]]
    after = list(dropwhile(_LEADING.__contains__, keys))
    # "unrelated to SQL" is no verdict on the job.
    plain = after[1:2] != ["to"] or after[2:3] in (["the"], ["this"])
    return after[0] if after[:1] in (["related"], ["unrelated"]) and plain else ""


def _shown(items: list[Item], keys: list[str]) -> list[Item]:
    """Return the terms in the list after "work shows"."""
    start = next((at for at, pair in enumerate(pairwise(keys)) if pair == ("work", "shows")), len(keys)) + 2
    after = [item for item in items if item.start >= start]
    listed = takewhile(lambda item: item.named or (not item.hard and item.words[0] not in VERBS | TURNS), after)
    return [item for item in listed if item.named]
