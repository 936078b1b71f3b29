"""The two forms of a prompt's user message, and the parser that reads one back into its records.

The job, which all its candidates share, comes first, so that it can be run once for the whole pool. The compact form
shows titles, years, skills and which of the job's skills the work names. The full form shows the texts of job and
profile, in which the model has to find the latter itself.
"""

from __future__ import annotations

import math
import re
from typing import get_args

from mlx_grpo.tasks.shortlist.fit import years_text
from mlx_grpo.tasks.shortlist.records import LEVELS, Candidate, Form, Job, Role, Skill

JOB, CANDIDATE = "[JOB]", "[CANDIDATE]"
MARKS = (f"{JOB}\n", f"\n{CANDIDATE}\n")
PUBLISHED_MARKS = ("[JOB DESCRIPTION]\n", f"\n\n{CANDIDATE}\n")
"""What stands before the job and before the candidate in the prompts of the published run."""

_LEVEL = "|".join(LEVELS)
_SKILL = re.compile(rf"(?:^|, )(?P<name>[^,]+?) \((?P<level>{_LEVEL})(?:, (?P<months>\d+)m)?\)(?=, |$)")
_ROLE = re.compile(r"(?P<title>.+?) at (?P<company>.+?), (?P<months>\d+)m")
_RANGE = r"(?P<range>\d+-\d+ years|\d+\+ years)"
_COMPACT_JOB = re.compile(
    rf"(?P<title>[^,]+), {_RANGE}\. Required: (?P<required>[^:]+?)\.(?: Nice: (?P<nice>[^:]+)\.)?"
)
_COMPACT_CANDIDATE = re.compile(
    r"(?P<title>[^,]+), (?P<years>[\d.]+) years?\. Skills: (?P<skills>[^:;]*)\. Recent: (?P<roles>[^:]*)\."
)


def render(job: Job, candidate: Candidate, form: Form) -> str:
    """Return the user message: the job under [JOB], then the candidate under [CANDIDATE].

    Raises ValueError where the records have a text that the compact form has no place for.
    """
    if form == "full":
        return "\n".join([JOB, *_full_job(job), CANDIDATE, *_full_candidate(candidate)])
    if job.text or candidate.headline or candidate.summary:
        raise ValueError("the compact form shows no job text, headline or summary: condense the records first")
    return "\n".join([JOB, _compact_job(job), CANDIDATE, _compact_candidate(candidate)])


def parse(text: str, form: Form) -> tuple[Job, Candidate]:
    """Read a rendered user message back into its records.

    Raises ValueError where `render` does not write such a text.
    """
    lines = text.split("\n")
    if lines[0] != JOB or lines.count(CANDIDATE) != 1:
        raise ValueError(f"not a prompt of ours: expected one {JOB} line and one {CANDIDATE} line")
    cut = lines.index(CANDIDATE)
    if form == "compact":
        return _parse_compact(lines[1:cut], lines[cut + 1 :])
    return _parse_full_job(lines[1:cut]), _parse_full_candidate(lines[cut + 1 :])


def with_published_marks(text: str) -> str:
    """Return a rendered user message as the published run writes it."""
    for own, published in zip(MARKS, PUBLISHED_MARKS, strict=True):
        text = text.replace(own, published, 1)
    return text


def with_own_marks(text: str) -> str:
    """Return a user message of the published run as `render` writes it; any other text unchanged."""
    if not text.startswith(PUBLISHED_MARKS[0]):
        return text
    for own, published in zip(MARKS, PUBLISHED_MARKS, strict=True):
        text = text.replace(published, own, 1)
    return text


def form_of(text: str) -> Form | None:
    """Return the form of a user message in either wording, None where it is none of ours."""
    text = with_own_marks(text)
    for form in get_args(Form):
        try:
            parse(text, form)
        except (ValueError, KeyError):
            continue
        return form
    return None


def range_text(job: Job) -> str:
    """Format the job's years as the prompt does: "3-6 years" or "5+ years"."""
    return f"{job.min_years}+ years" if job.max_years is None else f"{job.min_years}-{job.max_years} years"


def skill_text(skill: Skill) -> str:
    """Format a skill as the prompt does: "Python (advanced, 30m)"."""
    return f"{skill.name} ({skill.level})" if skill.months is None else f"{skill.name} ({skill.level}, {skill.months}m)"


