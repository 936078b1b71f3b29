"""A reason that says more, or less, of a skill than the profile shows is false; where rules can't tell, it is not."""

from __future__ import annotations

import pytest
from support.strict_cases import held_against, reasons_grade

CONTEXT = """[JOB]
Data Engineer, 3-6 years. Required: Python, SQL, Airflow. Nice: Rust.
[CANDIDATE]
Data Analyst, 4 years. Skills: Python (beginner, 30m), SQL (expert, 48m), Airflow (intermediate, 19m), \
Excel (advanced, 3m), Rust. Recent: Data Analyst at Northwind, 24m (SQL)."""
OTHER = "4 years is inside 3-6"


def told(reason: str, context: str = CONTEXT) -> str:
    return held_against(reason, OTHER, context)


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("strong in Python", "says strong of 'python', which is (beginner, 30m)"),
        ("strong in SQL and Python, two of three", "says strong of 'python'"),
        ("excellent Python", "says strong of 'python'"),
        ("strong skills in Python", "says strong of 'python'"),
        ("lacks depth in SQL", "says thin of 'sql', which is (expert, 48m)"),
        ("lacks enough SQL", "says thin of 'sql'"),
        ("Python and SQL present, three of three", "says three, but names 2"),
        ("strong in SQL, three out of three", "says three, but names 1"),
        ("has more SQL, three of three", "says three, but names 1"),
        ("strong in SQL and two more, three of three", "says three where 2 of what the job requires are strong"),
        ("work shows Python", "says the work shows 'python', which does not stand there"),
        ("work at Northwind is unrelated", "says unrelated of work that shows 'sql'"),
        ("claims jobs of 48m and 30m in 4 years, impossible", "speaks of jobs that the candidate did not have"),
        ("solid Excel skills", "says strong of 'excel', which is (advanced, 3m)"),
        ("thin on SQL", "says thin of 'sql', which is (expert, 48m)"),
        ("strong in SQL, one of four", "says of four, but the job requires 3"),
        ("strong in SQL, three of three", "says three, but names 1"),
        ("strong in SQL, 2 of 3", "says 2, but names 1"),
        ("calls itself expert in Python", "says expert of 'python', which is beginner"),
        ("calls itself expert in SQL after 2m", "says 2m of 'sql'"),
        ("claims 30m of SQL in 4 years, possible", "says 30m of 'sql'"),
        ("claims 48m at Northwind in 4 years, possible", "says 48m at 'northwind'"),
        ("has four years at Northwind", "says four at 'northwind'"),
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
        "work shows SQL, related",
        "work shows SQL, has Python",
        "work is not unrelated, it shows SQL",
        "lacks Excel at Northwind",
        "Work at Northwind shows no Excel",
        "work as Data Analyst is partly related",
        "strong candidate, Python is there",
        "strong background, experience with Python",
        "strong in SQL, 1 out of 3",
        "not thin on SQL",
        "calls itself expert in SQL after 48m",
        "claims 48m of SQL in 4 years, possible",
        "claims 24m at Northwind in 4 years, possible",
        "has two years at Northwind",
        "Data Analyst at Northwind (SQL expert, 48m)",
        "more than 19m at Northwind",
        "needs 48m at Northwind",
        "years at Northwind, SQL for 48m",
        "strong in SQL for two of 4 years",
        "strong in SQL and one more, two of three",
    ],
)
def test_a_degree_that_holds_or_cannot_be_told_is_not(reason: str):
    assert told(reason) == ""


def test_requirements_that_are_hard_to_count_are_counted_from_their_least_to_their_most():
    context = CONTEXT.replace("Python, SQL, Airflow", "SQL, Part 145, Testing and Tagging")
    assert told("strong in SQL, one of three", context) == told("strong in SQL, one of four", context) == ""
    assert "says of five" in told("strong in SQL, one of five", context)
    assert told("strong in SQL and Part 145, two of three", context) == ""  # "Part 145" is read as no term


