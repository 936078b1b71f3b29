"""A job description's file as lines: decoded, without HTML or Markdown, one spelling for dashes and quotes."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_grpo.errors import UserError
from mlx_grpo.tasks.shortlist.posting.page import text_of_html

MAX_BYTES = 4 << 20
MAX_CHARACTERS = 60_000
"""Of the text without markup; the rest is not read."""
WRAPPED_FROM = 45
"""Characters from which a line that ends in the middle of a sentence was wrapped."""

_FORMATS = (
    (b"{\\rtf", "an RTF document"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a Word document or another archive (DOCX, ODT, ZIP)"),
    (b"\xd0\xcf\x11\xe0", "an old Word document (DOC)"),
)
_ENCODINGS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
_SPELLINGS = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u301c\uff5e\ufe63\uff0d", "-"),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u200b\u2060\ufeff\u00ad`", None),
    }
)
_BULLET = re.compile(
    r"(?:[•·‣▪▫◦●○■□►▸➢➤✓✔✅☑☐★☆→❖⁃∙\uf0b7\uf0a7]+\s*|[-*+]+\s+|-(?=[A-Za-z])|>+\s*(?=[^\d\s])|\d{1,2}[.)]\s+"
    r"|\(?[a-z]\)\s+|[ivx]{1,4}[.)]\s+|o\s+(?=[A-Z])|\[[ xX]\]\s*)"
)
_LINK = re.compile(r"!?\[([^\][]{0,300})\]\([^()\s]{0,500}\)")
_BOLD_LINE = re.compile(r"(\*\*|__)(?!\s)[^*]{1,120}\1\s*:?")
_EMPHASIS = re.compile(r"\*\*|__(?=\W|$)|(?<!\w)__|(?<!\w)[*_](?=\w)|(?<=[\w.:,)])[*_](?!\w)")
_NO_SQL = re.compile(r"\bno-sql\b", re.IGNORECASE)  # else "no" would deny SQL
_CELL = re.compile(r"(?<=[^\s:]) *\t\s*(?=\S)")  # "Experience<tab>3 years", copied from a table
_RULE = re.compile(r"[\s=\-_~*#|:+.]*")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a description."""

    text: str
    bullet: bool = False
    marked: bool = False
    """Its author marked it as a heading: `#`, bold as a whole, or underlined."""
    indent: int = 0


def read_text(path: Path) -> tuple[str, bool]:
    """Read a description's text without HTML, and True where it is longer than what is read of it.

    Raises UserError where the file is no text.
    """
    text = unicodedata.normalize("NFKC", text_of_html(_decode(path)).translate(_SPELLINGS))
    return _NO_SQL.sub("NoSQL", text[:MAX_CHARACTERS]), len(text) > MAX_CHARACTERS


def lines_of(text: str) -> list[Line]:
    """Split a text into lines without markup; empty lines are left out."""
    lines: list[Line] = []
    for raw in text.splitlines():
        if lines and len(raw.strip()) >= 3 and not raw.strip(" =-~*_"):
            lines[-1] = replace(lines[-1], marked=not lines[-1].bullet)
        line = _line(raw)
        if not line.text:
            if lines:
                lines.append(line)  # an empty line ends a wrapped one
        elif lines and lines[-1].text and _continues(lines[-1], line):
            lines[-1] = replace(lines[-1], text=f"{lines[-1].text} {line.text}")
        else:
            lines.append(line)
    return [line for line in lines if line.text]


def _decode(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the job description's text file") from None
    for start, name in _FORMATS:
        if content.startswith(start):
            raise UserError(f"{path}: is {name}, and only text is read: save it as plain text (.txt) and give that")
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: holds over {MAX_BYTES} bytes; give the text of one job")
    encoding = next((name for mark, name in _ENCODINGS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}; save it as UTF-8") from None


def _line(raw: str) -> Line:
    """Take the markup off one line."""
    text = "".join(char if char.isprintable() or char in "\t\u200c\u200d" else " " for char in raw)
    indent = len(text) - len(text.lstrip())
    text = text.strip()
    text = _LINK.sub(r"\1", text.strip("|") if text.startswith("|") else text).strip()
    hashes = re.match(r"#{1,6}\s+", text)
    text = text[hashes.end() :] if hashes else text
    marked = hashes is not None or _BOLD_LINE.fullmatch(text) is not None
    bullet = False
    for _ in range(3):  # "> - [x] Python"
        found = _BULLET.match(text)
        if found is None or marked or found.end() == len(text):
            break
        if found[0].strip()[:1] in "★☆" and _is_picture(text[-1]):
            break  # "★ Data Engineer ★"
        quote = found[0].startswith(">")
        bullet, text = bullet or not quote, text[found.end() :].strip()
        marked = quote and _BOLD_LINE.fullmatch(text) is not None
    text = _strip_signs(_EMPHASIS.sub("", _CELL.sub(": ", text, count=1)))
    if _RULE.fullmatch(text):
        return Line("")
    return Line(" ".join(text.split()), bullet, marked, indent)


def _strip_signs(text: str) -> str:
    """Strip emoji and other pictures from both ends."""
    start, end = 0, len(text)
    while start < end and _is_picture(text[start]):
        start += 1
    while end > start and _is_picture(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_picture(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in ("So", "Sk", "Co", "Cn", "Cf", "Mn", "Me")


def _continues(before: Line, line: Line) -> bool:
    """Return True if a line goes on with the sentence of the one before, which an editor wrapped."""
    if line.bullet or line.marked or before.marked or before.text[-1] in ".!?:;":
        return False
    if before.bullet and line.indent > before.indent and len(before.text) >= WRAPPED_FROM:
        return True
    if len(before.text) < WRAPPED_FROM:
        return False
    return line.text[0].islower() or before.text.endswith((",", " and", " or", " the", " of", " in", " with", " a"))
