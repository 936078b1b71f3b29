"""One spelling for names and clauses: case, width, composed letters, dashes and white space do not matter."""

from __future__ import annotations

import unicodedata

_SIGNS = dict.fromkeys(map(ord, "‐‑‒–—―−﹘﹣－"), "-") | dict.fromkeys(map(ord, "‘’ʼ"), "'")


def plain(text: str) -> str:
    """Return the text in one spelling: "Ｎｏｄｅ.js  –  Expert" -> "node.js - expert".

    Characters that cannot be seen (zero-width and soft hyphens) are left out, so they hide no repetition.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    text = unicodedata.normalize("NFKC", text).translate(_SIGNS)
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", text.casefold()).split())


def fold(name: str) -> str:
    """Convert a name for comparison: `plain`, with hyphens and underscores as spaces ("Month‑End_Close")."""
    return " ".join(plain(name).replace("-", " ").replace("_", " ").split())


def quote(text: str, width: int = 60) -> str:
    """Make foreign text safe to print: cut it at `width`, and escape what UTF-8 cannot hold (lone surrogates)."""
    short = text if len(text) <= width else text[: width - 1] + "…"
    return "'" + short.encode("utf-8", "backslashreplace").decode("utf-8") + "'"