@pytest.mark.parametrize(
    ("claim", "verdict", "fault"),
    [
        ("claims 85m of SQL in 4 years", "possible", "calls 85m in 4 years possible"),
        ("claims 85m of SQL in 4 years", "not impossible", "calls 85m in 4 years possible"),
        ("claims 84m of SQL in 4 years", "possible", ""),
        ("claims 49m of SQL in 4 years", "impossible", ""),
        ("claims 48m of SQL in 4 years", "impossible", "calls 48m in 4 years impossible"),
        ("claims 48m of SQL in 4 years", "not possible", "calls 48m in 4 years impossible"),
        ("claims 55m at Northwind in 4 years", "possible", "calls 55m in 4 years possible"),
        ("claims 54m at Northwind in 4 years", "possible", ""),
        ("claims jobs of 24m and 30m in 4 years", "impossible", ""),  # together they are too long
        ("claims jobs of 31m and 30m in 4 years", "possible", "calls 61m in 4 years possible"),
        ("claims 48m of SQL and 30m of Python in 4 years", "impossible", "calls 48m in 4 years impossible"),
        ("claims 24m of SQL in 2 years", "impossible", "speaks of 2 years, which the candidate does not have"),
        ("claims 85m of SQL in 12 years", "possible", "speaks of 12 years, which the candidate does not have"),
        ("calls itself expert in SQL after 2m", "possible", "calls expert after 2m possible"),
        ("calls itself expert in SQL after 3m", "impossible", "calls expert after 3m impossible"),
        ("calls itself expert in SQL after 2m", "impossible", ""),
        # Not a bare verdict on the numbers.
        ("85m of SQL in 4 years", "hardly possible", ""),
        ("85m of SQL in 4 years", "a possible mistake", ""),
        ("no 85m of SQL in 4 years", "possible", ""),
        ("24m of SQL in 4 years", "far from impossible", ""),
        ("in 4 years 24m at Impossible Foods", "SQL throughout", ""),
    ],
)
def test_a_verdict_on_months_is_held_against_the_years(claim: str, verdict: str, fault: str):
    months = next(word for word in claim.split() if word[-1] == "m" and word[:-1].isdigit())
    context = (
        CONTEXT.replace("48m", months).replace("Northwind, 24m", f"Northwind, {months}")
        + " Clerk at Acme, 30m. 30m Impossible Foods"
    )
    context = context.replace("Nice: Rust.", "Nice: Rust. The team is 12 years old.")
    assert told(f"{claim}, {verdict}", context) == (fault and f"reason 1: {fault}")


def test_each_stay_at_a_company_counts_and_a_skill_of_its_name_does_not():
    context = CONTEXT.replace("24m (SQL).", "24m (SQL); Clerk at Northwind, 12m; Clerk at Excel, 9m.")
    for claim in ("24m at Northwind", "12m at Northwind", "9m at Excel"):  # of the skill Excel there are 3m
        assert told(f"claims {claim} in 4 years, possible", context) == ""
    assert "says 9m at 'northwind'" in told("claims 9m at Northwind in 4 years, possible", context)


def test_a_skill_listed_twice_is_as_much_as_either_says():
    context = CONTEXT.replace("Python (beginner, 30m)", "Python (expert, 60m), Python (beginner, 30m)")
    assert told("strong in Python", context) == told("claims 60m of Python in 4 years, possible", context) == ""
    assert "says 12m of 'python'" in told("claims 12m of Python in 4 years, possible", context)


@pytest.mark.parametrize(
    "listed",
    [
        "Required: Python, SQL, Airflow; Nice: Rust.",
        "Location: Berlin | Required: Python, SQL, Airflow | Nice: Rust",
        "Must have: Python, SQL, Airflow; bonus: Rust, Go.",
        "Required: Python, SQL, Airflow, nice: Rust.",
        "About: We need two things: depth, breadth. Required: Python, SQL, Airflow. Nice: Rust.",
    ],
)
def test_requirements_end_where_another_label_stands_and_begin_at_no_colon_in_a_sentence(listed: str):
    context = CONTEXT.replace("Required: Python, SQL, Airflow. Nice: Rust.", listed)
    assert told("strong in SQL, one of three", context) == ""
    assert "the job requires 3" in told("strong in SQL, one of four", context)


def test_a_job_that_says_strong_takes_no_meaning_from_a_reason_that_does():
    context = CONTEXT.replace("Nice: Rust.", "Nice: Rust. A strong team in Berlin.")
    assert reasons_grade("strong in SQL", OTHER, context=context).reason_quality == 1.0


def test_what_follows_a_stays_full_stop_is_not_told_of_the_work():
    context = CONTEXT.replace("24m (SQL).", "24m. Languages: Airflow (expert, 30m).")
    assert told("work at Northwind is unrelated", context) == ""
    assert told("work shows Airflow", context) == ""
