"""Sentences, and the stretches of them that soften or deny what they name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlx_grpo.tasks.shortlist.posting.words import WORDS, regex_pattern

LONGEST_SENTENCE = 1000
"""Characters; a longer sentence is read in pieces, so that the time stays in proportion to the text."""

Span = tuple[int, int]

_END = re.compile(r"(?<=[.!?;])\s+")
_ABBREVIATION = re.compile(rf"(?:^|[\s(])(?:{'|'.join(map(re.escape, WORDS['abbreviations']))})\.$", re.IGNORECASE)
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_SOFT = regex_pattern(WORDS["softeners"])
_LEADING = regex_pattern(WORDS["leading_softeners"])
_STRONG = regex_pattern(WORDS["strong"])
_NOT = regex_pattern(WORDS["negations"])
_DENIAL = regex_pattern(WORDS["denials"])
_BREAK = re.compile(r"\bbut\b|\bhowever\b|\balthough\b|;|\s-\s", re.IGNORECASE)
_BUT = re.compile(r";|\bbut\b", re.IGNORECASE)
_NEXT_CLAUSE = re.compile(r"\s*(?:[,;]|and\b|but\b|-\s)", re.IGNORECASE)
_PIECE = re.compile(r",|\s-\s|;|\bwith\b|\band\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a sentence that is read by itself; places count from the start of the sentence."""

    text: str
    """The sentence; for the region outside the brackets with spaces in place of these."""
    start: int
    end: int

    @property
    def own(self) -> str:
        """Return the region's own text."""
        return self.text[self.start : self.end]

    def find(self, pattern: re.Pattern[str], start: int | None = None, end: int | None = None) -> list[re.Match[str]]:
        """Find a pattern inside the region."""
        start = self.start if start is None else start
        return list(pattern.finditer(self.text, start, self.end if end is None else end))


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with its regions: what is outside brackets first, then each bracket."""

    text: str
    regions: tuple[Region, ...]


def sentences_of(text: str) -> Iterator[Sentence]:
    """Cut a text into sentences, not behind abbreviations such as "e.g."."""
    start = 0
    for end in [*_END.finditer(text), None]:
        if end and _ABBREVIATION.search(text, max(0, end.start() - 12), end.start()):
            continue
        stop = end.start() if end else len(text)
        for at in range(start, stop, LONGEST_SENTENCE):
            yield _sentence(text[at : min(at + LONGEST_SENTENCE, stop)])
        start = end.end() if end else start


def softened(sentence: Sentence, mentions: Sequence[int]) -> list[Span]:
    """Return the stretches in which a name is nice to have: "Docker is a plus"; `mentions` are the names' places."""
    outside = sentence.regions[0]
    spans = _soft_spans(outside, mentions)
    for region in sentence.regions[1:]:
        inside = [place for place in mentions if region.start <= place < region.end]
        if inside:
            spans += _soft_spans(region, inside)
        elif region.find(_SOFT) or region.find(_LEADING):
            spans += _beside(sentence, region)
    return spans


def denied(sentence: Sentence, mentions: Sequence[Span]) -> list[Span]:
    """Return the stretches in which a name is not asked for: "No Java experience needed"."""
    spans: list[Span] = []
    for region in sentence.regions:
        softeners = [match.span() for match in region.find(_SOFT)]
        for match in region.find(_NOT):
            if _overlaps(match.span(), [*mentions, *softeners]):
                continue
            stop = _BREAK.search(region.text, match.end(), region.end)
            spans.append((match.end(), stop.start() if stop else region.end))
        for match in region.find(_DENIAL):
            if not _overlaps(match.span(), softeners):
                spans.append((_boundary(region, match.start()), match.start()))
                spans += _beside(sentence, region) if region.text is sentence.text else []
    return spans


def without_markers(region: Region) -> Region:
    """Return a region with spaces for "is a plus", "required" and the like, which say nothing about a name's use."""
    text = region.own
    for pattern in (_SOFT, _LEADING, _DENIAL, _STRONG):
        text = pattern.sub(lambda match: " " * len(match[0]), text)
    return Region(" " * region.start + text, region.start, region.end)


def within(place: int, spans: Sequence[Span]) -> bool:
    """Return True if a place lies in one of the stretches."""
    return any(start <= place < end for start, end in spans)


def _sentence(text: str) -> Sentence:
    outside, last = [], 0
    inside = []
    for match in _BRACKETS.finditer(text):
        start, end = match.span()
        outside += [text[last:start], " " * (end - start)]
        inside.append(Region(text, start + 1, end - 1))
        last = end
    outside.append(text[last:])
    return Sentence(text, (Region("".join(outside), 0, len(text)), *inside))


def _beside(sentence: Sentence, bracket: Region) -> list[Span]:
    """Return the item that a bracket is about: "Python, Docker (nice to have)", "(nice to have) Docker"."""
    before = sentence.regions[0].text[: bracket.start]
    if not before.strip(" ,;-"):
        return [(bracket.end, len(sentence.text))]
    if re.match(r"\W*or\b", sentence.text[bracket.end :]):
        return []  # "Python (preferred) or Java"
    return [(max(before.rfind(","), before.rfind(";"), 0), bracket.start)]


def _overlaps(span: Span, others: Sequence[Span]) -> bool:
    return any(start < span[1] and span[0] < end for start, end in others)


def _boundary(region: Region, place: int) -> int:
    """Return where the clause of a place begins: behind the marker of the clause before, or the region's start."""
    start = region.start
    for pattern in (_STRONG, _SOFT, _DENIAL):
        for match in region.find(pattern, end=place):
            follows = _NEXT_CLAUSE.match(region.text, match.end(), region.end)
            if follows and match.end() < place:
                start = max(start, follows.end())
    return max([start, *(match.end() for match in region.find(_BUT, end=place))])


def _soft_spans(region: Region, mentions: Sequence[int]) -> list[Span]:
    spans: list[Span] = []
    leading = {match.start(): match for match in region.find(_LEADING)}
    for match in [*leading.values(), *region.find(_SOFT)]:
        start, end = match.span()
        stop = next((strong.start() for strong in region.find(_STRONG, start=end)), region.end)
        low = _reach(region, _boundary(region, start), start, match[0])
        behind = any(low <= place < start for place in mentions)
        ahead = any(end <= place < stop for place in mentions)
        if ahead and (start in leading or not behind):
            spans.append((end, stop))
        elif start in leading:
            spans.append((max(region.text.rfind(",", region.start, start), region.start), start))
        elif behind:
            spans.append((low, start))
    return spans


def _reach(region: Region, low: int, start: int, softener: str) -> int:
    """Return how far back a softener reaches: one item where the clause is a demand, else the whole clause."""
    if not region.find(_STRONG, low, start) and not softener.lower().startswith(("as ", "being ")):
        return low
    pieces = [match.start() for match in region.find(_PIECE, low, start)]
    return pieces[-1] if pieces else low
