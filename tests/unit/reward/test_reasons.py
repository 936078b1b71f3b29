"""Honest reasons earn in full under `strict`; false, worthless and repeated ones are named and earn nothing."""

from __future__ import annotations

import pytest
from support.strict_cases import answer, grade, reasons_grade

HONEST = [
    "has SQL at expert level",
    "Strong SQL and solid Python",
    "Deep SQL background",
    "Airflow and Spark are missing",
    "Airflow is not listed in the skills",
    "does not list Airflow, Spark or Rust",
    "lacks Airflow, Spark; Python is advanced",
    "lacks Airflow, Python is advanced",
    "lacks Airflow, Python is there",
    "covers Python and SQL, but not Airflow or Spark",
    "no required skill beyond Python and SQL",
    "lacks strong Excel",
    "no Excel at expert level",
    "not lacking Python",
    "doesn't lack Python",
    "the job needs strong Airflow skills, Python is there",
    "SQL at Northwind, Python at Northwind",
    "not only SQL but Python",
    "No Airflow among the required skills, Python is there",
    "lacks practical experience in Excel",
    "SQL at work is not unrelated",
    "has 2 of the 4 required skills, Python and SQL",
    "no gap in Python or SQL",
    "no doubt about SQL (expert, 48m)",
    "lacks Airflow, good Python (advanced, 30m)",
    "no Airflow or Spark, only Python and SQL",
    "2 of 4 asked: Python and SQL",
    "4 is inside 3-6",
    "work as Data Analyst fits the role",
    "48 months of SQL",
    "2 years at Northwind as Analyst",
    "4.0 years against 3 to 6",
    "four years is inside 3-6",
    "4 years meets the 3-6 asked",
    "4 years is inside 3 to 6",
    "4 years is within Data Engineer expectations",
    "4 years is within Data Engineer, 3-6 years",
    "4 years is within JD's three to six",
    "4 years is within Data Engineer, three to six, SQL is there",
    "4 years is inside at least 3",
    "4 years is within [3,6]",
    "4 years is within 3, the minimum",
    "4 years meets 3",
    "4 years just meets 3",
    "spent 4 years with SQL within 3",
    "48m of SQL is inside Northwind, 24m",
    "Python is within Northwind, SQL is there",
    "4 years is within 5",
    "4 years is within 3 or so, SQL is there",
    "Python 30 months and SQL 48 months",
    "Excel is only beginner level",
    "python and sql are both there",
    "Most recent work was at Northwind and Globex",
    "weak on Excel (beginner, 5m)",
    "spent 4 years on 2 jobs, with SQL",
    "SQL since Globex on 2015, 24m at Northwind",
    "48m on SQL",
]
DISHONEST = {
    "lacks Python": "denies 'python'",
    "no Python to speak of": "denies 'python'",
    "does not have Python": "denies 'python'",
    "Python is missing": "denies 'python'",
    "Airflow and Python are missing": "denies 'python'",
    "Python isn't listed": "denies 'python'",
    "lacks Airflow, Spark and SQL": "denies 'sql'",
    "has Python but no SQL": "denies 'sql'",
    "has Rust": "claims 'rust', which only the job names",
    "has Python, SQL and Rust": "claims 'rust'",
    "knows SQL and Spark": "claims 'spark'",
    "strong in Airflow": "claims 'airflow'",
    "has 6 years of SQL": "claims '6', which only the job names",
    "covers none of the required skills, such as Python": "says none of what the job asks for",
    "lacks all required skills: Python first": "says none",
    "has all required skills like Python": "says all of what the job asks for, but 'airflow'",
    "Python is beginner level": "says beginner of 'python', which is advanced",
    "has expert Python": "says expert of 'python'",
    "has SQL (expert, 30m)": "says 30m of 'sql'",
    "48 months of Excel": "says 48 of 'excel'",
    "SQL for 30m": "says 30m of 'sql'",
    "good knowledge of SQL (beginner, 48m)": "says beginner of 'sql'",
    "Airflow and Spark are present, Python too": "claims 'airflow', which only the job names",
    "claims Airflow at Northwind": "claims 'airflow', which only the job names",
    "work as SQL is related": "says work as 'sql', which is no title",
    "claims 24m at SQL in 4 years, possible": "takes 'sql' for a company",
    "claims 24m of Northwind in 4 years, possible": "takes 'northwind' for a skill",
    "strong in Python and Northwind": "takes 'northwind' for a skill",
    "4 years is inside, SQL is there": "compares '4' with nothing",
    "4 years is inside Data Engineer": "says years are inside 'data engineer', which is no range",
    "4 years is inside Data Analyst, 48m": "which is no range",
    "4 years is within Northwind, SQL is there": "which is no range",
    "4 years is inside 3, SQL is there": "'4' is not inside '3'",
    "4 years is inside 3 years": "'4' is not inside '3'",
    "4 years is inside 3, 48m of SQL": "'4' is not inside '3'",
    "30m in SQL": "says 30m of 'sql'",
    "SQL of 30m": "says 30m of 'sql'",
    "worked as Data Engineer at Northwind": "says work as 'data engineer', which is not in the profile",
    "led 48 people with SQL": "says '48' of nothing",
    "all required skills, no gaps, SQL too": "says all of what the job asks for",
    "2 is inside 3-6 for Python": "'2' is not inside '3-6'",
    "4 years is below 3-6": "'4' is not below '3-6'",
    "4 years goes beyond 3-6": "'4' is not beyond '3-6'",
    "4 years falls short of 3-6": "'4' is not short",
    "claims 4 years on 3-6": "says '3-6' of nothing",
    "claims 24m in 4 years after 3-6, SQL too": "says '3-6' of nothing",
    "claims 30m on SQL": "says 30m of 'sql'",
    "3 months of Python": "'3' stands nowhere",  # 3-6 are years
    "2 years is inside 3+": "'2' is not inside '3+'",
    "2 years is inside 3-6": "'2' is not inside '3-6'",
    "worked at Initech with Python": "'Initech' stands nowhere",
    "Initech Systems used Python": "'Initech' stands nowhere",
    "knows Python and AWS": "'AWS' stands nowhere",
    "AWS and Python at work": "'AWS' stands nowhere",
    "7 years of Python": "'7' stands nowhere",
    "seven years of Python": "'seven' stands nowhere",
    "15 projects in Python": "'15' stands nowhere",  # in 2015 and 150m, but only as a part
    "48 years of Python": "'48' stands nowhere",  # 48 months do
    "Pуthon at Northwind": "'Pуthon' stands nowhere",  # a Cyrillic у
}


