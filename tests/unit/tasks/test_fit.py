"""The rule behind the gold labels, with numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_grpo.tasks.shortlist.fit import (
    fit,
    impossible_claims,
    relevance,
    skill_credit,
    title_degrees,
    years_credit,
)
from mlx_grpo.tasks.shortlist.records import LEVELS, Candidate, Claim, Job, Role, Skill

JOB = Job("Data Engineer", ("Python", "SQL", "Airflow", "Spark"), min_years=3, max_years=6)
PERSON = Candidate(
    "Data Analyst",
    4,
    (Skill("Python", "advanced", 30), Skill("SQL", "expert", 48), Skill("Excel", "beginner", 5)),
    (Role("Analyst", "Northwind", 24),),
)


def test_two_of_four_skills_in_range_and_related_work_score_054():
    # skills (0.85 + 1 + 0 + 0) / 4 = 0.4625; years 1; "data" is shared: 0.85 * 0.4625 + 0.15 = 0.543
    gold = fit(JOB, PERSON)
    assert gold.skills == pytest.approx(0.4625)
    assert (gold.score, gold.decision) == (0.54, "shortlist")
    assert [skill and skill.name for skill in gold.best] == ["Python", "SQL", None, None]


def test_credit_is_level_times_months_up_to_two_years():
    assert skill_credit(Skill("SQL", "intermediate", 12)) == pytest.approx(0.6 * 0.5)
    assert skill_credit(Skill("SQL", "expert", 24)) == skill_credit(Skill("SQL", "expert", 96)) == 1.0
    assert skill_credit(Skill("SQL", "beginner", 24)) == pytest.approx(0.3)
    assert skill_credit(Skill("SQL", "advanced", None)) == pytest.approx(0.425)


def test_years_below_the_range_count_in_proportion_and_above_it_a_tenth_less_each():
    assert years_credit(1.5, JOB.min_years, JOB.max_years) == pytest.approx(0.5)
    assert years_credit(3, JOB.min_years, JOB.max_years) == years_credit(6, JOB.min_years, JOB.max_years) == 1.0
    assert years_credit(8, JOB.min_years, JOB.max_years) == pytest.approx(0.8)
    assert years_credit(30, JOB.min_years, JOB.max_years) == 0.5
    assert years_credit(30, JOB.min_years, None) == 1.0


def test_a_shared_field_word_is_related_a_shared_role_word_half_and_seniority_nothing():
    def of(job: str, own: str) -> float:
        return relevance(replace(JOB, title=job), replace(PERSON, title=own, roles=()))[0]

    assert of("Data Engineer", "Senior Data Analyst") == 1.0
    assert of("Data Engineer", "Civil Engineer") == 0.5
    assert of("Senior Data Engineer", "Senior Nurse") == 0.0


def test_each_title_has_a_degree_of_its_own_and_the_nearest_counts():
    person = replace(PERSON, title="Baker", roles=(Role("Civil Engineer", "A", 9), Role("Data Clerk", "B", 9)))
    assert title_degrees(JOB, person) == {"Baker": 0.0, "Civil Engineer": 0.5, "Data Clerk": 1.0}
    assert relevance(JOB, person) == (1.0, ("Data Clerk",))
    assert relevance(JOB, replace(person, roles=person.roles[:1])) == (0.5, ("Civil Engineer",))
    assert relevance(JOB, replace(person, roles=())) == (0.0, ("Baker",))


def test_two_job_skills_named_in_past_work_make_it_related_whatever_the_title():
    person = replace(PERSON, title="Nurse", roles=(Role("Nurse", "Kestrel", 20, "Moved Airflow jobs to Spark."),))
    assert relevance(JOB, person) == (1.0, ("Airflow", "Spark"))
    one = replace(person, roles=(Role("Nurse", "Kestrel", 20, "Looked at Airflow."),))
    assert relevance(JOB, one) == (0.5, ("Airflow",))


def test_every_keyword_behind_unrelated_work_is_a_reject():
    # skills 1, years 1, relevance 0: 1.0 * 0.4
    skills = tuple(Skill(name, "expert", 40) for name in JOB.required)
    stuffed = Candidate("Marketing Manager", 5, skills, (Role("Marketing Manager", "Kestrel", 50),))
    assert (fit(JOB, stuffed).score, fit(JOB, stuffed).decision) == (0.4, "reject")


def test_every_keyword_at_two_months_is_a_reject():
    # skills 0.6 * 2/24 = 0.05: 0.85 * 0.05 + 0.15 = 0.1925
    skills = tuple(Skill(name, "intermediate", 2) for name in JOB.required)
    assert fit(JOB, replace(PERSON, skills=skills)).score == 0.19


def test_nice_to_haves_add_a_tenth_at_most():
    # (0.4625 + 0.1 * 1.0) * 0.85 + 0.15 = 0.628
    person = replace(PERSON, skills=(*PERSON.skills, Skill("dbt", "expert", 24)))
    assert fit(replace(JOB, nice=("dbt",)), person).score == 0.63


def test_one_of_several_alternatives_meets_a_requirement():
    job = replace(JOB, required=("Pinecone or Qdrant or FAISS", "Python"))
    gold = fit(job, replace(PERSON, skills=(Skill("Qdrant", "beginner", 24), Skill("FAISS", "expert", 24))))
    assert [skill and skill.name for skill in gold.best] == ["FAISS", None]


def test_names_match_without_case_and_hyphens():
    person = replace(PERSON, skills=(Skill("sentence-transformers", "expert", 24),))
    assert fit(replace(JOB, required=("Sentence Transformers",)), person).best == person.skills


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"skills": (Skill("Python", "advanced", 85),)}, Claim("skill", "Python", (85,))),
        ({"skills": (Skill("Python", "expert", 2),)}, Claim("expert", "Python", (2,))),
        ({"roles": (Role("Analyst", "Northwind", 55),)}, Claim("role", "Northwind", (55,))),
        ({"roles": (Role("A", "B", 40), Role("C", "D", 30))}, Claim("jobs", "", (40, 30))),
    ],
)
def test_a_claim_that_contradicts_the_years_scores_nothing(change, claim):
    person = replace(PERSON, **change)
    assert impossible_claims(person) == (claim,)
    assert (fit(JOB, person).score, fit(JOB, person).decision) == (0.0, "reject")


@pytest.mark.parametrize(
    "change",
    [
        {"skills": (Skill("Python", "advanced", 84),)},
        {"skills": (Skill("Python", "expert", 3),)},
        {"skills": (Skill("Python", "expert"),)},
        {"roles": (Role("Analyst", "Northwind", 54),)},
        {"roles": (Role("A", "B", 30), Role("C", "D", 30))},
    ],
)
def test_a_claim_just_inside_the_margin_is_believed(change):
    assert impossible_claims(replace(PERSON, **change)) == ()


NAMES = ("Python", "SQL", "Airflow", "Spark", "dbt", "Excel")
skills = st.builds(Skill, st.sampled_from(NAMES), st.sampled_from(LEVELS), st.integers(3, 120))
people = st.builds(
    Candidate,
    st.sampled_from(("Data Analyst", "Civil Engineer", "Nurse")),
    st.integers(8, 12),
    st.lists(skills, max_size=6).map(tuple),
    st.just((Role("Analyst", "Northwind", 24),)),
)
jobs = st.builds(
    Job,
    st.just("Data Engineer"),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True).map(tuple),
    st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple),
    st.integers(1, 8),
    st.integers(8, 15),
)


@settings(deadline=None)
@given(jobs, people, st.data())
def test_adding_a_required_skill_never_lowers_the_fit(job, person, data):
    name, level = data.draw(st.sampled_from(job.required)), data.draw(st.sampled_from(LEVELS))
    more = replace(person, skills=(*person.skills, Skill(name, level, data.draw(st.integers(3, 120)))))
    assert fit(job, more).score >= fit(job, person).score


@settings(deadline=None)
@given(jobs, people, st.integers(0, 5), st.sampled_from(LEVELS), st.integers(3, 120))
def test_a_higher_level_or_more_months_never_lower_the_fit(job, person, at, level, months):
    if at >= len(person.skills):
        return
    old = person.skills[at]
    better = Skill(old.name, max(old.level, level, key=LEVELS.index), max(old.months, months))
    more = replace(person, skills=(*person.skills[:at], better, *person.skills[at + 1 :]))
    assert fit(job, more).score >= fit(job, person).score


@settings(deadline=None)
@given(jobs, people)
def test_the_order_of_skills_changes_nothing(job, person):
    assert fit(job, replace(person, skills=person.skills[::-1])).score == fit(job, person).score


@settings(deadline=None)
@given(jobs, people)
def test_the_score_has_two_decimals_from_0_to_1_and_each_requirement_its_best_skill(job, person):
    gold = fit(job, person)
    assert 0 <= gold.score <= 1
    assert round(gold.score, 2) == gold.score
    listed = {skill.name for skill in person.skills}
    assert [skill is not None for skill in gold.best] == [name in listed for name in job.required]
