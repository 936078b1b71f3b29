"""A user's pool: every fault is named with its place, field and reason, and nothing is dropped in silence."""

from __future__ import annotations

import json
import tracemalloc
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import REDROB

from mlx_grpo.errors import UserError
from mlx_grpo.tasks.shortlist.pool import load_pool, read_candidate, stream_pool
from mlx_grpo.tasks.shortlist.records import Candidate, Role, Skill

OLD = {"title": "Clerk", "company": "Old", "start_date": "2019-01-01", "end_date": "2020-01-01", "duration_months": 12}
NEW = {"title": "Analyst", "company": "New", "start_date": "2020-02-01", "end_date": None, "duration_months": 50}
SQL = {"name": "SQL", "proficiency": "expert", "duration_months": 30}
GOOD = {
    "candidate_id": "CAND_0000001",
    "profile": {"current_title": "Data Analyst", "years_of_experience": 6.94, "headline": "H", "summary": "S"},
    "skills": [SQL, {"name": "Go", "proficiency": "beginner"}],
    "career_history": [OLD, NEW | {"is_current": True, "description": "Used SQL."}],
}
A_DATE = "must be a date like 2024-03-08"
ANY_LEVEL = "must be one of beginner, intermediate, advanced, expert"
HISTORY = "career_history[0]"


def changed(path: str, value: object) -> dict:
    """GOOD with the value at a dotted path replaced; `...` removes it."""
    made = deepcopy(GOOD)
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    spot = made
    for step in parents:
        spot = spot[step]
    if value is ...:
        del spot[last]
    else:
        spot[last] = value
    return made


def write(tmp_path: Path, value: object, name: str = "pool.json") -> Path:
    path = tmp_path / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_a_good_candidate_is_read_with_the_latest_job_first_and_years_to_one_decimal(tmp_path):
    candidates, problems = load_pool(write(tmp_path, [GOOD]))
    assert problems == []
    assert candidates == [
        Candidate(
            "Data Analyst",
            6.9,
            (Skill("SQL", "expert", 30), Skill("Go", "beginner")),
            (Role("Analyst", "New", 50, "Used SQL."), Role("Clerk", "Old", 12)),
            "H",
            "S",
        )
    ]
    assert candidates[0].id == "CAND_0000001"


def test_json_and_jsonl_give_the_same_candidates(tmp_path):
    lines = json.dumps(GOOD) + "\n\n" + json.dumps(changed("candidate_id", "B")) + "\n"
    assert load_pool(write(tmp_path, lines, "pool.jsonl")) == load_pool(
        write(tmp_path, [GOOD, changed("candidate_id", "B")])
    )


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("candidate_id", ..., "pool.json[0]: candidate_id is missing"),
        ("candidate_id", 7, "pool.json[0]: candidate_id is 7: must be text"),
        ("profile", ..., "profile is missing"),
        ("profile", [], "profile is []: must be an object"),
        ("profile.current_title", " , ", 'profile.current_title is " , ": must hold a word'),
        ("profile.years_of_experience", "six", 'profile.years_of_experience is "six": must be a number of years'),
        ("profile.years_of_experience", True, "profile.years_of_experience is true: must be a number of years"),
        ("profile.years_of_experience", -1, "profile.years_of_experience is -1: must be between 0 and 80 years"),
        ("profile.years_of_experience", float("nan"), "years_of_experience is NaN: must be between 0 and 80 years"),
        ("profile.summary", 3, "profile.summary is 3: must be text"),
        ("skills", {}, "skills is {}: must be a list"),
        ("skills.1", "Go", 'skills[1] is "Go": must be an object'),
        ("skills.1.name", "", 'skills[1].name is "": must hold a word'),
        ("skills.0.proficiency", "guru", 'skills[0].proficiency is "guru": ' + ANY_LEVEL),
        ("skills.0.proficiency", ["expert"], 'skills[0].proficiency is ["expert"]: ' + ANY_LEVEL),
        ("skills.0.duration_months", -4, "skills[0].duration_months is -4: must be between 0 and 960 months"),
        ("skills.0.duration_months", 2.5, "skills[0].duration_months is 2.5: must be a whole number of months"),
        ("career_history", ..., "career_history is missing"),
        ("career_history.0.company", ..., "career_history[0].company is missing"),
        ("career_history.0.duration_months", ..., "career_history[0].duration_months is missing"),
        ("career_history.0.start_date", "2019-13-1", HISTORY + '.start_date is "2019-13-1": ' + A_DATE),
        ("career_history.0.end_date", "2018-01-01", HISTORY + ".end_date is 2018-01-01, before start_date 2019-01-01"),
    ],
)  # fmt: skip
def test_each_fault_names_its_place_field_value_and_reason(tmp_path, path, value, fault):
    candidates, problems = load_pool(write(tmp_path, [changed(path, value)]))
    assert candidates == []
    assert len(problems) == 1
    assert problems[0].startswith("pool.json[0]")
    assert problems[0].endswith(fault)


