"""Whether a text uses a name as a skill: "Excel" in "Excel skills", not in "excel in a fast-paced environment"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mlx_grpo.tasks.shortlist.posting.clauses import Region, Sentence, without_markers
from mlx_grpo.tasks.shortlist.posting.names import Mention, Name
from mlx_grpo.tasks.shortlist.posting.words import WORDS, phrase_pattern, trimmed_words

Chain = Literal["start", "skill", "noun", "broken"]
"""What stands before a piece that commas, "and" or "or" join to it."""
Use = Literal["skill", "maybe", "left out", "no"]
"""maybe: a doubtful skill. left out: a word that could be one, worth telling. no: certainly none."""
MAX_NAME_WORDS = 4
"""Words of a name that is taken as the text spells it."""

_SEPARATOR = re.compile(r"[,;|•·/:&]|\s-+\s|\band/or\b|\band\b|\bor\b|\bplus\b|\+(?=\s)|\bas well as\b", re.IGNORECASE)
_QUALIFIERS = frozenset(WORDS["qualifiers"])
_CUES = frozenset(WORDS["cues"])
_DIRECT_CUES = frozenset(WORDS["direct_cues"])
_HEADS = frozenset(WORDS["heads"])
_ABSTRACT_HEADS = _CUES & _HEADS
_PEOPLE = frozenset(WORDS["people"]) | frozenset(WORDS["occupations"])
_SOFT = frozenset(WORDS["soft"])
_PROSE = frozenset(WORDS["prose"])
_LETTER_WORDS = frozenset(WORDS["letter_words"])
_AFTER_VERBS = frozenset(WORDS["after_verbs"])
_VERB_OPENINGS = frozenset(WORDS["verb_openings"])
_YEARS_BEFORE = re.compile(r"\b(?:years?|yrs?)\b(?:[^,;()]|, in )*$", re.IGNORECASE)
_DEGREE = phrase_pattern(WORDS["degrees"])


@dataclass(frozen=True, slots=True)
class Piece:
    """What stands between two separators of a sentence."""

    start: int
    end: int
    separator: str
    """The one before it."""
    mentions: tuple[Mention, ...]


def uses_of(sentence: Sentence, mentions: Sequence[Mention]) -> dict[Mention, Use]:
    """Decide for each name of a sentence whether it is used as a skill."""
    uses: dict[Mention, Use] = {}
    for region in map(without_markers, sentence.regions):
        chain: Chain = "start"
        pieces = pieces_of(region, mentions)
        title_case = _is_title_case(region, pieces)
        for piece in pieces:
            chain = "start" if ":" in piece.separator else chain
            for mention in piece.mentions:
                uses[mention] = _use(region, piece, mention, chain, title_case)
            chain = _chain_behind(region, piece, uses)
    return uses


def pieces_of(region: Region, mentions: Sequence[Mention]) -> list[Piece]:
    """Split a region at commas, "and", "or" and the like, but not inside the names."""
    inside = [mention for mention in mentions if region.start <= mention.start and mention.end <= region.end]
    inside = [mention for mention in inside if not region.text[mention.start : mention.end].isspace()]
    pieces: list[Piece] = []
    start, separator = region.start, ""
    held = 0  # how many of the names the pieces before hold
    for match in [*region.find(_SEPARATOR), None]:
        stop = match.start() if match else region.end
        last = held
        while last < len(inside) and inside[last].start < stop:
            last += 1
        if match and last > held and inside[last - 1].end > stop:
            continue  # the "/" of "CI/CD"
        pieces.append(Piece(start, stop, separator, tuple(inside[held:last])))
        held = last
        if match:
            start, separator = match.end(), match[0].lower()
    return pieces


def rest_words(region: Region, piece: Piece) -> list[str]:
    """Return the words of a piece beside its names."""
    text = region.text[piece.start : piece.end]
    for mention in reversed(piece.mentions):
        text = text[: mention.start - piece.start] + " " + text[mention.end - piece.start :]
    return trimmed_words(text)


def unknown_name(region: Region, piece: Piece) -> str | None:
    """Return the name that a piece without a known name may be: its words without "strong" and the like.

    Returns "" for a piece that is none, such as "swift learner", and None for one of qualifiers alone.
    """
    words = [word.strip(".\"'") for word in region.text[piece.start : piece.end].split()]
    words = [word for word in words if re.search(r"\w", word)]
    while words and (words[0].lower() in _QUALIFIERS or re.fullmatch(r"[\d.+-]+", words[0])):
        words.pop(0)
    while words and (words[-1].lower() in _QUALIFIERS or re.fullmatch(r"[\d.+-]+", words[-1])):
        words.pop()
    if not words:
        return None
    plain = [word.lower() for word in words]
    told = len(words) <= MAX_NAME_WORDS and not any(word in _SOFT or word in _PROSE for word in plain)
    return " ".join(words) if told else ""


def is_soft(words: Sequence[str]) -> bool:
    """Return True if words describe a person's manner or terms of work, such as "willing to travel"."""
    return any(word in _SOFT for word in words)


