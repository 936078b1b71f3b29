"""Spellings that differ to a computer alone are one name; names that differ to a reader stay two."""

from __future__ import annotations

import unicodedata

import pytest

from reward.names import fold, plain, quote


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("C++", "c++"),
        ("Ｎｏｄｅ．ｊｓ", "node.js"),
        ("Month-End Close", "month end  close"),
        ("Month‑End–Close", "month-end close"),
        ("month_end_close", "Month-End Close"),
        (unicodedata.normalize("NFD", "Café"), "café"),
        ("STRASSE", "straße"),
        ("Py\u200bthon\u00ad", "Python"),
        ("Driver’s Licence", "driver's licence"),
        ("Data\u00a0Entry\n", "data entry"),
        ("ﬁtting", "fitting"),
        ("İstanbul", "i̇stanbul"),
    ],
)
def test_spellings_fold_to_one(left: str, right: str) -> None:
    assert fold(left) == fold(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [("C", "C++"), ("C++", "C#"), ("Node.js", "Nodejs"), ("Go", "Ｇ0"), ("SQL", "NoSQL"), ("Python", "Pythоn")],
)
def test_names_that_differ_to_a_reader_stay_two(left: str, right: str) -> None:
    assert fold(left) != fold(right)


def test_plain_keeps_one_kind_of_dash() -> None:
    assert plain("  4 – 6　Years ") == "4 - 6 years"


@pytest.mark.parametrize("name", ["C++", "Ⅷ-ﬀ_‑É", "İ", "ẞ", "ΰ", "\u1fb3\u0345"])
def test_folding_twice_changes_nothing(name: str) -> None:
    assert fold(fold(name)) == fold(name)


def test_quote_cuts_and_escapes() -> None:
    assert quote("a" * 100) == "'" + "a" * 59 + "…'"
    assert quote("\ud800") == "'\\ud800'"
