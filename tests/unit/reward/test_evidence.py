"""What an answer's clauses cover together: parts merge, repeats and contradictions earn nothing; marks by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from support.strict_cases import FACTS, REASONS, reasons_grade

from reward.evidence import judge, weigh
from reward.facts import Facts, read_facts

# Seven facts are decisive: four requirements, years, work, one impossible claim.
OTHER = "Data Analyst: related work"


def changed(**fields: Any) -> dict[str, Any]:
    return copy.deepcopy(FACTS) | fields


def read(**fields: Any) -> Facts:
    return read_facts(changed(**fields))


@pytest.mark.parametrize(
    ("reasons", "quality", "truth"),
    [
        (REASONS, 1.0, 1.0),
        (["SQL: expert, 48 months", OTHER], 2 / 7, 1.0),
        (["SQL: expert", OTHER], 1.5 / 7, 1.0),
        (["SQL: expert", "SQL: 48 months"], 1 / 7, 1.0),  # two clauses that merge
        (["SQL: expert; 48 months of SQL", OTHER], 2 / 7, 1.0),
        (["SQL: expert, 48 months", "expert in SQL"], 1 / 7, 1 / 2),  # says nothing new
        (["SQL: expert", "SQL: expert, 48 months"], 1 / 7, 1.0),
        ([OTHER, OTHER], 1 / 7, 1 / 2),
        ([OTHER, "work as Data Analyst is related"], 1 / 7, 1 / 2),
        (["4 years, inside 3-6", "4 years of experience, within 3-6"], 1 / 7, 1 / 2),
        ([OTHER, "no red flags"], 1 / 7, 1 / 2),
        ([OTHER, "Python: missing"], 1 / 7, 1 / 3),
        ([OTHER, "Excel: beginner, 5 months"], 1 / 7, 1.0),  # nobody asks for Excel
        ([OTHER, "Excel: beginner; Excel: beginner"], 1 / 7, 1 / 2),
        (["Excel: beginner", "Rust: missing"], 0.0, 0.0),  # idle truths earn nothing
        ([OTHER, "SQL: expert, 48 months; SQL: advanced, 48 months"], 1 / 7, 1 / 3),
        (["SQL: advanced, 48 months", "SQL: expert, 48 months"], 0.0, 0.0),
        ([OTHER, "Spark: missing; Spark: expert"], 1 / 7, 1 / 3),
        ([OTHER, "Analyst: related work"], 0.0, 0.0),
        (["no Airflow, Spark", "no red flags, clouds"], 2 / 7, 2 / 4),
        (["no Airflow or Spark, no Python", OTHER], 3 / 7, 3 / 5),
        (["a good fit", "no red flags"], 0.0, 0.0),
        ([";", " ; ;"], 0.0, 0.0),
    ],
)
def test_marks_of_reasons_by_hand(reasons: list[str], quality: float, truth: float) -> None:
    graded = reasons_grade(*reasons)
    assert (graded.reason_quality, graded.no_hallucination) == pytest.approx((quality, truth)), graded.lines()


def test_gold_answer_earns_everything_and_its_total_is_one() -> None:
    assert reasons_grade(*REASONS).total == pytest.approx(1.0)


def test_decisive_facts_come_in_order_and_canonical_wording() -> None:
    assert list(read().decisive()) == [
        "Python: advanced, 30 months",
        "SQL: expert, 48 months",
        "Airflow: missing",
        "Spark: missing",
        "4 years, inside 3-6",
        "Data Analyst: related work",
        "150 months at Globex 2015 in 4 years, impossible",
    ]


@pytest.mark.parametrize(
    ("claim", "wording"),
    [
        ({"kind": "skill", "name": "Kafka", "months": 150}, "Kafka: 150 months in 4 years, impossible"),
        ({"kind": "jobs", "months": [30, 40]}, "jobs of 30 and 40 months in 4 years, impossible"),
        ({"kind": "jobs", "months": [30, 40, 1]}, "jobs of 30, 40 and 1 month in 4 years, impossible"),
        ({"kind": "expert", "name": "Go", "months": 1}, "expert in Go after 1 month, impossible"),
    ],
)
def test_wording_of_each_impossible_claim_is_confirmed(claim: dict[str, Any], wording: str) -> None:
    facts = changed(impossible=[claim])
    assert list(read_facts(facts).decisive())[-1] == wording
    assert [clause.status for clause in judge(wording, facts)] == ["confirmed"]


@pytest.mark.parametrize(
    ("fields", "wording"),
    [
        ({"years": 1}, "1 year, below 3-6"),
        ({"years": 6.9}, "6.9 years, above 3-6"),
        ({"years": 7, "range": [5, None]}, "7 years, inside 5+"),
        ({"years": 3, "range": [0, 2]}, "3 years, above 0-2"),
        ({"years": 3.0, "range": [3, 6]}, "3 years, inside 3-6"),
        ({"years": 6, "range": [3, 6]}, "6 years, inside 3-6"),
    ],
)
def test_wording_of_the_years_is_confirmed(fields: dict[str, Any], wording: str) -> None:
    facts = changed(**fields)
    assert wording in read_facts(facts).decisive()
    assert [clause.status for clause in judge(wording, facts)] == ["confirmed"]


def test_gap_to_the_range_is_exact_for_years_with_a_decimal() -> None:
    facts = changed(years=6.9)
    assert judge("0.9 years above the maximum of 6", facts)[0].status == "confirmed"
    assert judge("1 year above the maximum of 6", facts)[0].status == "refuted"
    assert judge("0.9 years above the maximum of 6", changed(years=6.9, range=[3, None]))[0].status == "refuted"
    assert judge("0.5 years below the minimum of 3", changed(years=2.5))[0].status == "confirmed"


def test_years_decide_nothing_where_any_number_will_do() -> None:
    facts = read(range=[0, None])
    assert len(facts.decisive()) == 6
    evidence = weigh(["4 years, inside 0+"], facts)
    assert evidence.reasons[0][0].status == "confirmed"
    assert (evidence.coverage, evidence.no_hallucination) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "wording"),
    [
        ({"work": 0, "titles": {"Analyst": 0}}, "Analyst: unrelated work"),
        ({"work": 0.5, "titles": {"Baker": 0, "Sales Engineer": 0.5}}, "Sales Engineer: partly related work"),
        ({"titles": {"Baker": 0}, "work_skills": ["SQL", "Spark", "Rust"]}, "work with SQL and Spark: related"),
        ({"work": 0.5, "titles": {"Baker": 0}, "work_skills": ["SQL"]}, "work with SQL: partly related"),
    ],
)
def test_wording_of_the_work_is_confirmed_and_covers_it(fields: dict[str, Any], wording: str) -> None:
    facts = read(**fields)
    assert wording in facts.decisive()
    assert weigh([wording], facts).covered[wording] == 1.0


def test_work_that_nothing_shows_decides_nothing() -> None:
    assert len(read(titles={}, work=0).decisive()) == 6
    assert len(read(titles={}, work=1, work_skills=["SQL"]).decisive()) == 6
    assert judge("Baker: related work", changed(titles={}, work=0))[0].status == "refuted"


@pytest.mark.parametrize("clause", ["Python: advanced", "Python (advanced)"])
def test_level_alone_is_full_where_the_profile_has_no_months(clause: str) -> None:
    facts = read(skills=FACTS["skills"] | {"Python": {"level": "advanced", "months": None}})
    assert weigh([clause], facts).covered["Python: advanced"] == 1.0


def test_months_alone_are_full_where_the_profile_has_no_level() -> None:
    facts = read(skills=FACTS["skills"] | {"Python": {"level": None, "months": 30}})
    assert weigh(["30 months of Python"], facts).covered["Python: 30 months"] == 1.0


def test_skill_with_neither_level_nor_months_decides_nothing() -> None:
    facts = read(skills=FACTS["skills"] | {"Python": {"level": None, "months": None}})
    assert len(facts.decisive()) == 6


def test_two_spellings_of_a_skill_are_each_confirmed_and_the_best_one_decides() -> None:
    skills = FACTS["skills"] | {"python": {"level": "beginner", "months": 2}}
    facts = read(skills=skills)
    first, second = weigh(["Python: beginner, 2 months; Python: advanced, 30 months"], facts).reasons[0]
    assert (first.fact, second.fact) == ("python: beginner, 2 months", "Python: advanced, 30 months")
    assert first.status == second.status == "confirmed"


def test_name_that_two_requirements_share_states_both() -> None:
    requirements = [{"any": ["Airflow"], "best": None}, {"any": ["Airflow", "Dagster"], "best": None}]
    facts = read(requirements=requirements, impossible=[])
    evidence = weigh(["no Airflow"], facts)
    assert evidence.covered["Airflow: missing"] == evidence.covered["Airflow or Dagster: missing"] == 1.0
    assert evidence.no_hallucination == 1.0


def test_requirement_that_one_of_two_alternatives_meets_is_not_missing() -> None:
    requirements = [{"any": ["Dagster", "SQL"], "best": "SQL"}]
    clause = judge("Dagster: missing", changed(requirements=requirements))[0]
    assert (clause.status, clause.fact) == ("refuted", "SQL: expert, 48 months")
    assert "alternative" in clause.why


def test_false_doubt_takes_the_credit_of_every_true_one() -> None:
    doubts = "150 months at Globex 2015 in 4 years, impossible; 24 months at Northwind in 4 years, impossible"
    evidence = weigh([doubts], read())
    assert [clause.status for clause in evidence.reasons[0]] == ["confirmed", "refuted"]
    assert evidence.covered["150 months at Globex 2015 in 4 years, impossible"] == 0.0


LEVELS = ("beginner", "intermediate", "advanced", "expert")
ALTERNATIVES = {
    "Python: advanced, 30 months": [f"Python: {level}, 30 months" for level in LEVELS],
    "SQL: expert, 48 months": ["SQL: expert, 48 months", "SQL: missing"],
    "Airflow: missing": ["Airflow: missing", *(f"Airflow: {level}" for level in LEVELS)],
    "4 years, inside 3-6": [f"4 years, {side} 3-6" for side in ("above", "inside", "below")],
    "Data Analyst: related work": [f"Data Analyst: {d} work" for d in ("related", "partly related", "unrelated")],
}


@pytest.mark.parametrize("fact", ALTERNATIVES)
def test_answer_with_all_alternatives_of_a_fact_earns_less_than_one_with_none(fact: str) -> None:
    silent = [clause for reason in REASONS for clause in reason.split("; ") if clause != fact]
    none = reasons_grade("; ".join(silent[:3]), "; ".join(silent[3:]))
    every = reasons_grade("; ".join(silent[:3]), "; ".join(silent[3:]), "; ".join(ALTERNATIVES[fact]))
    assert every.reason_quality == none.reason_quality == pytest.approx(6 / 7)
    assert every.total < none.total


def test_answer_with_all_alternatives_of_every_fact_earns_no_more_than_an_empty_one() -> None:
    every = reasons_grade(*("; ".join(alternatives) for alternatives in ALTERNATIVES.values()))
    empty = reasons_grade("a good fit", "no red flags")
    assert every.reason_quality == every.no_hallucination == 0.0
    assert every.total <= empty.total == pytest.approx(0.6)


def test_clause_has_its_place_in_the_reason() -> None:
    reason = "  SQL: expert ;; 4 years, inside 3–6； no Airflow, Spark;"
    clauses = judge(reason, FACTS)
    assert [reason[clause.start : clause.stop] for clause in clauses] == [
        "SQL: expert",
        "4 years, inside 3–6",
        "no Airflow, Spark",
        "no Airflow, Spark",
    ]
    assert [clause.text for clause in clauses] == [reason[clause.start : clause.stop] for clause in clauses]
    assert [clause.fact for clause in clauses][2:] == ["Airflow: missing", "Spark: missing"]


def test_reason_past_the_limit_is_one_unread_clause() -> None:
    reason = "SQL: expert; " * 50
    (clause,) = judge(reason, FACTS)
    assert (clause.status, clause.start, clause.stop) == ("unread", 0, len(reason))
    assert clause.why == "has 650 characters, over 600"
    assert len(weigh([reason], read(), max_chars=650).reasons[0]) == 50


def test_reason_that_is_no_text_is_one_unread_clause() -> None:
    evidence = weigh([None, {"text": "SQL: expert"}, OTHER], read())
    assert [row[0].status for row in evidence.reasons] == ["unread", "unread", "confirmed"]
    assert evidence.no_hallucination == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("clause", "why"),
    [
        ("SQL: beginner", "the profile has 'SQL: expert, 48 months'"),
        ("Kubernetes: expert", "the profile does not list 'kubernetes'"),
        ("4 years, above 3-6", "it is 4 years, inside 3-6"),
        ("Analyst: related work", "it is 'Analyst: unrelated work'"),
        ("Baker: related work", "'baker' is no title of the candidate"),
        ("work with SQL: partly related", "the work does not name 'sql'"),
        ("no SQL", "the profile has 'SQL: expert, 48 months'"),
        ("24 months at Northwind in 4 years, impossible", "the rule calls something else impossible"),
        ("no red flags", "the job does not ask for 'red flags'"),
        ("a good fit", "is in none of the forms"),
    ],
)
def test_why_says_what_is_wrong(clause: str, why: str) -> None:
    assert judge(clause, FACTS)[0].why == why
