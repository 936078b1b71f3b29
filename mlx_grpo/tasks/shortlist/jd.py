"""Read a user's job description, plain prose, as a Job: title, years and skills, by rules.

- Title: the line "Job Description: ..." (or Title, Position, Role), else the first line.
- Years: "5-9 years", "5+ years", "at least 5 years"; lines that contain "experience" are read first.
- Skills: names from the pool or the bundled vocabulary that the text contains as whole tokens. Those under a heading
  like "Requirements" are required, those under "Nice to have" are nice to have. Text under "Benefits" or "We do not
  want" is left out. "Pinecone, Qdrant or FAISS" is one requirement that any of them meets.
  Lines "Required: Python, SQL" and "Nice to have: dbt" are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlx_grpo.errors import UserError
from mlx_grpo.tasks.shortlist.records import Job
from mlx_grpo.tasks.shortlist.text import fold, label, neutralise, positions, sentences

MAX_REQUIRED = 8
MAX_NICE = 4
# Fewer than this under "Requirements" means that the text names its skills elsewhere: take those too.
FEW_REQUIRED = 3

_TITLE = re.compile(r"^\s*#*\s*(?:job description|job title|title|position|role)\s*:\s*(\S.*)$", re.IGNORECASE)
_LISTED = re.compile(
    r"^\W*(required|required skills|must have|nice to have|nice|preferred)\s*:\s*(\S.*)$", re.IGNORECASE
)
_RANGE = re.compile(r"\b(\d{1,2})\s*(?:-|–|—|to)\s*(\d{1,2})\s*\+?\s*(?:years|yrs)\b", re.IGNORECASE)
_AT_LEAST = re.compile(
    r"\b(?:(?:at least|minimum|minimum of|min\.?)\s+(\d{1,2})\s*\+?|(\d{1,2})\s*\+)\s*(?:years|yrs)\b", re.IGNORECASE
)
# A heading decides for the lines under it; the first kind that matches counts.
_SECTIONS = (
    ("avoid", r"not want|n't want|disqualif|benefit|perk|we offer|compensation|location|logistics|vibe|culture|note\b|"
              r"how to|about us|process|between the lines|what we mean"),
    ("nice", r"nice|prefer|bonus|a plus|desirable|advantage|like you to have|good to have"),
    ("required", r"\bneed|requir|must|qualification|essential|minimum|you bring|looking for|skills"),
    ("body", r"doing|responsib|role|day|you will|you'll"),
)  # fmt: skip
_WORD = r"(?!(?:or|and)\b)[\w.+#&-]+"
_ENDS_IN_OR = re.compile(rf"^(?:\s*[,/]\s*{_WORD}(?: {_WORD})?)*[\s,/]*\bor\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One requirement in the text."""

    names: tuple[str, ...]
    section: str
    count: int
    """The number of times that the text names any of them."""
    order: int


def read_job(path: Path, pool_skills: Iterable[str], known_skills: Iterable[str]) -> Job:
    """Read the job that a description asks for; skills are spelled as in the pool.

    Raises UserError where the file cannot be read, or contains no title or no known skill.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    lines = [neutralise(line) for line in text.splitlines() if neutralise(line)]
    names = list({fold(name): name for name in [*known_skills, *pool_skills]}.values())
    title = _title(lines)
    listed = _listed(lines)
    required, nice = listed if listed[0] else _ranked(_entries(lines, names), listed[1])
    problems = (
        [] if title else [f"{path}: no title found: begin the file with a line like `Job Description: Data Engineer`"]
    )
    if not required:
        problems.append(
            f"{path}: none of the {len(names)} skill names of the pool and the bundled vocabulary stands in the text: "
            "add a line like `Required: Python, SQL`"
        )
    if problems:
        raise UserError(*problems)
    low, high = _years(lines)
    prose = " ".join(line if line[-1] in ".!?:;," else line + "." for line in lines)
    return Job(title, required, nice, low, high, prose, id=path.stem)


def _title(lines: list[str]) -> str:
    named = [match[1] for line in lines if (match := _TITLE.match(line))]
    first = named[0] if named else lines[0] if lines else ""
    return label(re.split(r"\s[-–—|]\s|\s\(", first)[0].lstrip("# "))


def _years(lines: list[str]) -> tuple[int, int | None]:
    for line in sorted(lines, key=lambda line: "experience" not in line.lower()):
        if (match := _RANGE.search(line)) and int(match[1]) <= int(match[2]):
            return int(match[1]), int(match[2])
        if match := _AT_LEAST.search(line):
            return int(match[1] or match[2]), None
    return 0, None


def _listed(lines: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the skills of "Required: A, B" and of "Nice to have: C" lines, as they are written."""
    required: list[str] = []
    nice: list[str] = []
    for line in lines:
        if match := _LISTED.match(line):
            names = [label(name) for name in match[2].rstrip(".").split(",") if label(name)]
            if match[1].lower().startswith(("required", "must")):
                required += names
            else:
                nice += names
    return tuple(required), tuple(nice)


