"""Errors that end a command with a message and an exit code instead of a traceback."""

from __future__ import annotations

import re
import reprlib

_TOKEN = re.compile(r"hf_\w+")


class _Short(reprlib.Repr):
    """A bounded repr: a value may be a hundred megabytes, or hold a secret."""

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(_TOKEN.sub("hf_***", x[:1000]), level)


_short = _Short()
_short.maxstring = _short.maxother = 80


def short_repr(value: object) -> str:
    """Return a short repr of a user's value for an error's text, without any Hub token in it."""
    try:
        return _short.repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return f"a {type(value).__name__} with more digits than can be shown"


class UserError(Exception):
    """A mistake in a config, a file or a command line, described in the user's terms; exit code 2.

    `problems` holds one line for each mistake (where, what, remedy); all are reported at once.
    """

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class Stopped(Exception):
    """The work was ended from outside without an error; it can be resumed later."""

    def __init__(self, exit_code: int, message: str):
        super().__init__(message)
        self.exit_code = exit_code
