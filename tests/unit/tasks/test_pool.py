"""A user's pool: every fault is named with its place, field and reason, and nothing is dropped in silence."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zipfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import REDROB

from mlx_grpo.errors import UserError
from mlx_grpo.tasks.shortlist.pool import load_pool, read_candidate, stream_pool
from mlx_grpo.tasks.shortlist.prompt import parse, render
from mlx_grpo.tasks.shortlist.records import Candidate, Job, Role, Skill

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
    if isinstance(value, bytes):
        path.write_bytes(value)
    else:
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


TWO = [GOOD, changed("candidate_id", "B")]
LIST = json.dumps(TWO)
LINES = json.dumps(GOOD) + "\n\n" + json.dumps(TWO[1]) + "\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pool.json", LIST),
        ("pool.json", json.dumps(TWO, indent=2)),
        ("pool.jsonl", LIST),
        ("pool.jsonl", LINES),
        ("pool.json", LINES),
        ("pool.txt", LINES.replace("\n", "\r\n")),
        ("pool.json", json.dumps({"candidates": TWO})),
        ("pool.jsonl", json.dumps({"version": 1, "candidates": TWO, "profile": None}, indent=1)),
        ("pool.json", '{"candidates": [\n' + ",\n".join(map(json.dumps, TWO)) + "\n]}"),
        ("pool.json", LIST.encode("utf-8-sig")),
        ("pool.json", LIST.encode("utf-16")),
        ("pool.jsonl", b"\xfe\xff" + LINES.encode("utf-16-be")),
        ("pool.jsonl.gz", gzip.compress(LINES.encode())),
        ("pool.json.gz", gzip.compress(LIST.encode())),
        ("pool", gzip.compress(LINES.encode("utf-16"))),
        ("pool.jsonl.gz", b"".join(gzip.compress(line.encode()) for line in LINES.splitlines(keepends=True))),
    ],
)
def test_content_decides_how_a_file_is_read(tmp_path, name, content):
    candidates, problems = load_pool(write(tmp_path, content, name))
    assert problems == []
    assert [candidate.id for candidate in candidates] == ["CAND_0000001", "B"]
    assert candidates[0] == candidates[1] == load_pool(write(tmp_path, [GOOD]))[0][0]


@pytest.mark.parametrize(
    ("path", "value", "changes"),
    [
        ("skills.0.duration_months", 24.0, {"skills": (Skill("SQL", "expert", 24), Skill("Go", "beginner"))}),
        ("skills.0.duration_months", None, {"skills": (Skill("SQL", "expert"), Skill("Go", "beginner"))}),
        ("skills.0.duration_months", float("nan"), {"skills": (Skill("SQL", "expert"), Skill("Go", "beginner"))}),
        ("skills.1.proficiency", " Advanced", {"skills": (Skill("SQL", "expert", 30), Skill("Go", "advanced"))}),
        ("profile.years_of_experience", 7, {"years": 7.0}),
        ("profile.headline", None, {"headline": ""}),
        ("profile.summary", "half \ud83d a pair", {"summary": "half a pair"}),
        ("career_history.0.start_date", "2019-01", {}),
        ("career_history.0.start_date", "2019-01-01T00:00:00Z", {}),
        ("career_history.0.end_date", "2019-01", {}),
        ("career_history.0.end_date", "2020-01-01 12:30:00.000+05:30", {}),
        ("career_history.1.end_date", "Present", {}),
        ("career_history.1.end_date", "", {}),
    ],
)  # fmt: skip
def test_other_spellings_of_a_value_are_read(tmp_path, path, value, changes):
    (candidate,), problems = load_pool(write(tmp_path, [changed(path, value)]))
    assert problems == []
    (plain,), _ = load_pool(write(tmp_path, [GOOD]))
    assert candidate == replace(plain, **changes)


def test_an_end_date_of_present_marks_the_latest_job():
    ended = changed("career_history.1.is_current", ...)
    ended["career_history"][0]["end_date"] = "Present"
    candidate, _ = read_candidate("here", ended)
    assert [role.title for role in candidate.roles] == ["Clerk", "Analyst"]


def test_a_month_lasts_from_its_first_to_its_last_day():
    within = changed("career_history.0.start_date", "2020-01-15") | {"skills": []}
    within["career_history"][0]["end_date"] = "2020-01"
    assert read_candidate("here", within)[1] == []
    within["career_history"][0]["start_date"] = "2020-02"
    assert read_candidate("here", within)[1] == [
        "here (CAND_0000001): career_history[0].end_date is 2020-01-31, before start_date 2020-02-01"
    ]


def test_an_empty_company_gets_a_name_that_prompts_can_show():
    candidate, _ = read_candidate("here", changed("career_history.0.company", ""))
    assert candidate.roles[1] == Role("Clerk", "unnamed company", 12)
    job = Job("Analyst", ("SQL",))
    assert parse(render(job, candidate, "full"), "full") == (job, candidate)


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


@pytest.mark.parametrize("name", ["pool.json", "pool.jsonl"])
@pytest.mark.parametrize("first", ['{"a": ', '{"candidate_id": "A", "skills": [', "garbage", '"text"', '{"a": "b,'])
def test_a_broken_first_line_leaves_the_others_to_be_read(tmp_path, name, first):
    candidates, problems = load_pool(write(tmp_path, first + "\n" + LINES, name))
    assert len(candidates) == 2
    assert len(problems) == 1
    assert problems[0].startswith(f"{name}:1: ")


def xlsx() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    return file.getvalue()


PRETTY = json.dumps(GOOD, indent=2)
A_LINE = "write each candidate as one line of JSON, an object with candidate_id, profile, skills and career_history"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[1,", "not valid JSON: .*line 1"),
        ("\n\n[1,\n]", "not valid JSON: .*line 4"),
        ('{"candidates": []}', "holds no candidate"),
        ("[]", "holds no candidate"),
        ("", "holds no candidate"),
        ("candidate_id,title\nA,Clerk\nB,Clerk\n", f"looks like CSV, beginning with 'candidate_id,title': {A_LINE}"),
        ('"candidate_id"\t"title"\n"A"\t"Clerk"\n', f"looks like CSV, .*: {A_LINE}"),
        ("Dear all\nhere they are\n", f"is no pool of JSON objects, beginning with 'Dear all': {A_LINE}"),
        (xlsx(), f"is an XLSX or ZIP file: {A_LINE}"),
        (PRETTY, f"is one pretty-printed object: {A_LINE}, or put it into a list"),
        (f"{PRETTY}\n{PRETTY}\n", f"is several objects over several lines each: {A_LINE}"),
        (PRETTY[:-9], "not valid JSON"),
        (json.dumps({"rows": TWO}), f"is one JSON object without a list named candidates: {A_LINE}"),
        (json.dumps({"candidates": {"A": GOOD}}, indent=1), "is one JSON object without a list named candidates"),
        (gzip.compress(LINES.encode())[:-30], "is damaged or cut off: .*; copy it again"),
        (b"\x1f\x8b and no more", "is damaged or cut off"),
        (gzip.compress(b"a;b\n1;2\n"), "looks like CSV"),
        (b"\x80[", "cannot be read as UTF-8 text: .*; save it as UTF-8"),
        (b"\xff\xfe[\x00\x00", "cannot be read as UTF-16.* text: .*; save it as UTF-8"),
        (LIST.encode("utf-16-le"), "is binary, or UTF-16 without a byte order mark"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_pool_is_one_error(tmp_path, content, match):
    with pytest.raises(UserError, match=match) as caught:
        load_pool(write(tmp_path, content))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path / 'pool.json'}: ")
    assert "\n" not in problem


def test_a_missing_file_and_a_folder_are_user_errors(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json: cannot be read: No such file"):
        load_pool(tmp_path / "nowhere.json")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_pool(tmp_path)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PATHS = ("candidate_id", "profile", "skills", "career_history", "profile.current_title", "profile.years_of_experience",
         "skills.0", "skills.0.name", "career_history.0.end_date", "career_history.0.company", "skills.0.proficiency",
         "skills.0.duration_months", "career_history.1",
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


@pytest.mark.parametrize("opener", [open, gzip.open])
def test_json_lines_are_held_one_at_a_time(tmp_path, opener):
    long = changed("profile.summary", "word " * 4000)
    path = tmp_path / "pool"
    with opener(path, "wt") as file:
        for number in range(500):
            file.write(json.dumps({**long, "candidate_id": f"C{number}"}) + "\n")
    tracemalloc.start()
    count = sum(entry.candidate is not None for entry in stream_pool(path))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 500
    assert most < 500 * 20_000 / 10


@pytest.mark.parametrize("head", ["\ufeff", "\n\n", "\ufeff\n"])
@pytest.mark.parametrize("as_list", [True, False])
def test_what_stands_before_the_first_entry_matters_to_nobody(tmp_path, head, as_list):
    text = json.dumps([GOOD] if as_list else GOOD)
    path = tmp_path / "pool.jsonl"
    path.write_bytes((head + text + "\r\n").encode())
    (entry,) = stream_pool(path)
    assert (entry.candidate_id, entry.problems) == ("CAND_0000001", [])
    assert entry.candidate.title == "Data Analyst"
