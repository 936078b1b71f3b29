"""The repository's documents: their examples, links and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from support.paths import ROOT

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")
NAMED = re.compile(r"# ([\w-]+\.(?:py|yaml))\n")


def name_of(document: Path) -> str:
    """Return a document's path from the repository's root."""
    return document.relative_to(ROOT).as_posix()


def blocks(language: str, document: Path) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL)


def write_named_blocks(document: Path, folder: Path) -> list[Path]:
    """Write the blocks that begin with a comment of their file's name, such as `# my_rewards.py`."""
    written = []
    for block in [*blocks("python", document), *blocks("yaml", document)]:
        if named := NAMED.match(block):
            written.append(folder / named[1])
            written[-1].write_text(block, encoding="utf-8")
    return written


def table_rows(document: Path) -> Iterator[dict[str, str]]:
    """Yield each row of each table as its cells by column name."""
    columns: list[str] = []
    for line in document.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        # An empty first or last cell is lost above; the tables here have none.
        if not columns:
            columns = cells
        elif not set(line) <= set("|-: "):
            yield dict(zip(columns, cells, strict=True))
