"""Thoughts in a completion: everything up to its last `</think>`, whoever opened the thought.

The templates of R1's distillations and of Qwen3's thinking models end a prompt with `<think>`, so that a completion
holds the closing mark alone. Others leave both marks to the model.
"""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"
EMPTY_REST = f"\n{CLOSE}\n\n"
"""What closes a thought that a prompt opened, with nothing in it."""


def strip_thinking(text: str, opened: bool = False) -> str:
    """Return what a completion says after its last thought; `opened` means that the prompt began one."""
    return _split(text, opened)[0]


def ends_in_thought(text: str, opened: bool = False) -> bool:
    """Return True if a completion ends before its last thought does."""
    return _split(text, opened)[1]


def _split(text: str, opened: bool) -> tuple[str, bool]:
    """Return the text without its thoughts, and True if the last one is not closed."""
    _, closed, rest = text.rpartition(CLOSE)
    if opened and not closed:
        return "", True
    said, begun, _ = rest.partition(OPEN)
    return said.strip(), bool(begun)
