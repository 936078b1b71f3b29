"""A candidate as text and as facts, and how `strict` grades an answer about them."""

from __future__ import annotations

import json
from typing import Any

from reward import STRICT, Breakdown

CONTEXT = """[JOB]
Data Engineer, 3-6 years. Required: Python, SQL, Airflow, Spark. Nice: Rust.
[CANDIDATE]
Data Analyst, 4 years. Skills: Python (advanced, 30m), SQL (expert, 48m), Excel (beginner, 5m). \
Recent: Analyst at Northwind, 24m; Reporting Analyst at Globex 2015, 150m."""
# Of the years and the long job below only what the rule of the task says counts: here it calls one claim impossible.
FACTS: dict[str, Any] = {
    "version": 2,
    "requirements": [
        {"any": ["Python"], "best": "Python"},
        {"any": ["SQL"], "best": "SQL"},
        {"any": ["Airflow"], "best": None},
        {"any": ["Spark"], "best": None},
    ],
    "nice": [{"any": ["Rust"], "best": None}],
    "skills": {
        "Python": {"level": "advanced", "months": 30},
        "SQL": {"level": "expert", "months": 48},
        "Excel": {"level": "beginner", "months": 5},
    },
    "years": 4,
    "range": [3, 6],
    "titles": {"Data Analyst": 1, "Analyst": 0, "Reporting Analyst": 0},
    "work_skills": [],
    "work": 1,
    "roles": [["Analyst", "Northwind", 24], ["Reporting Analyst", "Globex 2015", 150]],
    "impossible": [{"kind": "role", "name": "Globex 2015", "months": 150}],
}
REASONS = [
    "Python: advanced, 30 months; SQL: expert, 48 months; Airflow: missing; Spark: missing",
    "4 years, inside 3-6; 150 months at Globex 2015 in 4 years, impossible",
    "Data Analyst: related work",
]


def answer(reasons: object = REASONS, decision: object = "shortlist", score: object = 0.62, **more: object) -> str:
    return json.dumps({"reasons": reasons, "score": score, "decision": decision, **more})


def grade(completion: str, decision: str = "shortlist", score: float = 0.62, facts: Any = FACTS) -> Breakdown:
    return STRICT(completion, decision=decision, score=score, facts=facts)


def reasons_grade(*reasons: str, facts: Any = FACTS) -> Breakdown:
    return grade(answer(list(reasons)), facts=facts)
