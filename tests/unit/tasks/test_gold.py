"""Gold completions: every decisive fact once, worth the full reward, and worth less with one fact changed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mlx_grpo.data.dataset import context_of
from mlx_grpo.json_files import read_jsonl
from mlx_grpo.tasks.shortlist.facts import facts_of
from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.gold import dump_answer, gold_completion, gold_reasons
from mlx_grpo.tasks.shortlist.records import LEVELS, Candidate, Job, Role, Skill
from mlx_grpo.tasks.shortlist.rows import Row
from mlx_grpo.tasks.shortlist.synthetic import DATA
from reward import PUBLISHED, STRICT
from reward.evidence import judge, weigh
from reward.facts import read_facts

JOB = Job("Data Engineer", ("Python", "SQL", "Airflow", "Spark"), min_years=3, max_years=6, id="job")
PERSON = Candidate(
    "Data Analyst",
    4,
    (Skill("Python", "advanced", 30), Skill("SQL", "expert", 48), Skill("Airflow", "beginner", 5)),
    (Role("Analyst", "Northwind", 24),),
    id="one",
)
FILES = ("train.jsonl.gz", "heldout.jsonl.gz", "train-full.jsonl.gz", "heldout-full.jsonl.gz")


def reasons(candidate: Candidate, job: Job = JOB) -> list[str]:
    return gold_reasons(facts_of(job, candidate))


def test_a_completion_is_reasons_score_and_decision_spaced_as_json_usually_is():
    text = gold_completion(fit(JOB, PERSON), facts_of(JOB, PERSON))
    assert text == (
        '{"reasons": ["Python: advanced, 30 months; SQL: expert, 48 months; Airflow: beginner, 5 months", '
        '"Spark: missing", "4 years, inside 3-6", "Data Analyst: related work"], "score": 0.56, '
        '"decision": "shortlist"}'
    )


def test_more_than_three_requirements_are_two_reasons_and_fewer_are_one():
    long = replace(JOB, required=("Python", "SQL", "Airflow", "Spark", "dbt", "Excel", "Go", "Rust"))
    assert [len(reason.split("; ")) for reason in reasons(PERSON, long)] == [3, 5, 1, 1]
    assert reasons(PERSON, replace(JOB, required=("SQL",)))[0] == "SQL: expert, 48 months"


def test_a_job_that_asks_for_no_years_has_no_reason_about_them():
    assert reasons(PERSON, replace(JOB, min_years=0, max_years=None))[2:] == ["Data Analyst: related work"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Filled in charts.", "Nurse: unrelated work"),
        ("Charts in Python.", "work with Python: partly related"),
        ("Charts in Python, kept by Airflow.", "work with Python and Airflow: related"),
    ],
)
def test_work_is_told_by_a_title_or_by_the_skills_that_it_names(text, reason):
    nurse = replace(PERSON, title="Nurse", roles=(Role("Nurse", "Kestrel", 24, text),))
    assert reasons(nurse)[-1] == reason


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({"skills": (Skill("Python", "advanced", 140),)}, "Python: 140 months in 4 years, impossible"),
        ({"skills": (Skill("Python", "expert", 1),)}, "expert in Python after 1 month, impossible"),
        ({"roles": (Role("Analyst", "Northwind", 90),)}, "90 months at Northwind in 4 years, impossible"),
        (
            {"skills": (), "roles": tuple(Role("Analyst", name, 25) for name in ("A", "B", "C"))},
            "jobs of 25, 25 and 25 months in 4 years, impossible",
        ),
    ],
)
def test_a_doubt_follows_the_years(change, doubt):
    person = replace(PERSON, **change)
    assert f"4 years, inside 3-6; {doubt}" in reasons(person)
    assert json.loads(gold_completion(fit(JOB, person), facts_of(JOB, person)))["decision"] == "reject"


@pytest.mark.parametrize("name", FILES)
def test_every_bundled_gold_completion_earns_all_of_strict_and_most_of_published(name):
    for row in read_jsonl(DATA / name):
        gold = {"decision": row["decision"], "score": row["score"]}
        assert STRICT(row["completion"], **gold, facts=row["facts"]).total == pytest.approx(1), row["id"]
        assert PUBLISHED(row["completion"], **gold, context=context_of(row)).total >= 0.95, row["id"]
        assert 3 <= len(json.loads(row["completion"])["reasons"]) <= 4


@pytest.mark.parametrize("name", FILES)
def test_every_number_and_name_in_a_bundled_reason_is_in_the_prompt_as_written(name):
    for row in read_jsonl(DATA / name):
        reason = " ".join(json.loads(row["completion"])["reasons"])
        for claim in re.findall(r"\d+(?:\.\d+)?|[A-Z][\w.+#&/-]*[\w+#]", reason):
            assert claim in context_of(row), (row["id"], claim)


def corrupted(row: Row) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, true clause, false clause): each decisive fact of a row with one thing changed."""
    facts = row["facts"]
    skills = facts["skills"]
    met = [entry["best"] for entry in facts["requirements"] if entry["best"]]
    for name, other in zip(met, met[1:] + met[:1], strict=True):
        level, months = skills[name]["level"], skills[name]["months"]
        true = f"{name}: {level}, {_months(months)}"
        wrong = LEVELS[(LEVELS.index(level) + 1) % len(LEVELS)]
        yield "level", true, f"{name}: {wrong}, {_months(months)}"
        yield "number", true, f"{name}: {level}, {_months(months + 1)}"
        yield "denied", true, f"{name}: missing"
        if skills[other]["months"] != months:
            yield "borrowed", true, f"{name}: {level}, {_months(skills[other]['months'])}"
    for entry in facts["requirements"]:
        if entry["best"] is None:
            yield "absent", f"{entry['any'][0]}: missing", f"{entry['any'][0]}: advanced, 30 months"
    yield from _wrong_sides(json.loads(row["completion"])["reasons"])
    work = json.loads(row["completion"])["reasons"][-1]
    for degree in ("partly related", "unrelated", "related"):
        changed = re.sub(r"(partly related|unrelated|related)(?= work$|$)", degree, work)
        if changed != work:
            yield "degree", work, changed


