"""A reason that says more, or less, of a skill than the profile shows is false; where rules can't tell, it is not."""

from __future__ import annotations

import pytest
from test_reward_strict import reasons_grade

CONTEXT = """[JOB]
Data Engineer, 3-6 years. Required: Python, SQL, Airflow. Nice: Rust.
[CANDIDATE]
Data Analyst, 4 years. Skills: Python (beginner, 30m), SQL (expert, 48m), Airflow (intermediate, 19m), \
Excel (advanced, 3m), Rust. Recent: Data Analyst at Northwind, 24m (SQL)."""
OTHER = "4 years is inside 3-6"


def told(reason: str, context: str = CONTEXT) -> str:
    """What the rubric holds against a reason, beside a true one."""
    findings = reasons_grade(reason, OTHER, context=context).findings
    return " ".join(text for component, text in findings if component == "no_hallucination")


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("strong in Python", "says strong of 'python', which is (beginner, 30m)"),
        ("strong in SQL and Python, two of three", "says strong of 'python'"),
        ("solid Excel skills", "says strong of 'excel', which is (advanced, 3m)"),
        ("thin on SQL", "says thin of 'sql', which is (expert, 48m)"),
        ("strong in SQL, one of four", "says of four, but the job requires 3"),
        ("strong in SQL, three of three", "says three, but names 1"),
        ("strong in SQL, 2 of 3", "says 2, but names 1"),
        ("calls itself expert in Python", "says expert of 'python', which is beginner"),
        ("calls itself expert in SQL after 2m", "says 2m of 'sql'"),
        ("claims 30m of SQL in 4 years, possible", "says 30m of 'sql'"),
        ("claims 48m of SQL in 4 years, impossible", "calls 48m in 4 years impossible"),
        ("claims 48m of SQL in 4 years, not possible", "calls 48m in 4 years impossible"),
    ],
)
def test_a_degree_that_the_profile_contradicts_is_false(reason: str, fault: str):
    assert fault in told(reason)


@pytest.mark.parametrize(
    "reason",
    [
        "strong in SQL, one of three",
        "thin on Python and Airflow",
        "strong in Airflow",  # 0.475: near the line, so for the reader to judge
        "thin on Airflow",
        "strong in Rust",  # neither level nor months: it may be
        "thin on Rust",
        "needs a strong Python developer, has SQL (expert, 48m)",
        "lacks depth in Python",
        "not thin on SQL",
        "calls itself expert in SQL after 48m",
        "claims 48m of SQL in 4 years, possible",
        "claims 48m of SQL and 24m at Northwind in 4 years, impossible",  # together they are too long
        "strong in SQL for two of 4 years",
        "strong in SQL and two more, three of three",
    ],
)
def test_a_degree_that_holds_or_cannot_be_told_is_not(reason: str):
    assert told(reason) == ""


def test_requirements_that_are_hard_to_count_are_counted_from_their_least_to_their_most():
    context = CONTEXT.replace("Python, SQL, Airflow", "SQL, Part 145, Testing and Tagging")
    assert told("strong in SQL, one of three", context) == told("strong in SQL, one of four", context) == ""
    assert "says of five" in told("strong in SQL, one of five", context)
    assert told("strong in SQL and Part 145, two of three", context) == ""  # "Part 145" is read as no term


def test_months_far_past_the_years_are_not_possible_and_a_little_past_them_may_be():
    claim = "claims {}m of SQL in 4 years, {}"
    for months, verdict, fault in (
        (85, "possible", "calls 85m in 4 years possible"),
        (84, "possible", ""),
        (49, "impossible", ""),
    ):
        context = CONTEXT.replace("48m", f"{months}m")
        assert told(claim.format(months, verdict), context) == (fault and f"reason 1: {fault}")


def test_a_colon_inside_a_sentence_opens_no_list_of_requirements():
    about = "Nice: Rust. About: We need two things that sound contradictory: depth, breadth, speed, and taste."
    context = CONTEXT.replace("Nice: Rust.", about)
    assert told("strong in SQL, one of three", context) == ""
