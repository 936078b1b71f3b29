"""The words of a title that tell its field: a "Senior Data Engineer" is of data, and an engineer."""

from __future__ import annotations

import re

from reward.words import MAKERS, ROLES, SENIORITY

_WORD = re.compile(r"[^\W_][^\W_.+#]*[+#]*")


def title_words(title: str) -> tuple[set[str], set[str]]:
    """A title's telling words and its role words, lower-cased: "Senior Data Engineer" -> {data}, {engineer}."""
    words = set(_WORD.findall(title.lower())) - SENIORITY
    return words - ROLES, words & ROLES


def kinship(title: str, other: str) -> float:
    """How near two titles are: 1 where they share a telling word, 0.5 where only a role word, else 0."""
    (telling, role), (others_telling, others_role) = title_words(title), title_words(other)
    return 1.0 if telling & others_telling else 0.5 if role & others_role else 0.0


def of_field(title: str, other: str) -> bool:
    """Whether all that a title tells is told by another: "Pharmacist" by "Hospital Pharmacist", and not the reverse."""
    telling = title_words(title)[0] - MAKERS
    return bool(telling) and telling <= title_words(other)[0]


def may_be_near(title: str, text: frozenset[tuple[str, ...]]) -> bool:
    """Whether the words of a text leave it open that work as `title` is near: one in common, or makers in both.

    A "Software Developer" is near a "Backend Engineer", though they share no word.
    """
    words = {(word,) for word in set().union(*title_words(title))}
    makers = {(word,) for word in MAKERS}
    return not words.isdisjoint(text) or not (words.isdisjoint(makers) or text.isdisjoint(makers))
