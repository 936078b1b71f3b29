"""Parse a JSON object in a model's text: leniently for the published rubric, exactly for the strict one.

The only place where foreign text meets a parser, and so the only place that catches what a parser raises.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

# ValueError: broken JSON, and integers past Python's limit on digits. RecursionError: thousands of open brackets.
UNREADABLE = (ValueError, RecursionError)


class StrictObject(NamedTuple):
    """An object that `read_strict` parsed, and what was wrong around it or inside it."""

    fields: dict[str, Any]
    alone: bool  # nothing but white space is outside the object
    repeated: bool  # some object in it has a key twice


def braced(text: str) -> tuple[int, int] | None:
    """Return the span from the first `{` to the last `}`, or None."""
    start, end = text.find("{"), text.rfind("}") + 1
    return (start, end) if 0 <= start < end else None


def read_published(text: str) -> dict[str, Any] | None:
    """Parse the object from the first `{` to the last `}`, then again with every `'` as `"`; None where both fail."""
    span = braced(text)
    if span is None:
        return None
    body = text[slice(*span)]
    for attempt in (body, body.replace("'", '"')):
        try:
            return json.loads(attempt)  # it starts with a brace, so what loads is an object
        except UNREADABLE:
            continue
    return None


def read_strict(text: str) -> StrictObject | None:
    """Parse the object from the first `{` to the last `}` by the JSON standard; None where that fails.

    NaN and Infinity are not JSON.
    """
    span = braced(text)
    if span is None:
        return None
    repeats: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(items)
        if len(fields) < len(items):
            repeats.append("")
        return fields

    try:
        fields = json.loads(text[slice(*span)], object_pairs_hook=pairs, parse_constant=_no_constant)
    except UNREADABLE:
        return None
    alone = not text[: span[0]].strip() and not text[span[1] :].strip()
    return StrictObject(fields, alone, bool(repeats))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
