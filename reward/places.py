"""Names where they do not belong: "work as SQL", "24m at Python", "48m of Northwind", "work shows Excel" of a clerk's.

Skills are known by their brackets, companies by how long somebody was there; where a profile has neither, nothing is
held against a reason.
"""

from __future__ import annotations

from itertools import pairwise, takewhile

from reward.breakdown import quote
from reward.clauses import Fault, Item
from reward.profile import Part
from reward.titles import kinship
from reward.tokens import Token
from reward.words import LACKS, TURNS, VERBS, WORKS


def misplaced(items: list[Item], tokens: list[Token], job: Part, candidate: Part) -> list[Fault]:
    """What a reason says of a title, a skill, a company or the work that is none of the candidate's."""
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
    if company and not skill and (item.degree or (length and link == "of")):
        return [item.fault(f"takes {item.name} for a skill")]
    if skill and not company and length and link == "at":
        return [item.fault(f"takes {item.name} for a company")]
    return []


def _wrong_work(items: list[Item], tokens: list[Token], job: Part, candidate: Part) -> list[Fault]:
    """ "work shows Excel" and "work ... is unrelated", held against what the profile says of the work."""
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
    """ "work as Data Analyst is unrelated" to a Data Engineer's, "work as Baker is related" where nothing says so."""
    keys = [token.key for token in tokens]
    wrong: list[Fault] = []
    for item in named:
        stop = item.start + len(item.words)
        verdict = next(iter(keys[stop + (keys[stop : stop + 1] == ["is"]) :]), "")
        if keys[max(0, item.start - 2) : item.start] != ["work", "as"] or verdict not in ("related", "unrelated"):
            continue
        near = kinship(" ".join(item.words), job.title)
        if verdict == "unrelated" and near == 1:
            wrong.append(item.fault(f"says {item.name} is unrelated to {quote(job.title)}"))
        if verdict == "related" and not near and candidate.used is not None and not job.terms & candidate.used:
            wrong.append(item.fault(f"says {item.name} is related to {quote(job.title)}, which nothing shows"))
    return wrong


def _shown(items: list[Item], keys: list[str]) -> list[Item]:
    """The terms that "work shows" is said of: those of its list."""
    start = next((at for at, pair in enumerate(pairwise(keys)) if pair == ("work", "shows")), len(keys)) + 2
    after = [item for item in items if item.start >= start]
    listed = takewhile(lambda item: item.named or (not item.hard and item.words[0] not in VERBS | TURNS), after)
    return [item for item in listed if item.named]
