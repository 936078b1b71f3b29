"""Text as whole tokens, so that 15 is not found in 2015, `Go` not in `Google`, and 7.0 equals 7."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

from reward.words import NUMBER_WORDS, UNITS

# A number with a glued-on suffix (30m, 3D, 5+), or a word with the signs that end C++ and C#; linear in time.
_TOKEN = re.compile(r"\d+(?:,\d{3}(?!\d))*(?:\.\d+)?[^\W\d_]*\+?|[^\W\d_][^\W_]*(?:\+\+|#)?")
_NUMBER = re.compile(r"(\d+(?:,\d{3})*(?:\.\d+)?)([^\W\d_]*)\+?")
_NOT = re.compile(r"n['’]t\b")
_RANGE = frozenset(("-", "–", "—", " - ", " – "))


@dataclass(frozen=True, slots=True)
class Token:
    """A word or number: as written, its case-folded key, the text before it, and its value and unit if a number.

    `at` is where it starts in the text, in characters; "doesn't" is read as does and not, and `not` starts at its n.
    """

    text: str
    key: str
    before: str
    starts: bool  # first of a sentence or line
    value: float | None = None
    unit: str = ""  # "month", "year" or none
    at: int = 0

    @property
    def namelike(self) -> bool:
        """Return True for words written like names: a capital, or a sign or digit inside a word (C++, k8s)."""
        return self.value is None and any(c.isupper() or c.isdigit() or c in "+#" for c in self.text)


def tokenise(text: str) -> list[Token]:
    """Split `text` into whole tokens: "7 years of C++" -> 7 (year), years, of, c++."""
    written, text = text, _NOT.sub(" not", text)
    tokens: list[Token] = []
    end = gained = 0  # each " not" is one character longer than the n't it stands for
    for match in _TOKEN.finditer(text):
        before = text[end : match.start()]
        starts = not tokens or (any(c in ".!?\n" for c in before) and (before != "."))
        at = match.start() - gained
        if before and before[-1] != written[at - 1]:
            gained, at = gained + 1, at - 1
        tokens.append(_numbered(Token(match[0], match[0].casefold(), before, starts, at=at)))
        end = match.end()
    return _with_units(tokens)


def _numbered(token: Token) -> Token:
    match = _NUMBER.fullmatch(token.text)
    # 3D and 5G are words: their suffix is no unit of time.
    if not match or (match[2] and match[2].casefold() not in UNITS):
        return token
    return replace(token, value=float(match[1].replace(",", "")), unit=UNITS.get(match[2].casefold(), ""))


def _with_units(tokens: list[Token]) -> list[Token]:
    # From the right, so that in "3-6 years" the 6 has its unit when the 3 asks for it.
    for at in range(len(tokens) - 2, -1, -1):
        token, after = tokens[at], tokens[at + 1]
        if token.value is not None and not token.unit:
            ranged = after.value is not None and after.before in _RANGE
            unit = after.unit if ranged else "" if after.value is not None else UNITS.get(after.key, "")
            tokens[at] = replace(token, unit=unit)
        elif token.key in NUMBER_WORDS and after.key in UNITS:
            tokens[at] = replace(token, value=NUMBER_WORDS[token.key], unit=UNITS[after.key])
    return tokens


def counts(tokens: list[Token]) -> list[tuple[int, float, Token, int]]:
    """Find "two of four" and "2 out of 4": (index, the part, the whole's token, the index after it)."""
    found = []
    for at, (first, of) in enumerate(pairwise(tokens)):
        to = at + 1 + (of.key == "out")
        to += 1 + any(token.key == "the" for token in tokens[to + 1 : to + 2])  # "two of the four"
        if to >= len(tokens) or "of" not in (of.key, tokens[at + 2].key) or first.unit or tokens[to].unit:
            continue
        part, whole = number(first), number(tokens[to])
        if part is not None and whole is not None:
            found.append((at, part, tokens[to], to + 1))
    return found


def counted(tokens: list[Token]) -> set[int]:
    """Return the indices of all tokens in such counts."""
    return {at for start, _, _, stop in counts(tokens) for at in range(start, stop)}


def number(token: Token) -> float | None:
    """Return the value of "4" or "four"; None for any other word."""
    return token.value if token.value is not None else NUMBER_WORDS.get(token.key)


def quantities(tokens: list[Token]) -> frozenset[tuple[float, str]]:
    """Collect the numbers among `tokens` as (value, unit), each time in months and in years: 24m is 2 years."""
    found = {(round(token.value, 4), token.unit) for token in tokens if token.value is not None}
    months = {(round(value * 12, 4), "month") for value, unit in found if unit == "year"}
    years = {(round(value / 12, 4), "year") for value, unit in found if unit == "month"}
    return frozenset(found | months | years)


def grounded(token: Token, known: frozenset[tuple[float, str]]) -> bool:
    """Return True if a number token is among `known`; a number without a unit agrees with any unit."""
    value = round(token.value or 0.0, 4)
    units = (token.unit, "") if token.unit else ("", "month", "year")
    return any((value, unit) in known for unit in units)
