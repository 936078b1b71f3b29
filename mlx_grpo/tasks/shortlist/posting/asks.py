"""The skills that each line asks for, and those that are left out because it is not certain that they are skills."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from mlx_grpo.tasks.shortlist.posting.alternatives import Group, groups_of
from mlx_grpo.tasks.shortlist.posting.clauses import Region, Sentence, denied, sentences_of, softened, within
from mlx_grpo.tasks.shortlist.posting.names import Mention, Names
from mlx_grpo.tasks.shortlist.posting.sections import Part
from mlx_grpo.tasks.shortlist.posting.uses import (
    Piece,
    has_degree,
    is_soft,
    pieces_of,
    rest_words,
    taken_as_spelled,
    unknown_name,
    uses_of,
)
from mlx_grpo.tasks.shortlist.posting.words import WORDS, phrase_pattern

Tier = Literal["required", "nice", "asked", "hinted", "prose", "duties"]
"""asked: prose that asks for a skill ("experience in SQL"). hinted: prose about the candidate ("you have to ship").
prose, duties: any other mention, of the firm or of the work."""

_ASKS = phrase_pattern(WORDS["asks"])
_FIRM_ASKS = phrase_pattern(WORDS["firm_asks"])
_SKILL_LABEL = re.compile(
    r"skill|must|nice|good to have|^(?:required|mandatory|essentials?|preferred|desired|optional|bonus|plus(?:es)?"
    r"|requirements?)$|expertise|competenc",
)
_NO_SKILL_LABEL = re.compile(r"experience|education|degree|soft|qualification")


@dataclass(frozen=True, slots=True)
class Ask:
    """One requirement: any of the names meets it."""

    names: tuple[str, ...]
    tier: Tier
    line: str


@dataclass(slots=True)
class Asks:
    """All that the parts of a description ask for."""

    found: list[Ask] = field(default_factory=list)
    ordinary: list[str] = field(default_factory=list)
    """Names of skills that the text uses as ordinary words, or so it seems."""
    unknown: list[str] = field(default_factory=list)
    """What is listed like a skill, and no list knows."""
    counts: dict[str, int] = field(default_factory=dict)
    """How often the text names each skill."""


def read_asks(parts: Sequence[Part], names: Names) -> Asks:
    """Read the skills that the parts of a description ask for."""
    asks = Asks()
    for part in parts:
        if part.heading or part.kind in ("avoid", "excluded", "metadata", "title"):
            continue
        for sentence in sentences_of(part.text):
            _read_sentence(sentence, part, names, asks)
    return asks


def _read_sentence(sentence: Sentence, part: Part, names: Names, asks: Asks) -> None:
    mentions = names.find(sentence.text)
    uses = uses_of(sentence, mentions)
    listed = [] if _is_prose(part) else _unlisted(sentence, part, mentions, asks)
    usable: list[Mention] = [mention for mention in mentions if uses[mention] in ("skill", "maybe")]
    usable = sorted([*usable, *listed], key=lambda mention: mention.start)
    for mention in usable:
        asks.counts[mention.name.name] = asks.counts.get(mention.name.name, 0) + 1
    tier = _tier(part, sentence, usable)
    if tier is None or not mentions + listed:
        return
    out = denied(sentence, [(mention.start, mention.end) for mention in usable])
    soft = softened(sentence, [mention.start for mention in usable])
    if tier in ("required", "nice"):
        asks.ordinary += [
            mention.name.name for mention in mentions if uses[mention] == "left out" and not within(mention.start, out)
        ]
    wanted = [mention for mention in usable if not within(mention.start, out)]
    groups = groups_of(sentence.text, wanted)
    details = _details(sentence, groups)
    for group in groups:
        is_nice = group[0] in details or all(
            within(mention.start, soft) or uses.get(mention) == "maybe" for mention in group
        )
        found = tuple(dict.fromkeys(mention.name.name for mention in group))
        asks.found.append(Ask(found, "nice" if is_nice and tier != "duties" else tier, part.line))


def _is_prose(part: Part) -> bool:
    return part.kind not in ("required", "nice")


def _tier(part: Part, sentence: Sentence, mentions: list[Mention]) -> Tier | None:
    """Return how certain it is that a sentence asks for what it names; None where it is of the firm alone."""
    if part.kind in ("required", "nice"):
        return part.kind
    if part.kind == "unknown":
        return "nice"
    if part.kind == "ideal" or _FIRM_ASKS.search(sentence.text):
        return "asked"
    if _ASKS.search(sentence.text):
        return "hinted"
    if part.kind == "company":
        return None
    if part.kind in ("duties", "stack"):
        return "duties"
    return "asked" if _is_list(sentence, mentions) else "prose"


def _is_list(sentence: Sentence, mentions: list[Mention]) -> bool:
    """Return True if a sentence of prose is a list of skills and nothing else: "Python, SQL and Tableau."."""
    region = sentence.regions[0]
    pieces = pieces_of(region, mentions)
    return bool(mentions) and all(piece.mentions and not rest_words(region, piece) for piece in pieces)


def _details(sentence: Sentence, groups: list[Group]) -> list[Mention]:
    """Return the first names of groups in brackets behind a skill: "AWS (EC2, S3)" asks for AWS, the rest is detail."""
    details: list[Mention] = []
    for before, group in pairwise(groups):
        gap = sentence.text[before[-1].end : group[0].start]
        opened = re.match(r"[\s\w.+]{0,20}\(", gap) is not None and ")" not in gap
        carried = bool(details) and before[0] is details[-1] and "(" not in gap and ")" not in gap
        if (opened and ")" in sentence.text[group[-1].end :]) or carried:
            details.append(group[0])
    return details


def _unlisted(sentence: Sentence, part: Part, mentions: list[Mention], asks: Asks) -> list[Mention]:
    """Return what a line "Required: Sourdough, Rye" lists and no list knows; note what a bullet lists in vain."""
    region = sentence.regions[0]
    pieces = _with_whole_pairs(pieces_of(region, mentions))
    taken = bool(_SKILL_LABEL.search(part.label)) and not _NO_SKILL_LABEL.search(part.label)
    found: list[Mention] = []
    for piece in pieces:
        if piece.mentions:
            continue
        name = unknown_name(region, piece)
        if taken and name:
            start = region.text.index(name.split()[0], piece.start)
            found.append(Mention(start, piece.end, taken_as_spelled(name)))
        elif taken and name == "":
            asks.unknown.append(" ".join(region.text[piece.start : piece.end].split()))
    if part.bullet and not taken and not has_degree(region.own):
        asks.unknown += _unknown_items(region, pieces, alone=not mentions)
    return found


def _unknown_items(region: Region, pieces: list[Piece], *, alone: bool) -> list[str]:
    """Return the unknown names of a bullet that is a list of short names; `alone` is True where it has no other."""
    items = [unknown_name(region, piece) for piece in pieces if not piece.mentions]
    words = [word for piece in pieces for word in rest_words(region, piece)]
    if is_soft(words) or not all(item and len(item.split()) <= 3 for item in items):
        return []
    return [item for item in items if item and (alone or any(char.isupper() for char in item))]


def _with_whole_pairs(pieces: list[Piece]) -> list[Piece]:
    """Join "Food" and "Beverage" again where commas follow: "Food and Beverage, Icing and Rye" has one pair."""
    joined: list[Piece] = []
    for at, piece in enumerate(pieces):
        before = joined[-1] if joined else None
        pair = (
            before is not None and not before.mentions and not piece.mentions and piece.separator in ("and", "&", "/")
        )
        comma_follows = at + 1 < len(pieces) and pieces[at + 1].separator in (",", ";")
        if before is not None and pair and (comma_follows or piece.separator == "/"):
            joined[-1] = Piece(before.start, piece.end, before.separator, ())
        else:
            joined.append(piece)
    return joined
