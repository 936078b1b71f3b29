"""The words of a title that tell its field: a "Senior Data Engineer" is of data, and an engineer."""

from __future__ import annotations

import re

from reward.words import ROLES, SENIORITY

_WORD = re.compile(r"[^\W_][^\W_.+#]*[+#]*")


def title_words(title: str) -> tuple[set[str], set[str]]:
    """A title's telling words and its role words, lower-cased: "Senior Data Engineer" -> {data}, {engineer}."""
    words = set(_WORD.findall(title.lower())) - SENIORITY
    return words - ROLES, words & ROLES


def kinship(title: str, other: str) -> float:
    """How near two titles are: 1 where they share a telling word, 0.5 where only a role word, else 0."""
    (telling, role), (others_telling, others_role) = title_words(title), title_words(other)
    return 1.0 if telling & others_telling else 0.5 if role & others_role else 0.0
