"""Profile text is data: made safe for a chat prompt, and searched by whole tokens."""

from __future__ import annotations

import re
from functools import lru_cache

_TAG = re.compile(r"<([^<>\s]{1,60})>")
_HEADING = re.compile(r"\[\s*(/?[A-Z][A-Z _/]*)\s*\]", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def neutralise(text: str) -> str:
    """Put a text on one line in which nothing can end a turn, begin a thought or fake a heading.

    `<|im_end|>` becomes `(|im_end|)`, `[CANDIDATE]` becomes `(CANDIDATE)`; "x < 5" is unchanged. Brackets are
    replaced and not deleted: after a deletion the pieces around it could join into a new token.
    """
    text = "".join(char if char.isprintable() else " " for char in text)
    text = " ".join(text.split())
    before = ""
    # Until nothing changes: "<<x>>" holds a second tag once the first is gone.
    while text != before:
        before = text
        text = _HEADING.sub(r"(\1)", _TAG.sub(r"(\1)", text)).replace("<|", "(|").replace("|>", "|)")
    return text


def label(text: str) -> str:
    """Neutralise a name, title or company, and remove the signs of the prompt's grammar.

    In a prompt commas, semicolons and colons separate fields, and " at " separates a title from its company. A name
    with these signs ("Engineer, 9 years. Skills: Python") could claim what the record does not.
    """
    # The signs are removed first: "[:JOB]" is a heading only once its colon is gone.
    text = neutralise(re.sub(r"[,;:]", " ", text))
    return re.sub(r"(?<!\S)at(?!\S)", "@", text)


def sentences(text: str) -> list[str]:
    """Cut a text after each full stop, question or exclamation mark."""
    return [part for part in _SENTENCE_END.split(text) if part]


@lru_cache(maxsize=4096)
def _pattern(name: str) -> re.Pattern[str]:
    words = [re.escape(word) for word in re.split(r"[\s-]+", name) if word]
    # "Go", "R" and "SAP" are words too; only longer names match in any case ("embeddings").
    flags = re.IGNORECASE if len(name) > 3 else 0
    return re.compile(r"(?<![A-Za-z0-9+#.&])" + r"[\s-]+".join(words) + r"(?![A-Za-z0-9+#&])", flags)


def mentions(name: str, text: str) -> bool:
    """Return True if the text contains the name as whole tokens; hyphens and spaces are equal."""
    return bool(name) and _pattern(name).search(text) is not None


def positions(name: str, text: str) -> list[int]:
    """Return the character offsets of the name in the text, as whole tokens."""
    return [match.start() for match in _pattern(name).finditer(text)] if name else []


def same_name(left: str, right: str) -> bool:
    """Return True if two skill names differ only in case, hyphens and spacing."""
    return fold(left) == fold(right)


def fold(name: str) -> str:
    """Convert a skill name for comparison: lower case, hyphens as spaces."""
    return " ".join(name.lower().replace("-", " ").split())
