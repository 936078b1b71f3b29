"""The years of experience that a job asks for; not those of its firm, of a degree or of one skill."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from mlx_grpo.tasks.shortlist.posting.clauses import sentences_of
from mlx_grpo.tasks.shortlist.posting.names import Names
from mlx_grpo.tasks.shortlist.posting.sections import Part
from mlx_grpo.tasks.shortlist.posting.words import WORDS, phrase_pattern, trimmed_words

MOST_YEARS = 50
MOST_STATEMENTS = 10
"""Of one sentence; it bounds the time."""

_NUMBERS = {word: str(value) for value, word in enumerate(WORDS["numbers"])}
_NUMBER_WORD = re.compile(rf"\b({'|'.join(_NUMBERS)})\b(?:\s*\(\s*\d{{1,2}}\s*\+?\s*\))?", re.IGNORECASE)
_N = r"(\d{1,2})(?:\.\d)?"
_UNIT = r"(?:years?|yrs?|y\.?o\.?e|y(?=\s+(?:of\s+)?exp))\b\.?'?"
_RANGE = re.compile(
    rf"(?<![\w.,$€£₹]){_N}\s*\+?\s*(?:{_UNIT})?\s*(?:-+|to|and|~)\s*{_N}\s*\+?\s*{_UNIT}", re.IGNORECASE
)
_MOST = re.compile(
    r"\b(?:up to|upto|maximum(?: of)?|max\.?|at most|no more than|not more than|(?<!no )(?<!not )less than|under|below"
    rf"|not exceeding)"
    rf"\s*:?\s*{_N}\s*{_UNIT}",
    re.IGNORECASE,
)
_LEAST = re.compile(
    rf"\b(?:at least|minimum(?: \w+){{0,2}}|min\.?(?: \w+){{0,2}}|more than|over|no less than|not less than|above|from)"
    rf"\s*:?\s*{_N}\s*\+?\s*{_UNIT}"
    rf"|(?<![\w.,$€£₹-]){_N}\s*(?:\+|plus\b|or more\b|or above\b)\s*(?:\w+ )?{_UNIT}"
    rf"|(?<![\w.,$€£₹-]){_N}\s*{_UNIT}\s*(?:\+|plus\b|or more\b|or above\b|and above\b|minimum\b|min\b)",
    re.IGNORECASE,
)
_PLAIN = re.compile(rf"(?<![\w.,$€£₹-]){_N}\s*{_UNIT}", re.IGNORECASE)
_LABELLED = re.compile(rf"(?:{_N}\s*(?:-|to)\s*{_N}|{_N}\s*(\+)?)(?:\s*{_UNIT})?[\s+.]*(?:\(.*\))?", re.IGNORECASE)
_EXPERIENCE = re.compile(r"\bexp(?:erience|erienced)?\b|\byoe\b|\bhands-on\b", re.IGNORECASE)
_EXPERIENCE_LABEL = re.compile(r"\b(?:experience|exp|yoe|years)\b", re.IGNORECASE)
_NONE_NEEDED = re.compile(
    r"\bno (?:prior |previous |work |professional )*experience (?:is )?(?:required|needed|necessary)|\bfreshers?\b"
    r"|\bexperience (?:is )?not (?:required|needed|necessary)",
    re.IGNORECASE,
)
_HAS = re.compile(r"\b(?:has|brings|boasts|offers|celebrates)\b", re.IGNORECASE)
_COMPANY = phrase_pattern(WORDS["company_words"])
_CANDIDATE = phrase_pattern(WORDS["not_company"])
_JOINING = frozenset(WORDS["years_to_skill"])
_OTHER_YEARS = phrase_pattern(WORDS["not_experience"])


@dataclass(frozen=True, slots=True)
class Years:
    """A range of years that a text asks for."""

    low: int
    high: int | None
    line: str
    rank: int
    """0 for a labelled line, 1 for years of experience, 2 for any other years."""
    skill: str = ""
    """The one skill that these are years of."""


def read_years(parts: Sequence[Part], names: Names, title: str) -> tuple[Years | None, list[Years]]:
    """Return the job's years, None where the text gives none, and the years of single skills."""
    found: list[Years] = []
    for part in parts:
        if part.heading or part.kind in ("avoid", "excluded", "title", "nice"):
            continue
        found += _labelled(part)
        for sentence in sentences_of(_numbers(part.text)):
            found += _joined(list(_statements(sentence.text, part, names, title)))
    whole = [years for years in found if not years.skill]
    best = min(whole, key=lambda years: years.rank, default=None)
    return _bounded(whole, best), [years for years in found if years.skill]


def _numbers(text: str) -> str:
    """Write number words as digits: "five (5) years" becomes "5 years", "fresher to 2 years" "0 to 2 years"."""
    text = re.sub(r"\bfreshers?(?=\s*(?:-|to)\s*\d)", "0", text, flags=re.IGNORECASE)
    return _NUMBER_WORD.sub(lambda match: _NUMBERS[match[1].lower()], text)


