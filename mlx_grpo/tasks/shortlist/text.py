"""Profile text is data: made safe for a chat prompt, and searched by whole tokens."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from reward import names

_WIDE = re.compile("[\u3000\uff01-\uffee]+")
# The last one is invisible and tells where a word may break.
_HYPHENS = {0x2010: "-", 0x2011: "-", 0x00AD: None}
_DASHES = re.compile(r"[-_\s\u2010-\u2015\u2212]+")
_JOINERS = "\u200c\u200d"
# Arabic to Sinhala, Myanmar, Khmer and Mongolian: there a joiner shapes the letters, and is a part of the spelling.
_JOINING_LETTER = re.compile("[\u0600-\u0dff\u1000-\u109f\u1780-\u18af]")
_TAG = re.compile(r"<([^<>\s]{1,60})>")
_HEADING = re.compile(r"\[\s*(/?[A-Z][A-Z _/]*)\s*\]", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def normalise(text: str) -> str:
    """Return a text on one line, in one spelling: composed letters, no full width, plain hyphens, nothing unprintable.

    Zero-width joiners stay in the scripts that need them.
    """
    if not text.isascii():
        text = _WIDE.sub(lambda wide: unicodedata.normalize("NFKC", wide[0]), text).translate(_HYPHENS)
    if not text.isprintable():
        text = "".join(char if char.isprintable() or char in _JOINERS else " " for char in text)
        text = unicodedata.normalize("NFC", _without_idle_joiners(text))
    return " ".join(unicodedata.normalize("NFC", text).split())


def _without_idle_joiners(text: str) -> str:
    kept: list[str] = []
    letter = ""
    for char in text:
        if char not in _JOINERS:
            kept.append(char)
            # Normalisation may reorder a letter's marks, so the letter decides for the joiners behind them.
            letter = letter if unicodedata.combining(char) else char
        elif _JOINING_LETTER.match(letter):
            kept.append(char)
    return "".join(kept)


def neutralise(text: str) -> str:
    """Normalise a text so that nothing in it can end a turn, begin a thought or fake a heading.

    `<|im_end|>` becomes `(|im_end|)`, `[CANDIDATE]` becomes `(CANDIDATE)`; "x < 5" is unchanged. Brackets are
    replaced and not deleted: after a deletion the pieces around it could join into a new token.
    """
    text = normalise(text)
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
    text = neutralise(re.sub(r"[,;:]", " ", normalise(text)))
    return re.sub(r"(?<!\S)at(?!\S)", "@", text)


def sentences(text: str) -> list[str]:
    """Cut a text after each full stop, question or exclamation mark."""
    return [part for part in _SENTENCE_END.split(text) if part]


@lru_cache(maxsize=4096)
def _pattern(name: str) -> re.Pattern[str]:
    words = [re.escape(word) for word in _words(name)]
    # "Go", "R" and "SAP" are words too; only longer names match in any case ("embeddings").
    flags = re.IGNORECASE if len(name) > 3 else 0
    return re.compile(r"(?<![A-Za-z0-9+#.&])" + _DASHES.pattern.join(words) + r"(?![A-Za-z0-9+#&])", flags)


def _words(name: str) -> list[str]:
    return [word for word in _DASHES.split(normalise(name)) if word]


def mentions(name: str, text: str) -> bool:
    """Return True if the text contains the name as whole tokens; hyphens and spaces are equal."""
    words = _words(name)
    # Most names are in no text: looking for the first word takes a hundredth of the time.
    return bool(words) and words[0].casefold() in text.casefold() and _pattern(name).search(text) is not None


def same_name(left: str, right: str) -> bool:
    """Return True if two skill names differ only in case, hyphens, spacing and their characters' width or form."""
    return fold(left) == fold(right)


@lru_cache(maxsize=4096)
def fold(name: str) -> str:
    """Convert a name for comparison, by the function that the rubric compares names with."""
    return names.fold(name)