def test_all_faults_of_all_candidates_are_named_at_once_and_the_good_ones_kept(tmp_path):
    both = changed("skills.0.duration_months", -4)
    both["profile"]["current_title"] = 5
    candidates, problems = load_pool(write(tmp_path, [both, GOOD, "x", GOOD]))
    assert [candidate.id for candidate in candidates] == ["CAND_0000001"]
    assert problems == [
        "pool.json[0] (CAND_0000001): profile.current_title is 5: must be text",
        "pool.json[0] (CAND_0000001): skills[0].duration_months is -4: must be between 0 and 960 months",
        'pool.json[2]: is "x": must be an object',
        "pool.json[3]: candidate_id 'CAND_0000001' stands already at pool.json[1]: ids must differ",
    ]


def test_a_broken_jsonl_line_is_named_by_its_number_and_the_rest_is_read(tmp_path):
    candidates, problems = load_pool(write(tmp_path, "\n" + json.dumps(GOOD) + '\n{"a": \n', "pool.jsonl"))
    assert len(candidates) == 1
    assert problems[0].startswith("pool.jsonl:3: not valid JSON: Expecting value")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[1,", "not valid JSON: .*line 1"),
        ('{"candidates": []}', "is one JSON dict: expected a list"),
        ("[]", "holds no candidate"),
    ],
)
def test_a_file_that_is_no_pool_is_one_error(tmp_path, text, match):
    with pytest.raises(UserError, match=match):
        load_pool(write(tmp_path, text))


def test_a_missing_or_binary_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json: cannot be read"):
        load_pool(tmp_path / "nowhere.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00[")
    with pytest.raises(UserError, match=r"b\.json: cannot be read as UTF-8"):
        load_pool(tmp_path / "b.json")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PATHS = ("candidate_id", "profile", "skills", "career_history", "profile.current_title", "profile.years_of_experience",
         "skills.0", "skills.0.name", "skills.0.proficiency", "skills.0.duration_months", "career_history.1",
         "career_history.0.start_date", "career_history.0.duration_months", "career_history.1.description")  # fmt: skip


@settings(deadline=None)
@given(st.sampled_from(PATHS), anything)
def test_no_value_anywhere_makes_the_reader_raise(path, value):
    candidate, faults = read_candidate("here", changed(path, value))
    assert (candidate is None) == bool(faults)
    assert all(fault.startswith("here") for fault in faults)


def test_the_redrob_sample_is_read_whole():
    if not REDROB.exists():
        pytest.skip(f"no sample at {REDROB}")
    candidates, problems = load_pool(REDROB / "sample_candidates.json")
    assert (len(candidates), problems) == (50, [])
    assert candidates[0].title == "Backend Engineer"
    assert candidates[0].roles[0].company == "Mindtree"


def test_a_jsonl_pool_is_held_a_line_at_a_time(tmp_path):
    long = changed("profile.summary", "word " * 4000)
    path = tmp_path / "pool.jsonl"
    with path.open("w") as file:
        for number in range(500):
            file.write(json.dumps({**long, "candidate_id": f"C{number}"}) + "\n")
    tracemalloc.start()
    count = sum(entry.candidate is not None for entry in stream_pool(path))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 500
    assert most < path.stat().st_size / 10


@pytest.mark.parametrize("head", ["\ufeff", "\n\n", "\ufeff\n"])
@pytest.mark.parametrize("as_list", [True, False])
def test_what_stands_before_the_first_entry_matters_to_nobody(tmp_path, head, as_list):
    text = json.dumps([GOOD] if as_list else GOOD)
    path = tmp_path / "pool.jsonl"
    path.write_bytes((head + text + "\r\n").encode())
    (entry,) = stream_pool(path)
    assert (entry.candidate_id, entry.problems) == ("CAND_0000001", [])
    assert entry.candidate.title == "Data Analyst"
