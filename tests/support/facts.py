"""One job and one candidate as facts, and answers about them."""

from __future__ import annotations

from typing import Any

FACTS: dict[str, Any] = {
    "version": 2,
    "requirements": [{"any": ["Python"], "best": "Python"}, {"any": ["SQL"], "best": None}],
    "nice": [],
    "skills": {"Python": {"level": "expert", "months": 40}},
    "years": 3,
    "range": [2, 4],
    "titles": {"Analyst": 1},
    "work_skills": [],
    "work": 1,
    "roles": [["Analyst", "Acme", 36]],
    "impossible": [],
}
"""Analyst, 2-4 years, Python and SQL; asked of an analyst of 3 years who lists Python."""
CONTEXT = (
    "[JOB]\nAnalyst, 2-4 years. Required: Python, SQL.\n"
    "[CANDIDATE]\nAnalyst, 3 years. Skills: Python (expert, 40m). Recent: Analyst at Acme, 36m."
)
"""The same as the prompt shows it."""
