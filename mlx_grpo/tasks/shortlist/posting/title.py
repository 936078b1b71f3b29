"""The title of the job that a description is about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlx_grpo.tasks.shortlist.posting.sections import Part, heading_kind
from mlx_grpo.tasks.shortlist.posting.words import WORDS, phrase_pattern

MAX_TITLE_WORDS = 9
LONGEST_LINE = 200
"""Characters of a line that may be a title."""
TOP_LINES = 12
"""Lines from the first in which a title may stand without a label."""

_OCCUPATIONS = frozenset(WORDS["occupations"])
_PLACES = frozenset(WORDS["places"])
_PROSE = frozenset(WORDS["prose"])
_STRONG_LABELS = frozenset(WORDS["title_labels"])
_GENDER = re.compile(
    r"\(\s*(?:[mwfdxih*](?:\s*[/|,]\s*[mwfdxih*])+|all genders?|gn\*?|m/w/d\b.*?)\s*\)|\b[mwf]/[mwfdx](?:/[dx*])?\b",
    re.IGNORECASE,
)
_CUT = re.compile(r"\s+[-@/~]+\s+|[:;]\s|\s@|\s*[|•·]\s*")
_FIRM = re.compile(r"\b(?:inc|ltd|llc|llp|gmbh|corp|co|pvt|plc|ag|limited|technologies|solutions)\.?$", re.IGNORECASE)
_OPENING = re.compile(rf"(?:{phrase_pattern(WORDS['title_openings']).pattern})[\s:!-]*", re.IGNORECASE)
_ENDING = re.compile(rf"[\s:-]*(?:{phrase_pattern(WORDS['title_endings']).pattern})\s*$", re.IGNORECASE)
_SENTENCE = phrase_pattern(WORDS["title_sentences"])
_SUBJECT = re.compile(r"(?:The|Our|As our|As the) (.{3,60}?) (?:will|is|works|reports|leads|owns)\b")
_PRAISED = re.compile(rf"\s*(?:{phrase_pattern(WORDS['praise']).pattern})(?![\w-])\s*,?", re.IGNORECASE)
_STOP = re.compile(
    r"[.,;:!?()\"]|\s-\s|\b(?:who|with|to|in|for|at|that|which|on|based|from|responsible|having|where|you|you'll"
    r"|we|you're|whose|as|within|join(?:ing)?|is|will|our|immediately)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Title:
    """A title as a description gives it."""

    text: str
    part: Part | None
    """The line that is nothing but the title; None for a title inside a sentence."""
    doubtful: bool = False
    """It is the first line, and names no occupation."""


def read_title(parts: Sequence[Part]) -> Title | None:
    """Return the title, or None where the text names none."""
    for candidates in (_labelled(parts), _top_lines(parts)):
        for title, part in candidates:
            if title:
                return Title(title, part)
    for title in _sentences(parts):
        if title:
            return Title(title, None)
    first = _as_title(parts[0].text, needs_occupation=False) if parts and _is_top(parts[0]) else ""
    return Title(first, parts[0], doubtful=True) if first and not parts[0].heading else None


def _labelled(parts: Sequence[Part]) -> Iterator[tuple[str, Part]]:
    """Yield titles behind a label such as "Job Title:", or on the line below one."""
    below = False
    for strong in (True, False):
        for part in parts:
            if below and not part.heading:
                yield _as_title(part.text, needs_occupation=False), part
            below = strong and part.heading and part.kind == "title"
            if part.kind == "title" and part.label and strong == (part.label in _STRONG_LABELS):
                yield _as_title(part.text, needs_occupation=not strong), part


def _top_lines(parts: Sequence[Part]) -> Iterator[tuple[str, Part]]:
    for part in _top(parts):
        yield _as_title(part.text, needs_occupation=True), part


def _top(parts: Sequence[Part]) -> list[Part]:
    """Return the lines at the top that may be a title, those of headings such as "About the Data Engineer role" too."""
    top = []
    for part in parts[:TOP_LINES]:
        if part.heading and part.kind in ("required", "nice", "avoid", "excluded") and heading_kind(part.text):
            break
        if _is_top(part):
            top.append(part)
    return top


def _is_top(part: Part) -> bool:
    ends = part.text[-1] in ".,;?" and not _FIRM.search(part.text)
    return not part.bullet and not part.label and not ends


def _sentences(parts: Sequence[Part]) -> Iterator[str]:
    """Yield titles in sentences: "We are looking for a Data Engineer who ..."."""
    for part in parts:
        if part.kind in ("avoid", "metadata"):
            continue
        for match in _SENTENCE.finditer(part.text):
            yield _named(part.text[match.end() : match.end() + 120])
        subject = _SUBJECT.match(part.text)
        if subject:
            yield _named(subject[1])


def _named(text: str) -> str:
    """Return the title that a text begins with, or ""."""
    praised = _PRAISED.match(text)
    while praised:
        text = text[praised.end() :]
        praised = _PRAISED.match(text)
    stop = _STOP.search(text)
    words = (text[: stop.start()] if stop else text).split()
    for at, word in enumerate(words):
        if word.lower() in ("and", "or", "/") and any(map(_is_occupation, words[:at])):
            words = words[:at]
            break
    last = max((at for at, word in enumerate(words) if _is_occupation(word)), default=-1)
    subject = words[last + 1 :]
    if subject[:1] == ["of"] and len(subject) > 1 and last >= 0:
        return " ".join(words[: last + 4])  # "Head of Customer Success"
    words = words[: last + 1]
    if not words or len(words) > MAX_TITLE_WORDS - 2 or any(word.lower() in _PROSE for word in words):
        return ""
    return " ".join([*words[:-1], _singular(words[-1])])


def _as_title(text: str, *, needs_occupation: bool) -> str:
    """Return a line without place, gender and firm, or "" where it reads like no title."""
    if len(text) > LONGEST_LINE:
        return ""
    text = _without_frame(_GENDER.sub(" ", text))
    text = re.sub(r"\s*[(\[][^()\[\]]*[)\]]?", " ", text)
    pieces = [_without_frame(piece) for piece in _CUT.split(text)]
    pieces = [piece for piece in pieces if piece and piece.lower() not in _PLACES]
    titles = [piece for piece in pieces if _has_occupation(piece)]
    if not titles and (needs_occupation or not pieces):
        return ""
    title = _without_places(re.split(r"\s+(?:at|@)\s+", (titles or pieces)[0])[0])
    words = title.split()
    if not words or len(words) > MAX_TITLE_WORDS or not re.search(r"[^\W\d_]{2}", title):
        return ""
    if any(word.lower().strip(".,!?'") in _PROSE and not word.isupper() for word in words) and not _has_of_or_for(
        words
    ):
        return ""
    if needs_occupation and not _has_occupation(title):
        return ""
    if not needs_occupation and not titles and title[-1] in ".!?":
        return ""
    return " ".join([*title.split()[:-1], _singular(title.split()[-1])])


def _without_frame(text: str) -> str:
    """Take off "Urgent requirement for a" before a title and "job description" behind it."""
    text = text.strip(" \t-|:!*#\"'")
    for _ in range(3):
        opening = _OPENING.match(text)
        text = text[opening.end() :] if opening and opening.end() < len(text) else text
    ending = _ENDING.search(text)
    text = text[: ending.start()] if ending and ending.start() else text
    return text.strip(" \t-|:!*\"'")


def _without_places(title: str) -> str:
    """Drop the parts behind a comma that name a place: "Data Engineer, Pune"."""
    first, *others = [part.strip() for part in title.split(",")]
    kept = []
    for part in others:
        if part.lower() in _PLACES or _FIRM.search(part):
            break
        kept.append(part)
    return ", ".join([first, *kept])


def _has_of_or_for(words: list[str]) -> bool:
    """Return True for "Head of Customer Success for Europe", whose small words are few."""
    small = [word.lower() for word in words if word.lower() in _PROSE]
    return all(word in ("for", "to", "at") for word in small) and len(small) == 1 and words[0][0].isupper()


def _has_occupation(text: str) -> bool:
    return any(_is_occupation(word) for word in re.split(r"[\s/,]+", text))


def _is_occupation(word: str) -> bool:
    plain = word.lower().strip(".,;:!?()'\"")
    return plain in _OCCUPATIONS or _singular(plain) in _OCCUPATIONS


def _singular(word: str) -> str:
    if word.lower().endswith(("nurses", "executives", "representatives")):
        return word[:-1]
    if word.lower().endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if word.lower().endswith("s") and word[:-1].lower() in _OCCUPATIONS else word
