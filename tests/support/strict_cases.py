"""A candidate, and how `strict` grades an answer about them."""

from __future__ import annotations

import json

from reward import STRICT, Breakdown

CONTEXT = """[JOB]
Data Engineer, 3-6 years. Required: Python, SQL, Airflow, Spark. Nice: Rust.
[CANDIDATE]
Data Analyst, 4 years. Skills: Python (advanced, 30m), SQL (expert, 48m), Excel (beginner, 5m). \
Recent: Analyst at Northwind, 24m; Reporting Analyst at Globex 2015, 150m."""
JUNIOR = """[JOB]
Data Engineer, 3-6 years. Required: Python, SQL, Airflow, Spark.
[CANDIDATE]
Barista, 1 year. Skills: Python (beginner, 6m), Excel (beginner, 5m). Recent: Barista at Coffee House, 12m."""
FULL = """[JOB DESCRIPTION]
Title: Ward Nurse
Experience: 2+ years
Required: Triage, Wound Care, Special Needs Care
About: We are growing and need someone who can keep clear records and help newer colleagues.
[CANDIDATE]
Title: Food and Beverage Manager
Experience: 3.5 years
Skills: Triage (expert, 38m), Wound Care (advanced, 20m), A/B Testing (beginner, 3m)
Career:
- Food and Beverage Manager at Redwood Partners, 41m: Kept the stock and trained four people."""
REASONS = ["has Python (advanced, 30m) and SQL (expert, 48m)", "lacks Airflow and Spark", "4 years is inside 3-6"]


def answer(reasons: object = REASONS, decision: object = "shortlist", score: object = 0.62, **more: object) -> str:
    return json.dumps({"reasons": reasons, "score": score, "decision": decision, **more})


def grade(completion: str, decision: str = "shortlist", score: float = 0.62, context: str = CONTEXT) -> Breakdown:
    return STRICT(completion, decision=decision, score=score, context=context)


def reasons_grade(*reasons: str, context: str = CONTEXT) -> Breakdown:
    return grade(answer(list(reasons)), context=context)


def held_against(reason: str, beside: str, context: str) -> str:
    """What the rubric finds false in a reason that stands beside a true one."""
    findings = reasons_grade(reason, beside, context=context).findings
    return " ".join(text for component, text in findings if component == "no_hallucination")
