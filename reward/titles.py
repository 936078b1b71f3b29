"""The words of a title that name its field: "Senior Data Engineer" has the field data and the role engineer."""

from __future__ import annotations

import re

from reward.words import MAKERS, ROLES, SENIORITY

_WORD = re.compile(r"[^\W_][^\W_.+#]*[+#]*")


def title_words(title: str) -> tuple[set[str], set[str]]:
    """Split a title into field words and role words, lower-cased: "Senior Data Engineer" -> {data}, {engineer}."""
    words = set(_WORD.findall(title.lower())) - SENIORITY
    return words - ROLES, words & ROLES


def kinship(title: str, other: str) -> float:
    """Rate how near two titles are: 1 if they share a field word, 0.5 if only a role word, else 0."""
    field, role = title_words(title)
    other_field, other_role = title_words(other)
    return 1.0 if field & other_field else 0.5 if role & other_role else 0.0


def of_field(title: str, other: str) -> bool:
    """Return True if another title has all field words of a title: "Hospital Pharmacist" has those of "Pharmacist"."""
    field = title_words(title)[0] - MAKERS
    return bool(field) and field <= title_words(other)[0]


def may_be_near(title: str, text: frozenset[tuple[str, ...]]) -> bool:
    """Return True if work as `title` may be near a text: they share a word, or both name a maker.

    A "Software Developer" is near a "Backend Engineer", though they share no word.
    """
    words = {(word,) for word in set().union(*title_words(title))}
    makers = {(word,) for word in MAKERS}
    return not words.isdisjoint(text) or not (words.isdisjoint(makers) or text.isdisjoint(makers))