def _wrong_sides(texts: list[str]) -> Iterator[tuple[str, str, str]]:
    for clause in "; ".join(texts).split("; "):
        match = re.fullmatch(r"([\d.]+ years?), (above|inside|below) (\S+)", clause)
        for side in ("above", "inside", "below") if match else ():
            if side != match[2]:
                yield "side", clause, f"{match[1]}, {side} {match[3]}"


def _months(months: int) -> str:
    return "1 month" if months == 1 else f"{months} months"


def test_one_changed_fact_is_refuted_and_covers_nothing():
    rows = read_jsonl(DATA / "train.jsonl.gz")[:200]
    assert len({row["job_id"] for row in rows}) >= 50
    kinds: dict[str, int] = {}
    for row in rows:
        answer = json.loads(row["completion"])
        for kind, true, false in corrupted(row):
            assert [clause.status for clause in judge(true, row["facts"])] == ["confirmed"], (row["id"], true)
            assert [clause.status for clause in judge(false, row["facts"])] == ["refuted"], (row["id"], false)
            changed = copy.deepcopy(answer)
            changed["reasons"] = [
                "; ".join(false if clause == true else clause for clause in reason.split("; "))
                for reason in answer["reasons"]
            ]
            assert changed != answer, (row["id"], true)
            covered = weigh(changed["reasons"], read_facts(row["facts"])).covered
            assert [share for share in covered.values() if share < 1] == [0], (row["id"], kind, false)
            graded = STRICT(dump_answer(changed), decision=row["decision"], score=row["score"], facts=row["facts"])
            assert graded.reason_quality == pytest.approx(1 - 1 / len(covered))
            assert graded.no_hallucination < 1
            kinds[kind] = kinds.get(kind, 0) + 1
    assert set(kinds) == {"level", "number", "borrowed", "denied", "absent", "side", "degree"}
    assert min(kinds.values()) >= 50, kinds
