"""Gold completions: true, short, grounded in the prompt, and worth the full mark under both rubrics."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.gold import gold_completion, gold_reasons, join
from mlx_grpo.tasks.shortlist.prompt import parse
from mlx_grpo.tasks.shortlist.records import Candidate, Job, Role, Skill
from mlx_grpo.tasks.shortlist.rows import read_rows
from mlx_grpo.tasks.shortlist.synthetic import DATA

JOB = Job("Data Engineer", ("Python", "SQL", "Airflow", "Spark"), min_years=3, max_years=6, id="job")
PERSON = Candidate(
    "Data Analyst",
    4,
    (Skill("Python", "advanced", 30), Skill("SQL", "expert", 48), Skill("Airflow", "beginner", 5)),
    (Role("Analyst", "Northwind", 24),),
    id="one",
)
FILES = ("train.jsonl", "heldout.jsonl", "train-full.jsonl", "heldout-full.jsonl")


def test_keys_are_in_the_chosen_order_without_spaces():
    text = gold_completion(JOB, PERSON, fit(JOB, PERSON))
    assert list(json.loads(text)) == ["reasons", "score", "decision"]
    assert re.search(r'"\],"score":0\.\d+,"decision":"shortlist"\}$', text)
    other = gold_completion(JOB, PERSON, fit(JOB, PERSON), order="decision_first")
    assert list(json.loads(other)) == ["decision", "score", "reasons"]
    assert json.loads(other) == json.loads(text)


def test_reasons_are_strong_skills_then_lacking_ones_then_years_and_work_then_the_longest_claim():
    covered, lacking, standing, claim = gold_reasons(JOB, PERSON, fit(JOB, PERSON))
    assert covered == "strong in Python and SQL, two of four"
    assert lacking == "thin on Airflow, lacks Spark"
    assert standing == "4 years is inside 3-6, work as Data Analyst is related"
    assert claim == "claims 48m of SQL in 4 years, possible"


def test_skills_are_in_the_order_of_the_profile():
    turned = replace(PERSON, skills=PERSON.skills[::-1])
    assert gold_reasons(JOB, turned, fit(JOB, turned))[0].startswith("strong in SQL and Python")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Filled in charts.", "work as Nurse is unrelated"),
        ("Charts in Python.", "work shows Python, partly related"),
        ("Charts in Python, kept by Airflow.", "work shows Python and Airflow, related"),
    ],
)
def test_skills_of_the_work_are_named_with_its_relevance(text, reason):
    nurse = replace(PERSON, title="Nurse", roles=(Role("Nurse", "Kestrel", 24, text),))
    assert gold_reasons(JOB, nurse, fit(JOB, nurse))[2] == f"4 years is inside 3-6, {reason}"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"skills": (Skill("Python", "advanced", 140),)}, "claims 140m of Python in 4 years, impossible"),
        ({"skills": (Skill("Python", "expert", 1),)}, "calls itself expert in Python after 1m, impossible"),
        ({"roles": (Role("Analyst", "Northwind", 90),)}, "claims 90m at Northwind in 4 years, impossible"),
        (
            {"skills": (), "roles": tuple(Role("Analyst", name, 20) for name in ("A", "B", "C", "D"))},
            "claims jobs of 20m and 20m and 20m and 20m in 4 years, impossible",
        ),
        ({"roles": (Role("Analyst", "Northwind", 50),)}, "claims 50m at Northwind in 4 years, possible"),
    ],
)
def test_the_last_reason_holds_the_longest_claim_or_an_impossible_one_against_the_years(change, reason):
    person = replace(PERSON, **change)
    assert gold_reasons(JOB, person, fit(JOB, person))[-1] == reason


def test_a_profile_that_claims_nothing_has_reasons_too():
    for skills in ((), (Skill("Python", "advanced", None),)):
        bare = replace(PERSON, skills=skills, roles=())
        assert not any("claims" in reason for reason in gold_reasons(JOB, bare, fit(JOB, bare)))
        assert len(gold_reasons(JOB, bare, fit(JOB, bare))) >= 2


def test_a_skill_that_only_the_prose_names_is_not_called_missing():
    prose = replace(PERSON, summary="I have seen Spark once.")
    lacking = gold_reasons(JOB, prose, fit(JOB, prose))[1]
    assert lacking == "thin on Airflow, names Spark in passing only"


def test_long_lists_are_cut_short_with_their_number_in_words():
    assert join(["A"]) == "A"
    assert join(["A", "B"], "or") == "A or B"
    assert join(["A", "B", "C", "D"]) == "A, B, C and D"
    assert join(["A", "B", "C", "D", "E", "F"]) == "A, B, C and three more"


@pytest.mark.parametrize("name", FILES)
def test_every_bundled_gold_completion_scores_095_under_both_rubrics(name):
    reward = pytest.importorskip("reward")
    rows = read_rows(DATA / name)
    for rubric in (reward.PUBLISHED, reward.STRICT):
        for row in rows:
            graded = rubric(row["completion"], decision=row["decision"], score=row["score"], context=row["context"])
            assert graded.total >= 0.95, (row["id"], graded)


@pytest.mark.parametrize("name", FILES)
def test_every_number_and_name_in_a_bundled_reason_stands_in_the_prompt_as_written(name):
    for row in read_rows(DATA / name):
        reason = " ".join(json.loads(row["completion"])["reasons"])
        for claim in re.findall(r"\d+(?:\.\d+)?m?|[A-Z][\w.+#&/-]*[\w+#]", reason):
            assert claim in row["context"], (row["id"], claim)


@pytest.mark.parametrize("name", FILES)
def test_bundled_reasons_agree_with_the_fit_of_the_parsed_prompt(name):
    form = "full" if "full" in name else "compact"
    for row in read_rows(DATA / name):
        job, candidate = parse(row["context"], form)
        gold, reasons = fit(job, candidate), json.loads(row["completion"])["reasons"]
        for entry in gold.missing:
            assert not re.search(rf"strong in .*{re.escape(entry)}\b", reasons[0])
        assert any(str(candidate.years).removesuffix(".0") in reason for reason in reasons[:-1])
        assert reasons[-1].endswith(", impossible" if gold.impossible else ", possible")
        assert all(reason[0].islower() or reason[0].isdigit() for reason in reasons)
