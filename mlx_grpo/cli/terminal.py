"""Printing for commands: results to stdout, everything else to stderr."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

Row = list[str]

console = Console()
errors = Console(stderr=True)

RESUME_HINT = "the same command continues where it stopped"


def tell(*lines: str) -> None:
    """Print lines to stderr as they are, with any brackets and numbers in them."""
    for line in lines:
        errors.print(line, highlight=False, markup=False, soft_wrap=True)


def show(lines: Iterable[str]) -> None:
    """Print lines of a result to stdout as they are, with any brackets and numbers in them."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """Return foreign text with an escape for whatever could act on a terminal or UTF-8 cannot carry."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def from_here(path: Path) -> str:
    """Return a path relative to the working directory where it lies in it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def spelled(options: Mapping[str, object]) -> list[str]:
    """Format options as command line arguments; leave out those without a value."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]


def console_table(header: Row, rows: list[Row], title: str) -> Table:
    """Make a table for a terminal: headers wrap between words, and a narrow terminal shortens the first column."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for i, name in enumerate(header):
        widest = max(len(text) for text in [*name.split(), *(row[i] for row in rows)])
        table.add_column(name, justify="right" if i else "left", width=widest if i else None, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