@pytest.mark.parametrize("reason", HONEST)
def test_an_honest_reason_earns_in_full(reason: str) -> None:
    assert grade(answer([reason])).findings == grade(answer(["has Python and SQL"])).findings


@pytest.mark.parametrize("reason", DISHONEST)
def test_a_false_reason_is_named_and_earns_nothing(reason: str) -> None:
    grades = reasons_grade(reason, "Analyst by trade, says Globex")
    assert any(DISHONEST[reason] in finding.text for finding in grades.findings), grades.lines()
    assert grades.reason_quality <= 0.5


WORTHLESS = {
    "a strong candidate with good skills and experience": "cites nothing",
    "Python, SQL, Airflow": "copies",
    "Data Analyst, 4 years": "copies",
    "Analyst at Northwind": "copies",
    "in Python": "says nothing of what it names",
    "Python, related": "says nothing of what it names",
    "4 years, Excel, impossible": "says nothing of what it names",
    "the Python": "says nothing of what it names",
    "SQL Python is": "says nothing of what it names",
    "Spark asked, 3-6 years": "speaks of the job alone",
    "has SQL, Python and SQL": "lists 'sql' twice",
    "has SQL, two, two": "lists 'two' twice",
    "has Data Analyst, 4 years. Skills: Python (advanced, 30m), SQL (expert, 48m)": "copies",
    "has Python (advanced, 30m), SQL (expert, 48m), Excel (beginner, 5m)": "copies",
    "mentions Python, SQL, Excel and Airflow, Spark, Rust, Northwind and Globex": "lists everything",
    "has Python and so on and so forth which is of course a really very nice thing": "is padded",
    "Python Python Python and Python and Python": "is padded",
    "has Python " + "x" * 200: "has 211 characters, over 200",
    "has Py\u200bthon": "characters that cannot be seen",
    "has Python \ud800": "characters that cannot be seen",
    "…": "has no words",
}


@pytest.mark.parametrize("reason", WORTHLESS)
def test_a_worthless_reason_says_why_and_earns_nothing(reason: str) -> None:
    grades = reasons_grade(reason, "4 years is inside 3-6")
    assert any(f"reason 1 {WORTHLESS[reason]}" in f.text or WORTHLESS[reason] in f.text for f in grades.findings)
    assert (grades.reason_quality, grades.no_hallucination) == (0.5, 0.5)


@pytest.mark.parametrize(
    "again",
    ["has Python and SQL", "Has python, and SQL!", "knows SQL and Python", "has Python", "SQL with Python too"],
)
def test_a_repeated_reason_earns_once(again: str) -> None:
    assert reasons_grade("has Python and SQL", again).reason_quality == 0.5


def test_repeating_a_skill_to_say_something_new_about_it_earns() -> None:
    assert reasons_grade("has Python and SQL", "Python is advanced level").reason_quality == 1.0