def _skills(candidate: Candidate) -> str:
    return ", ".join(map(skill_text, candidate.skills)) or "none"


def _compact_job(job: Job) -> str:
    nice = f" Nice: {', '.join(job.nice)}." if job.nice else ""
    return f"{job.title}, {range_text(job)}. Required: {', '.join(job.required)}.{nice}"


def _compact_candidate(candidate: Candidate) -> str:
    roles = [f"{r.title} at {r.company}, {r.months}m" + (f" ({r.text})" if r.text else "") for r in candidate.roles]
    head = f"{candidate.title}, {years_text(candidate.years)}. Skills: {_skills(candidate)}."
    return f"{head} Recent: {'; '.join(roles) or 'none'}."


def _full_job(job: Job) -> list[str]:
    lines = [f"Title: {job.title}", f"Experience: {range_text(job)}", f"Required: {', '.join(job.required)}"]
    lines += [f"Nice to have: {', '.join(job.nice)}"] if job.nice else []
    return lines + ([f"About: {job.text}"] if job.text else [])


def _full_candidate(candidate: Candidate) -> list[str]:
    lines = [f"Title: {candidate.title}", f"Experience: {years_text(candidate.years)}"]
    lines += [f"Headline: {candidate.headline}"] if candidate.headline else []
    lines += [f"Summary: {candidate.summary}"] if candidate.summary else []
    lines += [f"Skills: {_skills(candidate)}", "Career:"]
    return lines + [
        f"- {r.title} at {r.company}, {r.months}m" + (f": {r.text}" if r.text else "") for r in candidate.roles
    ]


def _parse_skills(text: str) -> tuple[Skill, ...]:
    return tuple(
        Skill(match["name"], match["level"], None if match["months"] is None else int(match["months"]))
        for match in _SKILL.finditer(text)
    )


def _parse_role(text: str, tail: str) -> Role:
    match = re.fullmatch(_ROLE.pattern + tail, text)
    if match is None:
        raise ValueError(f"not a job line: {text!r}")
    return Role(match["title"], match["company"], int(match["months"]), match["text"] or "")


def _parse_range(text: str) -> tuple[int, int | None]:
    low, _, high = text.removesuffix(" years").partition("-")
    return (int(low), int(high)) if high else (int(low.rstrip("+")), None)


def _parse_years(text: str) -> float:
    years = float(text.partition(" ")[0])
    if not math.isfinite(years):
        raise ValueError(f"no number of years: {text!r}")
    return years


def _parse_compact(job_lines: list[str], candidate_lines: list[str]) -> tuple[Job, Candidate]:
    job, profile = (
        _COMPACT_JOB.fullmatch("\n".join(job_lines)),
        _COMPACT_CANDIDATE.fullmatch("\n".join(candidate_lines)),
    )
    if job is None or profile is None:
        raise ValueError("not a compact prompt of ours: " + " / ".join(job_lines + candidate_lines))
    low, high = _parse_range(job["range"])
    nice = tuple(job["nice"].split(", ")) if job["nice"] else ()
    roles = () if profile["roles"] == "none" else profile["roles"].split("; ")
    return (
        Job(job["title"], tuple(job["required"].split(", ")), nice, low, high),
        Candidate(
            profile["title"],
            _parse_years(profile["years"]),
            _parse_skills(profile["skills"]),
            tuple(_parse_role(role, r"(?: \((?P<text>.*)\))?") for role in roles),
        ),
    )


def _fields(lines: list[str]) -> dict[str, str]:
    return {key: value for key, colon, value in (line.partition(": ") for line in lines) if colon}


def _parse_full_job(lines: list[str]) -> Job:
    fields = _fields(lines)
    low, high = _parse_range(fields["Experience"])
    nice = tuple(fields["Nice to have"].split(", ")) if "Nice to have" in fields else ()
    return Job(fields["Title"], tuple(fields["Required"].split(", ")), nice, low, high, fields.get("About", ""))


def _parse_full_candidate(lines: list[str]) -> Candidate:
    cut = lines.index("Career:")
    fields = _fields(lines[:cut])
    roles = tuple(_parse_role(line.removeprefix("- "), r"(?:: (?P<text>.*))?") for line in lines[cut + 1 :])
    return Candidate(
        fields["Title"],
        _parse_years(fields["Experience"]),
        _parse_skills(fields["Skills"]),
        roles,
        fields.get("Headline", ""),
        fields.get("Summary", ""),
    )
