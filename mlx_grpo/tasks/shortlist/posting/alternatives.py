"""Names that are alternatives to each other: "Pinecone, Qdrant or FAISS" is one requirement that any of them meets."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlx_grpo.tasks.shortlist.posting.names import Mention
from mlx_grpo.tasks.shortlist.posting.words import WORDS, phrase_pattern, trimmed_words

Group = list[Mention]

_OR = re.compile(r"\b(?:or|and/or|alternatively|resp)\b", re.IGNORECASE)
_OR_SIMILAR = re.compile(r"\bor\s+(?:similar|equivalent|something|other|another|comparable|related|any)", re.IGNORECASE)
_AND = re.compile(r"\band\b|&|\+|\bplus\b|\bas well as\b|\balong with\b", re.IGNORECASE)
_BREAK = re.compile(r"[.;()|•:]|\s-\s|\bbut\b", re.IGNORECASE)
_ENDS_IN_OR = re.compile(
    r"(?:\s*[,/]\s*(?!(?:or|and)\b)[\w.+#&-]+(?: (?!(?:or|and)\b)[\w.+#&-]+)?){0,6}[\s,/]*\bor\b", re.IGNORECASE
)
_ONE_OF = re.compile(
    rf"(?:{phrase_pattern(WORDS['one_of']).pattern})[\s:,.(]*(?:(?:the|a|an|with|in|using|from) )?$", re.IGNORECASE
)
_OF_KIND = re.compile(r"[^.;()]{0,60}(?:\(|\s-\s|:|\bsuch as|\blike)\s*", re.IGNORECASE)
_KINDS = frozenset(WORDS["kinds"])


def groups_of(sentence: str, mentions: Sequence[Mention]) -> list[Group]:
    """Group the names of a sentence in order; the names of one group are alternatives."""
    groups: list[Group] = []
    runs = _runs(sentence, mentions)
    for at, (run, links) in enumerate(runs):
        start = runs[at - 1][0][-1].end if at else 0
        stop = runs[at + 1][0][0].start if at + 1 < len(runs) else len(sentence)
        lead, tail = sentence[start : run[0].start], sentence[run[-1].end : stop]
        ends_in_or = _ENDS_IN_OR.match(tail) is not None
        if at and runs[at - 1][0][-1].name.category and _OF_KIND.fullmatch(lead):
            groups[-1] += run
        elif _ONE_OF.search(lead) or _is_example_list(lead, tail):
            groups.append(list(run))
        else:
            groups += _split(run, links, ends_in_or, re.match(r"\s*,\s*or\b", tail) is not None)
    return _merged(groups)


def _runs(sentence: str, mentions: Sequence[Mention]) -> list[tuple[list[Mention], list[str]]]:
    """Join names with nothing but commas, "and", "or" and a word or two between them; return them with the links."""
    runs: list[tuple[list[Mention], list[str]]] = []
    for mention in mentions:
        link = _link(sentence[runs[-1][0][-1].end : mention.start]) if runs else None
        if link is None:
            runs.append(([mention], []))
        else:
            runs[-1][0].append(mention)
            runs[-1][1].append(link)
    return runs


def _link(gap: str) -> str | None:
    """Return "or", "and", "slash" or "comma" for the text between two names, None where it parts them."""
    if _BREAK.search(gap) or _OR_SIMILAR.search(gap):
        return None
    others = trimmed_words(_AND.sub(" ", _OR.sub(" ", gap)))
    if len(others) > 1 and any(len(trimmed_words(piece)) > 2 for piece in re.split(r"[,/]", gap)):
        return None
    if len(others) > 4:
        return None
    if _OR.search(gap):
        return "or"
    if _AND.search(gap):
        return "and"
    return "slash" if "/" in gap and "," not in gap else "comma"


def _is_example_list(lead: str, tail: str) -> bool:
    """Return True for the names in "a cloud platform (AWS, GCP)"."""
    before = re.fullmatch(r"(.*\S)\s*\(\s*", lead)
    words = trimmed_words(before[1]) if before else []
    return bool(words) and words[-1] in _KINDS and tail.lstrip(" ,.etc").startswith(")")


def _split(run: list[Mention], links: list[str], ends_in_or: bool, whole: bool) -> list[Group]:
    """Split a run at "and"; the names before an "or" are alternatives, with those joined to them by commas.

    `whole` is True where ", or similar" follows: then all names behind the last "and" are alternatives.
    """
    groups: list[Group] = []
    part: Group = [run[0]]
    joined: list[bool] = []  # for each link inside the part: True for "or"
    for mention, link in zip(run[1:], links, strict=True):
        is_or = link == "or" or (link == "slash" and _same_kind(part[-1], mention))
        if link == "and" or (link == "slash" and not is_or) or (not is_or and any(joined)):
            groups += _closed(part, joined, False)
            part, joined = [mention], []
        else:
            part.append(mention)
            joined.append(is_or)
    return groups + ([part] if whole else _closed(part, joined, ends_in_or))


def _closed(part: Group, joined: list[bool], ends_in_or: bool) -> list[Group]:
    """Return one group of alternatives, without leading names of another kind, or each name by itself."""
    if not ends_in_or and not any(joined):
        return [[mention] for mention in part]
    core = len(part) - 1 if ends_in_or and not any(joined) else joined.index(True)
    kinds = {mention.name.group for mention in part[core:]}
    first = core
    while first and ("" in kinds or part[first - 1].name.group in ("", *kinds)):
        first -= 1
    return [[mention] for mention in part[:first]] + [part[first:]]


def _same_kind(left: Mention, right: Mention) -> bool:
    """Return True for "AWS/GCP", False for "HTML/CSS"; names of no known kind are taken as alternatives."""
    return left.name.group == right.name.group or not (left.name.group and right.name.group)


def _merged(groups: list[Group]) -> list[Group]:
    """Merge groups that share a name."""
    merged: list[Group] = []
    place: dict[str, int] = {}
    for group in groups:
        same = sorted({place[mention.name.name] for mention in group if mention.name.name in place})
        target = same[0] if same else len(merged)
        if not same:
            merged.append([])
        for other in same[1:]:
            merged[target] += merged[other]
            merged[other] = []
        merged[target] += group
        place |= {mention.name.name: target for mention in merged[target]}
    return [group for group in merged if group]
