"""Whether work is related, and whose years a reason compares: false where titles, work and years say the opposite."""

from __future__ import annotations

import pytest
from support.strict_cases import held_against

from reward.titles import kinship

CONTEXT = """[JOB]
Senior Data Engineer, 3-6 years. Required: Python, SQL, Airflow. Nice: Rust.
[CANDIDATE]
Baker, 6.9 years. Skills: Python (beginner, 30m), Excel (advanced, 3m). \
Recent: Data Analyst at Northwind, 24m (Excel); Sales Engineer at Acme, 9m; Baker at Globex, 30m (Cakes)."""


def told(reason: str, context: str = CONTEXT) -> str:
    return held_against(reason, "lacks SQL and Airflow", context)


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("work as Data Analyst is unrelated", "says 'data analyst' is unrelated to 'Senior Data Engineer'"),
        ("work as Data Analyst, unrelated", "says 'data analyst' is unrelated"),
        ("work as Baker is related", "says 'baker' is related to the job, which nothing shows"),
        ("worked as a Baker, closely related", "says 'baker' is related to the job"),
        ("has work as Baker, lacks SQL, work as Baker was directly related to the job", "says 'baker' is related"),
        ("5 years is inside 3-6, work as Baker is unrelated", "speaks of 5 years, which the candidate does not have"),
        ("3 years is inside 3-6, Python is beginner level", "speaks of 3 years"),
        ("3 years, inside 3-6, Python is beginner level", "speaks of 3 years"),
        ("Python is beginner level and 5 years falls well inside 3-6", "speaks of 5 years"),
        ("5 years is inside the asked 3-6", "speaks of 5 years"),
        ("has 4 years, within 3-6", "speaks of 4 years"),
        ("6y is inside 3-6, Python is beginner level", "speaks of 6 years"),
    ],
)
def test_what_titles_and_years_contradict_is_false(reason: str, fault: str):
    assert fault in told(reason)


@pytest.mark.parametrize(
    "reason",
    [
        "work as Data Analyst is related",
        "work as Data Analyst is partly related",  # how near is for the reader to judge
        "work as Sales Engineer is unrelated",  # an engineer of another field
        "work as Sales Engineer is related",
        "work as Baker is unrelated",
        "work as Baker is partly related",
        "work as Data Analyst is not unrelated",
        "work as Data Analyst is unrelated to SQL",
        "none of the work as Data Analyst is unrelated",
        "no work as Baker is related",
        "work as Baker is related to Cakes",
        "6.9 years is above 3-6, work as Baker is unrelated",
        "7 years is above 3-6, Python is beginner level",
        "6 years is under 6.9, Python is beginner level",  # of the job's 6
        "6 years is under the candidate's 6.9, Python is beginner level",
        "Python for 2.5 years is below 3-6",
        "Python, 2.5 years, is below 3-6",
        "experience with Python of 2.5 years is below 3-6",
        "3-6 years is below 6.9, Python is beginner level",
        "3-6 years, below the candidate's 6.9",
        "30 months is under 3 years, Python is beginner level",
    ],
)
def test_what_rules_cannot_tell_is_not_accused(reason: str):
    for word in ("related", "speaks of"):
        assert word not in told(reason)


def test_work_that_shows_a_skill_of_the_job_or_says_nothing_may_be_related():
    for work in ("30m (Rust).", "30m."):
        context = CONTEXT.replace("24m (Excel)", "24m").replace("30m (Cakes).", work)
        assert told("work as Baker is related", context) == ""


def test_a_candidate_without_years_may_have_any():
    assert "speaks of" not in told(
        "5 years is inside 3-6, Python there", CONTEXT.replace("Baker, 6.9 years.", "Baker.")
    )


@pytest.mark.parametrize(
    ("title", "worked"),
    [
        ("Software Architect", "Landscape Architect"),
        ("Software Architect", "Architect"),
        ("Data Engineer", "Data Entry Clerk"),
        ("Company: Data Inc\nData Engineer", "Data Analyst"),  # whose title is not what the text begins with
        ("About the job\nData Engineer", "Data Analyst"),
    ],
)
def test_work_of_another_field_may_be_unrelated(title: str, worked: str):
    context = CONTEXT.replace("Senior Data Engineer", title).replace("Data Analyst", worked)
    assert "unrelated to '" not in told(f"work as {worked} is unrelated", context)


@pytest.mark.parametrize(
    ("title", "worked"),
    [
        ("Backend Engineer", "Software Developer"),
        ("About the job\nWe need a Baker", "Baker"),
        ("Chef de Partie", "Chef"),
    ],
)
def test_work_that_a_jobs_words_leave_open_may_be_related(title: str, worked: str):
    context = CONTEXT.replace("Senior Data Engineer", title).replace("Baker, 6.9", f"{worked}, 6.9")
    assert "which nothing shows" not in told(f"work as {worked} is related", context)


@pytest.mark.parametrize(
    "head", ["Title: Senior Data Engineer\n", "\nJob Description: Data Engineer\n", "Data Engineer (remote). "]
)
def test_a_jobs_title_is_what_it_begins_with(head: str):
    context = CONTEXT.replace("Senior Data Engineer, 3-6 years. ", head)
    assert "unrelated to '" in told("work as Data Analyst is unrelated", context)
    assert "unrelated" not in told("work as Sales Engineer is unrelated", context)


def test_work_whose_title_says_less_than_the_jobs_is_of_its_field():
    context = CONTEXT.replace("Senior Data Engineer", "Hospital Pharmacist").replace("Data Analyst", "Pharmacist")
    assert "says 'pharmacist' is unrelated to 'Hosp" in told("work as Pharmacist is unrelated", context)


def test_titles_are_near_by_telling_words_and_half_by_role_words():
    assert kinship("Senior Data Engineer", "Lead data analyst") == 1
    assert kinship("Data Engineer", "Sales Engineer II") == 0.5
    assert kinship("Senior Baker", "Senior Nurse") == 0
