"""The text of an HTML page."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

MAX_HTML = 1 << 20
"""Characters of a page without its scripts; the rest of it is not read."""

_BLOCK_TAG = re.compile(r"</?(?:p|div|ul|ol|li|h[1-6]|html|body|table|tr|section|dl)\b[^<>]{0,500}>", re.IGNORECASE)
_ANY_TAG = re.compile(r"</(?:b|strong|i|em|u|span|a)>|<br\s*/?>|<!doctype html", re.IGNORECASE)
_ESCAPED_TAG = re.compile(r"&lt;/?(?:p|div|ul|ol|li|h[1-6]|strong|b|br)\b", re.IGNORECASE)
_NO_TAG = re.compile(r"<(?!/?[a-zA-Z][^<>]{0,2000}>)")
_DECLARATION = re.compile(r"<[!?][^<>]{0,500}>")
_BLOCKS = re.compile("p|div|[uod]l|br|tr|table|section|article|header|footer|title|dt|blockquote|pre|hr|form")
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,7}|#x[0-9a-fA-F]{1,6});")


def text_of_html(text: str) -> str:
    """Return the text of an HTML page with Markdown's signs for headings and lists; other text is unchanged."""
    if _ESCAPED_TAG.search(text) and not _BLOCK_TAG.search(text):
        text = html.unescape(text)
    blocks = _BLOCK_TAG.search(text) is not None
    if not blocks and not _ANY_TAG.search(text):
        return _ENTITY.sub(lambda match: html.unescape(match[0]), text[:MAX_HTML])
    for start, end in (("<!--", "-->"), ("<script", "</script"), ("<style", "</style"), ("<svg", "</svg")):
        text = _without(text, start, end)
    parser = _TextOfHtml(keep_newlines=not blocks)
    # A "<" that opens no tag is text; the parser would search the rest of the page for its end.
    parser.feed(_NO_TAG.sub("&lt;", _DECLARATION.sub("", text[:MAX_HTML])))
    parser.close()
    return parser.text()


def _without(text: str, start: str, end: str) -> str:
    """Remove what stands between two marks, in any case, both included."""
    lower = text.lower()
    kept, place = [], 0
    while (opening := lower.find(start, place)) >= 0:
        closing = lower.find(end, opening)
        kept.append(text[place:opening])
        closing = lower.find(">", closing) if closing >= 0 else closing
        place = len(text) if closing < 0 else closing + 1
    return "".join([*kept, text[place:]])


class _TextOfHtml(HTMLParser):
    """Collects the text of an HTML page, with headings as `#`, list items as `-` and bold text between `**`."""

    def __init__(self, keep_newlines: bool):
        super().__init__(convert_charrefs=True)
        self.keep_newlines = keep_newlines
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a line at a block, a list item or a heading."""
        if tag == "li":
            self.parts.append("\n- ")
        elif re.fullmatch("h[1-6]", tag):
            self.parts.append("\n# ")
        elif _BLOCKS.fullmatch(tag):
            self.parts.append("\n")
        elif tag in ("b", "strong"):
            self.parts.append("**")
        elif tag in ("td", "th", "dd"):
            self.parts.append(" : ")

    def handle_endtag(self, tag: str) -> None:
        """End the line of a block."""
        if tag in ("b", "strong"):
            self.parts.append("**")
        elif _BLOCKS.fullmatch(tag) or tag == "li" or re.fullmatch("h[1-6]", tag):
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        """Add text; a page's own line breaks are spaces, but for lists typed in it."""
        self.parts.append(data if self.keep_newlines else re.sub(r"\s+(?![-*•]\s)", " ", data))

    def text(self) -> str:
        """Return the collected text; a table's row is one line, "Experience : 3 years"."""
        lines = "".join(self.parts).splitlines()
        cells = (re.sub(r"^\s*:\s*|\s*:\s*$", "", line) if " : " in line else line for line in lines)
        return "\n".join(re.sub(r"\*\*(\s*)\*\*", r"\1", line) for line in cells)
