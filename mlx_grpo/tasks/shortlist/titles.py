"""The words of a title that name its field: "Senior Data Engineer" has the field data and the role engineer."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_][^\W_.+#]*[+#]*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words of a title that say nothing of its field ...
SENIORITY = _words("senior junior lead staff principal head chief trainee intern graduate of and the for in i ii iii")
# ... and words that many fields have, which say a little.
ROLES = _words(
    """engineer manager developer analyst specialist officer coordinator consultant technician assistant administrator
    supervisor executive associate advisor agent representative planner scientist designer clerk operator"""
)


def title_words(title: str) -> tuple[set[str], set[str]]:
    """Split a title into field words and role words, lower-cased: "Senior Data Engineer" -> {data}, {engineer}."""
    words = set(_WORD.findall(title.lower())) - SENIORITY
    return words - ROLES, words & ROLES


def kinship(title: str, other: str) -> float:
    """Rate how near two titles are: 1 if they share a field word, 0.5 if only a role word, else 0."""
    field, role = title_words(title)
    other_field, other_role = title_words(other)
    return 1.0 if field & other_field else 0.5 if role & other_role else 0.0
