"""The facts of a prompt: what the strict rubric reads, made from the records."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mlx_grpo.data.dataset import context_of
from mlx_grpo.json_files import read_jsonl
from mlx_grpo.tasks.shortlist.facts import facts_of
from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.prompt import parse
from mlx_grpo.tasks.shortlist.records import Candidate, Job, Role, Skill
from mlx_grpo.tasks.shortlist.synthetic import DATA
from reward.facts import read_facts

JOB = Job("Accountant", ("Pinecone or Qdrant", "SQL"), ("dbt",), 4, 6)
PERSON = Candidate(
    "Accountant",
    9,
    (Skill("Qdrant", "advanced", 7), Skill("Surveying", "expert")),
    (Role("Accountant", "Tidewater", 108, "Moved SQL and dbt."), Role("Barista", "Kestrel", 6)),
)


def test_the_facts_to_the_letter():
    assert facts_of(JOB, PERSON) == {
        "version": 2,
        "requirements": [{"any": ["Pinecone", "Qdrant"], "best": "Qdrant"}, {"any": ["SQL"], "best": None}],
        "nice": [{"any": ["dbt"], "best": None}],
        "skills": {
            "Qdrant": {"level": "advanced", "months": 7},
            "Surveying": {"level": "expert", "months": None},
        },
        "years": 9,
        "range": [4, 6],
        "titles": {"Accountant": 1, "Barista": 0},
        "work_skills": ["SQL", "dbt"],
        "work": 1,
        "roles": [["Accountant", "Tidewater", 108], ["Barista", "Kestrel", 6]],
        "impossible": [],
    }


def test_whole_numbers_are_written_without_a_point_and_years_keep_their_decimal():
    facts = facts_of(replace(JOB, max_years=None), replace(PERSON, years=6.9, title="Sales Clerk", roles=()))
    assert json.dumps([facts["years"], facts["range"], facts["work"]]) == "[6.9, [4, null], 0]"


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"skills": (Skill("SQL", "advanced", 150),)}, {"kind": "skill", "name": "SQL", "months": 150}),
        ({"skills": (Skill("SQL", "expert", 2),)}, {"kind": "expert", "name": "SQL", "months": 2}),
        ({"roles": (Role("Clerk", "Northwind", 120),)}, {"kind": "role", "name": "Northwind", "months": 120}),
        ({"roles": (Role("A", "B", 70), Role("C", "D", 60))}, {"kind": "jobs", "months": [70, 60]}),
    ],
)
def test_each_kind_of_impossible_claim_has_its_numbers(change, claim):
    assert facts_of(JOB, replace(PERSON, **change))["impossible"] == [claim]


def test_of_a_skill_listed_twice_the_one_with_more_credit_counts():
    twice = replace(PERSON, skills=(Skill("SQL", "beginner", 30), Skill("SQL", "expert", 24)))
    facts = facts_of(JOB, twice)
    assert facts["skills"] == {"SQL": {"level": "expert", "months": 24}}
    assert facts["requirements"][1]["best"] == "SQL"


@pytest.mark.parametrize("form", ["compact", "full"])
def test_bundled_facts_are_those_of_the_prompt_and_the_rubric_reads_them(form):
    suffix = {"compact": "", "full": "-full"}[form]
    for row in read_jsonl(DATA / f"heldout{suffix}.jsonl.gz"):
        job, candidate = parse(context_of(row), form)
        assert row["facts"] == facts_of(job, candidate), row["id"]
        read, gold = read_facts(row["facts"]), fit(job, candidate)
        assert (read.years, read.work) == (candidate.years, gold.relevance)
        assert [asked.best and asked.best.name for asked in read.requirements] == [
            skill and skill.name for skill in gold.best
        ]