def has_degree(text: str) -> bool:
    """Return True for a sentence about a degree, whose subjects are no skills."""
    return _DEGREE.search(text) is not None


def _chain_behind(region: Region, piece: Piece, uses: dict[Mention, Use]) -> Chain:
    """Return what a piece is for the one that "and" or a comma joins to it."""
    if piece.mentions:
        return "skill" if any(uses[mention] in ("skill", "maybe") for mention in piece.mentions) else "broken"
    words = rest_words(region, piece)
    return "noun" if len(words) <= 3 and not any(word in _SOFT or word in _PROSE for word in words) else "broken"


def _use(region: Region, piece: Piece, mention: Mention, chain: Chain, title_case: bool) -> Use:
    name = mention.name
    after = trimmed_words(region.text[mention.end : min(mention.end + 40, region.end)])
    if _is_subject(region, mention, after):
        return "no"
    if name.sort == "sure":
        return "skill"
    words = rest_words(region, piece)
    before = trimmed_words(region.text[piece.start : mention.start])
    if _is_verb(region, mention, before):
        return "no"
    listed = chain in ("start", "skill") or (chain == "noun" and len(name.name) > 1)
    if listed and _is_plain(words, after):
        return "skill"
    soft = is_soft(words)
    if soft and name.sort == "word" and region.text[mention.start].islower():
        return "no"
    if _has_sign(region, mention, before, after, title_case):
        return "skill"
    if soft:
        return "no"
    if name.sort == "term" and " " in name.name:
        return "maybe"
    return "left out" if name.sort == "term" or region.text[mention.start].isupper() else "no"


def _is_subject(region: Region, mention: Mention, after: list[str]) -> bool:
    """Return True for the name of a team, of a degree or of the field that years were spent in."""
    name = mention.name
    if after and after[0] in _PEOPLE and (name.field or name.sort == "term"):
        return True
    if name.field and _YEARS_BEFORE.search(region.text[region.start : mention.start]):
        return True
    return (name.field or name.sort == "term") and has_degree(region.own)


def _is_plain(words: list[str], after: list[str]) -> bool:
    """Return True if nothing stands beside a name but "strong knowledge of" and the like."""
    if after and after[0] in _AFTER_VERBS:
        return False
    return all(word in _QUALIFIERS or word[0].isdigit() for word in words)


def _is_verb(region: Region, mention: Mention, before: list[str]) -> bool:
    """Return True for "to excel", "you go", "Series C"."""
    if mention.name.sort != "word":
        return False
    if len(mention.name.name) == 1:
        return bool(before) and before[-1] in _LETTER_WORDS
    return region.text[mention.start].islower() and bool(before) and before[-1] in _VERB_OPENINGS


def _has_sign(region: Region, mention: Mention, before: list[str], after: list[str], title_case: bool) -> bool:
    """Return True if the words around a name, or its capitals, show that it is a skill's."""
    spelled = region.text[mention.start : mention.end]
    opens = all(word in _QUALIFIERS for word in before)
    if mention.name.sort == "term":
        if opens and after and after[0] in _ABSTRACT_HEADS:
            return True
        if sum(char.isupper() for char in spelled) >= 2 and " " not in spelled and not region.own.isupper():
            return True
        return any(word in _CUES for word in before[-6:])
    if after and after[0] in _HEADS and opens:
        return True
    if spelled[0].isupper() and before and not title_case:
        return True
    asked = any(word in _CUES for word in before[-5:])
    return bool(before) and before[-1] in _DIRECT_CUES and (asked or before[-1] not in ("in", "with"))


def _is_title_case(region: Region, pieces: Sequence[Piece]) -> bool:
    """Return True if most words beside the names and the first have a capital, so that one more shows nothing."""
    text = list(region.text[: region.end])
    for piece in pieces:
        for mention in piece.mentions:
            text[mention.start : mention.end] = " " * (mention.end - mention.start)
    words = re.findall(r"[A-Za-z]+", "".join(text[region.start :]))[1:]
    return 2 * sum(word[0].isupper() for word in words) > len(words)


def taken_as_spelled(name: str) -> Name:
    """Return the name of a skill that no list knows."""
    return Name(name, "unknown")
