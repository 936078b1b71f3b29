"""Names of skills found in a text, longest first, as whole tokens: "Testing and Tagging", "CI/CD", "C++"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from mlx_grpo.tasks.shortlist.posting.words import SKILLS, WORDS

Sort = Literal["sure", "word", "term", "unknown"]
"""sure: a skill wherever it stands. word: a product named like an English word (Excel). term: an activity or a subject
(onboarding, machine learning). The last two need a sign that the text asks for them. unknown: as the text spells it."""

_TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")
_HYPHENED = frozenset(WORDS["hyphened"])
_WORDS = frozenset(SKILLS["words"])
_FIELDS = frozenset(name.lower() for name in SKILLS["fields"])
_CATEGORIES = frozenset(SKILLS["categories"])
_END: None = None


@dataclass(frozen=True, slots=True)
class Name:
    """A skill's name."""

    name: str
    sort: Sort
    group: str = ""
    """Names of one group are alternatives to each other; "" where that is not known."""
    field: bool = False
    category: bool = False


@dataclass(frozen=True, slots=True)
class Mention:
    """A name at a place of a text."""

    start: int
    end: int
    name: Name


class Names:
    """Finds the known names; each is spelled as in the pool where the pool has it."""

    def __init__(self, pool: Iterable[str], others: Iterable[str] = ()):
        self._trie: dict[Any, Any] = {}
        known = _known_names()
        by_key = {_key(name): entry for name, entry in known.items()}
        for alias, name in SKILLS["aliases"].items():
            entry = known[name]
            by_key.setdefault(_key(alias), replace(entry, sort="word") if alias in _WORDS else entry)
        for name in others:
            by_key.setdefault(_key(name), _unlisted(name))
        spelled: dict[str, str] = {}
        for name in dict.fromkeys(pool):
            entry = by_key.get(_key(name)) or _unlisted(name)
            spelled.setdefault(entry.name, name)
            by_key[_key(name)] = replace(entry, name=name)
        # An alias is read as the pool's spelling of what it stands for.
        shown = {key: replace(entry, name=spelled.get(entry.name, entry.name)) for key, entry in by_key.items()}
        for key, entry in shown.items():
            self._add(key, entry)
        for key, entry in shown.items():
            for variant in _variants(key, entry):
                self._add(variant, entry)

    def find(self, text: str) -> list[Mention]:
        """Find all names of a text in order, without overlap, the longest at each place."""
        tokens = _tokens(text)
        found: list[Mention] = []
        at = 0
        while at < len(tokens):
            length, name = self._longest(tokens, at)
            if name is None or not _whole(text, tokens[at].start, tokens[at + length - 1].end, name):
                at += 1
                continue
            found.append(Mention(tokens[at].start, tokens[at + length - 1].end, name))
            at += length
        return found

    def _longest(self, tokens: list[_Token], at: int) -> tuple[int, Name | None]:
        node: dict[Any, Any] = self._trie
        best: tuple[int, Name | None] = (0, None)
        for place in range(at, len(tokens)):
            token = tokens[place]
            apart = place > at and token.start != tokens[place - 1].end
            if apart and (token.text in ".+#'" or tokens[place - 1].text == "."):
                break
            node = node.get(token.text, {})
            if not node:
                break
            if _END in node:
                best = (place + 1 - at, node[_END])
        return best

    def _add(self, key: tuple[str, ...], name: Name) -> None:
        if not key or " or " in name.name:
            return
        node = self._trie
        for token in key:
            node = node.setdefault(token, {})
        node.setdefault(_END, name)


@lru_cache(maxsize=4)
def names_of(pool: tuple[str, ...], others: tuple[str, ...]) -> Names:
    """Return the finder of the known names, spelled as in the pool where it has them."""
    return Names(pool, others)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    end: int


def _tokens(text: str) -> list[_Token]:
    """Split a text into lower-case tokens; a hyphen inside a word is none."""
    tokens = [_Token(match[0].casefold(), match.start(), match.end()) for match in _TOKEN.finditer(text)]
    return [
        token
        for at, token in enumerate(tokens)
        if not (
            token.text == "-"
            and 0 < at < len(tokens) - 1
            and tokens[at - 1].end == token.start
            and tokens[at + 1].start == token.end
            and tokens[at - 1].text.isalnum()
            and tokens[at + 1].text.isalnum()
        )
    ]


def _key(name: str) -> tuple[str, ...]:
    return tuple(token.text for token in _tokens(unicodedata.normalize("NFKC", name)) if token.text != "-")


def _whole(text: str, start: int, end: int, name: Name) -> bool:
    """Return True if the name is not a piece of a longer word, address or name."""
    before, after = text[max(0, start - 2) : start], text[end : end + 12]
    if re.search(r"[\w+#@]$|\w[.&]$|\bno-$|\bnon-$", before) or re.match(r"[\w#@]|\.[a-z\d]", after):
        return False
    short = len(name.name) == 1
    if short and re.match(r"[+&']|-\w", after):
        return False
    if re.match(r"\+(?![\w\s])", after) and short:
        return False
    hyphened = re.match(r"-([A-Za-z]+)", after)
    if name.sort == "word" and (before.endswith("-") or (hyphened and hyphened[1].lower() not in _HYPHENED)):
        return False
    return not text[max(0, start - 4) : start].lower().endswith("non-")


def _known_names() -> dict[str, Name]:
    """Return the names of skills.json."""
    return {
        name: Name(
            name,
            "word" if name in _WORDS else "term" if group.endswith((" practices", " subjects")) else "sure",
            group,
            name.lower() in _FIELDS,
            name in _CATEGORIES,
        )
        for group, names in SKILLS["groups"].items()
        for name in names
    }


def _unlisted(name: str) -> Name:
    """Return a name that only the pool or the vocabulary has; an ordinary word is no skill wherever it stands."""
    if name.isalpha() and len(name) <= 3:
        sort: Sort = "word"
    elif re.search(r"[\d+#/.&]|[a-z][A-Z]", name) or (name.isalpha() and name.isupper()):
        sort = "sure"
    else:
        sort = "term"
    return Name(name, sort, field=name.lower() in _FIELDS)


def _variants(key: tuple[str, ...], name: Name) -> Iterator[tuple[str, ...]]:
    """Yield the name's other number, and "and" for "&"."""
    if "&" in key or "and" in key:
        swap = {"&": "and", "and": "&"}
        yield tuple(swap.get(token, token) for token in key)
    last = key[-1] if key else ""
    if name.sort == "word" or not last.isalpha() or len(last) <= 3:
        return
    if not last.endswith("s"):
        yield (*key[:-1], last + "s")
    elif not last.endswith(("ss", "us", "is")):
        yield (*key[:-1], last[:-1])
