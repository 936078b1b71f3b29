"""Where commands print: results to stdout, everything else to stderr."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console

console = Console()
errors = Console(stderr=True)

GOES_ON = "the same command goes on where it was"


def tell(*lines: str) -> None:
    """Lines to stderr as they are, whatever brackets or numbers they hold."""
    for line in lines:
        errors.print(line, highlight=False, markup=False, soft_wrap=True)


def show(lines: Iterable[str]) -> None:
    """Lines of a result, likewise."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def spelled(options: Mapping[str, object]) -> list[str]:
    """Options as a command line spells them; those that were not given are left out."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