def _bounded(found: list[Years], best: Years | None) -> Years | None:
    """Complete "Minimum experience: 3 years" by a line "Maximum experience: 6 years"."""
    if best is None or best.rank or best.high is not None:
        return best
    for other in found:
        if other.rank == 0 and other.low == 0 and other.high is not None and other.high >= best.low > 0:
            return replace(best, high=other.high)
    return best


def _joined(found: list[Years]) -> list[Years]:
    """Join "minimum 5 years, maximum 8 years" of one sentence."""
    least = [years for years in found if years.high is None and not years.skill]
    most = [years.high for years in found if years.low == 0 and years.high is not None]
    if len(found) == 2 and least and most and most[0] >= least[0].low:
        return [replace(least[0], high=most[0])]
    return found


def _labelled(part: Part) -> list[Years]:
    """Read "Experience: 3-5", where the unit may be left out."""
    if not part.label or not _EXPERIENCE_LABEL.search(part.label):
        return []
    match = _LABELLED.fullmatch(_numbers(part.text).strip())
    if match is None:
        return []
    if match[3]:
        low, high = int(match[3]), None
        if re.search(r"\bmax", part.label):
            low, high = 0, low
    else:
        low, high = int(match[1]), int(match[2])
    fits = low <= MOST_YEARS and (high is None or low <= high)
    return [Years(low, high, part.line, 0)] if fits else []


def _statements(text: str, part: Part, names: Names, title: str) -> Iterator[Years]:
    labelled = bool(_EXPERIENCE_LABEL.search(part.label)) and part.kind != "metadata"
    if _NONE_NEEDED.search(text) and not re.search(r"\d", text):
        yield Years(0, None, part.line, 1)
    taken: list[tuple[int, int]] = []
    for start, end, low, high, plain in islice(_spans(text), MOST_STATEMENTS):
        if any(start < right and left < end for left, right in taken):
            continue
        taken.append((start, end))
        if low > MOST_YEARS or (high is not None and low > high) or _is_other(text, start, end):
            continue
        skill = _skill_of(text, start, end, names, title)
        about = bool(_EXPERIENCE.search(text)) or "yoe" in text[start:end].lower().replace(".", "")
        opens_demand = part.kind == "required" and start == 0  # "2 years on a ward"
        if plain and not skill and not (about or labelled or opens_demand):
            continue
        yield Years(low, high, part.line, 0 if labelled else 1 if about else 2, skill)


def _spans(text: str) -> Iterator[tuple[int, int, int, int | None, bool]]:
    """Yield each statement's place, bounds, and True where it gives a bare number."""
    for match in _RANGE.finditer(text):
        yield *match.span(), int(match[1]), int(match[2]), False
    for match in _MOST.finditer(text):
        yield *match.span(), 0, int(match[1]), False
    for match in _LEAST.finditer(text):
        yield *match.span(), int(match[1] or match[2] or match[3]), None, False
    for match in _PLAIN.finditer(text):
        yield *match.span(), int(match[1]), None, True


def _is_other(text: str, start: int, end: int) -> bool:
    """Return True for years of the firm, of age, of a contract or of a degree."""
    of_firm = _COMPANY.search(text) or _HAS.search(text, 0, start)
    if of_firm and not _CANDIDATE.search(text):
        return True
    before, after = " ".join(trimmed_words(text[:start])[-3:]), " ".join(trimmed_words(text[end:])[:3])
    return bool(_OTHER_YEARS.search(f"{before} | {after}"))


def _skill_of(text: str, start: int, end: int, names: Names, title: str) -> str:
    """Return the one skill that years belong to: "Python (3 years)", "3 years of SQL"; "" where they are the job's.

    Years with the skill in the job's title, or with a whole field of work, are the job's.
    """
    mentions = names.find(text)
    behind = [mention for mention in mentions if mention.start >= end]
    gap = text[end : behind[0].start] if behind else ""
    joined = len(behind) > 1 and re.fullmatch(
        r"\s*(?:,|and|or|&|/)\s*(?:and |or )?", text[behind[0].end : behind[1].start]
    )
    words = trimmed_words(gap)
    adjectives = [word for word in words if word not in _JOINING]
    is_work = any(word.endswith("ing") for word in adjectives)  # "years building data pipelines"
    direct = bool(behind) and not re.search(r"[,;():]", gap) and len(adjectives) <= 1 and not is_work
    if direct and not (joined and "experience" in words):
        name = behind[0].name
    else:
        before = [mention for mention in mentions if mention.end <= start]
        if not before or not re.fullmatch(
            r"\s*(?:\(|-|:|,|for|experience)*\s*(?:for |min\.? |minimum )?", text[before[-1].end : start]
        ):
            return ""
        name = before[-1].name
    in_title = set(trimmed_words(name.name)) <= set(trimmed_words(title))
    return "" if name.field or in_title else name.name
