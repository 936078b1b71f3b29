"""The one exception that means "the user can mend this": printed without a traceback, exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a config, a file or a command line, told in the user's terms.

    `problems` holds one line for each mistake (where, what, remedy); all are reported at once.
    """

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = list(problems)
