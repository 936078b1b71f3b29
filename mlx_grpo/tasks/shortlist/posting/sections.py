"""The sections of a description: every line with the kind of heading or label that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

from mlx_grpo.tasks.shortlist.posting.text import Line
from mlx_grpo.tasks.shortlist.posting.words import WORDS, phrase_pattern, trimmed_words

Kind = Literal[
    "body",
    "required",
    "ideal",
    "nice",
    "avoid",
    "excluded",
    "company",
    "duties",
    "stack",
    "unknown",
    "title",
    "metadata",
]
MAX_HEADING_WORDS = 12
MAX_LABEL_WORDS = 6
PARAGRAPH_FROM = 60
"""Characters of a line of prose; a line of a list is shorter."""

_HEADINGS: list[tuple[str, re.Pattern[str]]] = [(kind, phrase_pattern(phrases)) for kind, phrases in WORDS["headings"]]
_TITLE_LABELS = frozenset(WORDS["title_labels"])
_WEAK_TITLE_LABELS = frozenset(WORDS["title_labels_weak"])
_HEADING_NOUNS = frozenset(("qualifications", "requirements", "skills", "points", "required"))
_COMPANY = re.compile(rf"(?:{phrase_pattern(WORDS['company_openings']).pattern})\s", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_METADATA = frozenset(WORDS["metadata"])
_NEXT_LABEL = re.compile(r"(?:[|;•·]|[.!])\s+(?=[A-Z][\w /&-]{1,40}?\s?(?::|\s-)\s)")
_LABEL = re.compile(r"(.{1,60}?)\s*(?::-?|\s-|=)\s*(?<![\w-])(\S.*)")


def _heading_words() -> tuple[frozenset[str], tuple[str, ...]]:
    words = [word for _, phrases in WORDS["headings"] for phrase in phrases for word in phrase.split()]
    whole = {word for word in words if not word.endswith("*")} | set(WORDS["fillers"])
    return frozenset(whole), tuple(sorted({word[:-1] for word in words if word.endswith("*")}))


_WHOLE_WORDS, _STEMS = _heading_words()


@dataclass(frozen=True, slots=True)
class Part:
    """One line, or what stands behind its label, with the kind of its section."""

    kind: Kind
    text: str
    line: str
    """The whole line."""
    heading: bool = False
    bullet: bool = False
    label: str = ""
    """The label before the text, in lower case: "required skills"."""


def parts_of(lines: list[Line], names_skill: Callable[[str], bool]) -> list[Part]:
    """Assign each line to a section; `names_skill` returns True for a text with the name of a skill."""
    lines = [piece for line in lines for piece in _by_label(line)]
    parts: list[Part] = []
    section: Kind = "body"
    label_kind: Kind | None = None  # of the label line above, for the bullets below it
    for at, line in enumerate(lines):
        after = lines[at + 1] if at + 1 < len(lines) else Line("")
        before = lines[at - 1] if at else Line("")
        heading = _heading(before, line, after, section, names_skill)
        label = None if heading else label_of(line.text)
        if heading:
            section, label_kind = heading, None
            parts.append(Part(section, line.text, line.text, heading=True))
            continue
        if label:
            name, kind, content = label
            kind = kind or section
            # "Notice period: immediate. Docker is a plus.": a fact is one sentence.
            fact = _SENTENCE_END.search(content) if kind == "metadata" else None
            own = content[: fact.start()] if fact else content
            parts.append(Part(kind, own, line.text, bullet=line.bullet, label=name))
            if fact and content[fact.end() :]:
                parts.append(Part(section, content[fact.end() :], line.text, bullet=line.bullet))
            label_kind = kind if not line.bullet and kind in ("required", "nice", "avoid") else None
            continue
        label_kind = label_kind if line.bullet else None
        parts.append(Part(label_kind or section, line.text, line.text, bullet=line.bullet))
    return parts


def label_of(text: str) -> tuple[str, Kind | None, str] | None:
    """Split "Required: Python" into the label, its kind and the rest; None where there is no known label.

    The kind is None for a neutral label such as "Languages".
    """
    match = _LABEL.fullmatch(text)
    if match is None:
        return None
    name = " ".join(trimmed_words(re.sub(r"[^\w\s'+#&-]", " ", match[1])))
    name = name.removeprefix("the ").removeprefix("our ")
    if not name or len(name.split()) > MAX_LABEL_WORDS:
        return None
    if name in _TITLE_LABELS or name in _WEAK_TITLE_LABELS:
        return name, "title", match[2]
    if name in _METADATA:
        return name, "metadata", match[2]
    if not _only_heading_words(name):
        return None
    kind = heading_kind(name)
    return None if kind is None else (name, None if kind == "neutral" else _as_kind(kind), match[2])


def _by_label(line: Line) -> list[Line]:
    """Split a line before each known label in it: "Skills: Python | Good to have: Docker | Location: Pune"."""
    cuts = [0, *(cut.end() for cut in _NEXT_LABEL.finditer(line.text) if label_of(line.text[cut.end() :])), None]
    pieces = [line.text[start:end].strip(" |;•·") for start, end in pairwise(cuts)]
    return [replace(line, text=piece) for piece in pieces if piece]


def heading_kind(text: str) -> str | None:
    """Return the kind of the first phrase of a heading that a text contains."""
    plain = " ".join(re.sub(r"[^\w\s'+#]|_", " ", text.lower()).split())
    return next((kind for kind, pattern in _HEADINGS if pattern.search(plain)), None)


def _heading(before: Line, line: Line, after: Line, section: Kind, names_skill: Callable[[str], bool]) -> Kind | None:
    """Return the section that a line opens, or None where it is no heading."""
    text = line.text
    words = trimmed_words(text)
    colon = text.endswith(":")
    if not words or len(words) > MAX_HEADING_WORDS or (text[-1] in ".,;" and not line.marked):
        return None
    if not colon and re.search(r":\s|\s-\s", text) and label_of(text):
        return None
    if not (colon or line.marked) and re.search(r"\d", text):
        return None  # "3-5 years of experience" above a list
    only = _only_heading_words(text)
    kind = heading_kind(text)
    if not only and names_skill(text):
        return None
    if kind in (None, "neutral") and not colon and _COMPANY.match(text) and len(words) <= MAX_LABEL_WORDS:
        return None if line.bullet else "company"
    if kind is None or (kind == "neutral" and not only):
        return _unknown_heading(line, after, len(words), section)
    listed = after.bullet and not line.bullet
    if line.bullet and not colon and not _is_plain_heading(text, kind):
        return None
    structural = colon or line.marked or listed or _is_capitals(text) or _between_paragraphs(before, line, after)
    if not (structural or (only and kind != "neutral")):
        return None
    return section if kind == "neutral" else _as_kind(kind)


def _unknown_heading(line: Line, after: Line, words: int, section: Kind) -> Kind | None:
    """Return the section under a heading of no known kind: what it asks for is not certain."""
    above_list = after.bullet and (line.text.endswith(":") or words <= MAX_LABEL_WORDS)
    marked = line.marked or line.text.endswith(":")
    if line.bullet or not (above_list or (marked and words <= MAX_LABEL_WORDS)):
        return None
    return "unknown" if section in ("required", "nice", "unknown") else "body"


def _is_plain_heading(text: str, kind: str) -> bool:
    """Return True for "Nice to have" or "Preferred qualifications", which are headings on a line with a bullet too."""
    words = [word for word in trimmed_words(text) if word not in _HEADING_NOUNS]
    pattern = phrase_pattern(phrase for known, phrases in WORDS["headings"] if known == kind for phrase in phrases)
    return not words or (kind != "neutral" and pattern.fullmatch(" ".join(words)) is not None)


def _between_paragraphs(before: Line, line: Line, after: Line) -> bool:
    """Return True for a short line without a full stop between sentences."""
    sentence = before.text.endswith((".", "!", "?")) and not before.bullet
    return sentence and not line.bullet and len(after.text) > PARAGRAPH_FROM


def _only_heading_words(text: str) -> bool:
    words = trimmed_words(re.sub(r"[-/&]", " ", text))
    return bool(words) and all(word in _WHOLE_WORDS or word.startswith(_STEMS) for word in words)


def _is_capitals(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    return len(letters) >= 4 and all(char.isupper() for char in letters)


def _as_kind(kind: str) -> Kind:
    return next(known for known in get_args(Kind) if known == kind)
