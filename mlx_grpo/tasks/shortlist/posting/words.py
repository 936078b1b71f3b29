"""The word lists that postings are read with: words.json for English, skills.json for the names of skills."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlx_grpo.json_files import read_json


def _load(name: str) -> dict[str, Any]:
    return read_json(Path(__file__).with_name(name))


def phrase_pattern(phrases: Iterable[str]) -> re.Pattern[str]:
    """Compile a pattern for any of the phrases as whole words, in any case; a `*` stands for the rest of a word."""
    longest_first = sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase))
    escaped = [re.escape(phrase).replace(r"\*", r"\w*").replace(r"\ ", r"\s+") for phrase in longest_first]
    return re.compile(rf"(?<![\w'])(?:{'|'.join(escaped)})(?![\w'])", re.IGNORECASE)


def regex_pattern(expressions: Iterable[str]) -> re.Pattern[str]:
    """Compile a pattern for any of the regular expressions, from the start of a word, in any case."""
    return re.compile(rf"(?<![\w'])(?:{'|'.join(f'(?:{one})' for one in expressions)})(?!\w)", re.IGNORECASE)


def trimmed_words(text: str) -> list[str]:
    """Split a text into lower-case words; signs inside a word stay: "b.tech", "c++", "don't"."""
    return [word.rstrip(".'-") for word in re.findall(r"[\w+#][\w+#.'&-]*", text.lower())]


WORDS = _load("words.json")
SKILLS = _load("skills.json")
