"""Where commands print: results to stdout, everything else to stderr."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich import box
from rich.console import Console
from rich.table import Table

Row = list[str]

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


def console_table(header: Row, rows: list[Row], title: str) -> Table:
    """A table for a terminal: headers are broken at words, and the first column gives way where it is narrow."""
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