def _entries(lines: list[str], names: list[str]) -> list[_Entry]:
    whole = "\n".join(lines)
    names = [name for name in names if positions(name, whole)]
    counts = {name: len(positions(name, whole)) for name in names}
    section = "body"
    mentioned: list[tuple[str, tuple[str, ...]]] = []
    for line in lines:
        groups = [group for sentence in sentences(line) for group in _groups(sentence, names)]
        section = _section(line, section, bool(groups))
        mentioned += [(section, group) for group in _merged(groups)]
    # A name counts once: as a requirement if it is under that heading, however early the prose mentions it.
    taken: set[str] = set()
    entries: list[_Entry] = []
    for wanted in ("required", "nice", "body"):
        for order, (place, group) in enumerate(mentioned):
            if place == wanted and taken.isdisjoint(group):
                entries.append(_Entry(group, place, sum(counts[name] for name in group), order))
                taken.update(group)
    return entries


def _section(line: str, current: str, names_skill: bool) -> str:
    """Return the section of a line, a new one where the line reads like a heading."""
    if names_skill or len(line.split()) > 12 or line[-1] in ".,;!?" or re.search(r":\s", line):
        return current
    for section, pattern in _SECTIONS:
        if re.search(pattern, line, re.IGNORECASE):
            return section
    return "body" if line.endswith(":") or line.startswith("#") else current


def _groups(sentence: str, names: list[str]) -> list[tuple[str, ...]]:
    """Group the skill names of one sentence in order; a list that ends with "or" is one group of alternatives."""
    spans = _spans(sentence, names)
    runs: list[list[tuple[int, int, str]]] = []
    joined: list[bool] = []
    for span in spans:
        gap = sentence[runs[-1][-1][1] : span[0]] if runs else ""
        words = re.findall(r"[\w.+#&-]+", gap)
        others = [word for word in words if word.lower() != "or"]
        if runs and len(others) <= 1 and others != ["and"] and not re.search(r"[.;()]", gap):
            runs[-1].append(span)
            joined[-1] = joined[-1] or len(others) < len(words)
        else:
            runs.append([span])
            joined.append(False)
    groups: list[tuple[str, ...]] = []
    for run, has_or in zip(runs, joined, strict=True):
        together = has_or or bool(_ENDS_IN_OR.match(sentence[run[-1][1] :]))
        members = tuple(dict.fromkeys(name for _, _, name in run))
        groups += [members] if together else [(name,) for name in members]
    return groups


def _spans(sentence: str, names: list[str]) -> list[tuple[int, int, str]]:
    """Find names, longest first, without overlap: (start, end, name) in order of place."""
    spans: list[tuple[int, int, str]] = []
    for name in sorted(names, key=len, reverse=True):
        for start in positions(name, sentence):
            end = start + len(name)
            if all(end <= left or right <= start for left, right, _ in spans):
                spans.append((start, end, name))
    return sorted(spans)


def _merged(groups: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Merge the groups of one line that share a name."""
    merged: list[tuple[str, ...]] = []
    for group in groups:
        same = [other for other in merged if not set(other).isdisjoint(group)]
        merged = [other for other in merged if other not in same]
        merged.append(tuple(dict.fromkeys(name for other in [*same, group] for name in other)))
    return merged


def _ranked(entries: list[_Entry], listed_nice: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Select required and nice-to-have entries: those of the section first, the most often named before the others."""

    def best(section: str, most: int) -> list[_Entry]:
        chosen = sorted((e for e in entries if e.section == section), key=lambda e: (-e.count, e.order))[:most]
        return sorted(chosen, key=lambda entry: entry.order)

    required = best("required", MAX_REQUIRED)
    if len(required) < FEW_REQUIRED:
        required += best("body", (MAX_REQUIRED if not required else FEW_REQUIRED) - len(required))
    nice = listed_nice or tuple(" or ".join(entry.names) for entry in best("nice", MAX_NICE))
    return tuple(" or ".join(entry.names) for entry in required), nice
