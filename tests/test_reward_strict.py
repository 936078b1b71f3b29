"""The strict rubric pays honest completions in full, and false, copied or padded reasons nothing."""

from __future__ import annotations

import json

import pytest

from reward import RUBRICS, STRICT, Breakdown

CONTEXT = """[JOB]
Data Engineer, 3-6 years. Required: Python, SQL, Airflow, Spark. Nice: Rust.
[CANDIDATE]
Data Analyst, 4 years. Skills: Python (advanced, 30m), SQL (expert, 48m), Excel (beginner, 5m). \
Recent: Analyst at Northwind, 24m; Reporting Analyst at Globex 2015, 150m."""
JUNIOR = """[JOB]
Data Engineer, 3-6 years. Required: Python, SQL, Airflow, Spark.
[CANDIDATE]
Barista, 1 year. Skills: Python (beginner, 6m), Excel (beginner, 5m). Recent: Barista at Coffee House, 12m."""
FULL = """[JOB DESCRIPTION]
Title: Ward Nurse
Experience: 2+ years
Required: Triage, Wound Care, Special Needs Care
About: We are growing and need someone who can keep clear records and help newer colleagues.
[CANDIDATE]
Title: Food and Beverage Manager
Experience: 3.5 years
Skills: Triage (expert, 38m), Wound Care (advanced, 20m), A/B Testing (beginner, 3m)
Career:
- Food and Beverage Manager at Redwood Partners, 41m: Kept the stock and trained four people."""
REASONS = ["has Python (advanced, 30m) and SQL (expert, 48m)", "lacks Airflow and Spark", "4 years is inside 3-6"]


def answer(reasons: object = REASONS, decision: object = "shortlist", score: object = 0.62, **more: object) -> str:
    return json.dumps({"reasons": reasons, "score": score, "decision": decision, **more})


def grade(completion: str, decision: str = "shortlist", score: float = 0.62, context: str = CONTEXT) -> Breakdown:
    return STRICT(completion, decision=decision, score=score, context=context)


def reasons_grade(*reasons: str, context: str = CONTEXT) -> Breakdown:
    return grade(answer(list(reasons)), context=context)


GOOD = {
    "the brief's shortlist": (CONTEXT, "shortlist", 0.62, answer()),
    "decision first": (
        CONTEXT,
        "shortlist",
        0.62,
        '{"decision":"shortlist","score":0.62,"reasons":["strong in SQL (expert, 48m) and Python",'
        '"no sign of Airflow or Spark, but SQL is expert level","4 years sits within 3-6"]}',
    ),
    "reject": (
        JUNIOR,
        "reject",
        0.21,
        answer(["Python is beginner level", "lacks Airflow and Spark", "1 year against 3-6"], "reject", 0.21),
    ),
    "long form": (
        FULL,
        "shortlist",
        0.7,
        answer(
            [
                "covers Triage (expert, 38m) and Wound Care (advanced, 20m), not Special Needs Care",
                "3.5 years meets the 2+ asked",
                "work as Food and Beverage Manager at Redwood Partners is unrelated",
            ],
            "shortlist",
            0.7,
        ),
    ),
    "spread over lines": (CONTEXT, "shortlist", 0.62, "\n" + json.dumps(json.loads(answer()), indent=2) + "\n"),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("rubric", RUBRICS)
def test_a_good_completion_earns_at_least_095_under_both(name: str, rubric: str) -> None:
    context, decision, score, completion = GOOD[name]
    grades = RUBRICS[rubric](completion, decision=decision, score=score, context=context)
    assert grades.total >= 0.95, grades.lines()


@pytest.mark.parametrize("name", GOOD)
def test_a_good_completion_earns_every_mark_under_strict(name: str) -> None:
    context, decision, score, completion = GOOD[name]
    assert STRICT(completion, decision=decision, score=score, context=context).total == pytest.approx(1.0)


UNSEEN = {
    "an invented name in lower case": ["knows Python from stanford", "SQL at initech for many years"],
    "one invented name at a sentence start": ["Initech work with Python", "lacks Spark"],
    "a false judgement in words": ["hardly any Python", "SQL is a hobby"],
    "two facts that say little": ["has Python", "has SQL"],
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_rules_cannot_see_is_paid_in_full(name: str) -> None:
    # No demand: a record of the limits. Whoever catches one of these moves it to the tables above.
    assert reasons_grade(*UNSEEN[name]).total == pytest.approx(1.0)


def test_degenerate_completions_earn_at_most_a_tenth() -> None:
    for text in ("", "{}", "[]", "null", "{", '{"reasons": []}', '{"decision": "shortlist"}', "shortlist", "[[{}]]"):
        assert grade(text).total <= 0.1, text


def test_a_guess_with_no_reasons_earns_less_than_an_honest_completion_with_the_wrong_decision() -> None:
    guess = grade(answer([])).total
    wrong = grade(answer(decision="reject", score=0.45)).total
    # guess: 0.8 of the format, the rest scaled by 0.25 * 0.8: 0.08 + 0.2 * (0.3 + 0.15 + 0.05)
    assert guess == pytest.approx(0.18)
    # wrong: all but the decision; the score is off by 0.17 of 0.4: 1 - 0.3 - 0.15 * 0.17/0.4
    assert wrong == pytest.approx(0.63625)


@pytest.mark.parametrize(
    ("completion", "format_valid"),
    [
        (answer(), 1.0),
        ("Sure: " + answer(), 0.8),
        (answer(why="so"), 0.8),
        (answer(["a", "b", "c", "d", "e", "f"]), 0.8),
        (answer(["a", " "]), 0.8),
        (answer("no list", 1, True), 0.4),
        ("{}", 0.2),
        ("x{}", 0.0),
        ("no braces", 0.0),
    ],
)
def test_format_is_the_share_of_five_checks(completion: str, format_valid: float) -> None:
    assert grade(completion).format_valid == pytest.approx(format_valid)


def test_an_invalid_format_scales_the_rest_by_a_quarter_of_itself() -> None:
    marks = grade("```json\n" + answer() + "\n```").as_dict()
    assert marks.pop("format_valid") == pytest.approx(0.8)
    # 0.1 * 0.8 + 0.9 * 0.2
    assert marks.pop("total") == pytest.approx(0.26)
    assert list(marks.values()) == pytest.approx([0.2] * 5)


@pytest.mark.parametrize(
    ("decision", "score", "fit", "mark"),
    [
        ("shortlist", 0.62, 0.62, 1.0),
        ("shortlist", 0.82, 0.62, 0.5),  # off by 0.2 of 0.4
        ("shortlist", 0.5, 0.9, 0.0),  # a hedge
        ("reject", 0.5, 0.5, 0.0),  # 0.5 says shortlist
        ("reject", 0.9, 0.9, 0.0),
        ("shortlist", 0.49, 0.49, 0.0),
        ("reject", 0, 0.1, 0.75),
    ],
)
def test_score_alignment_by_hand(decision: str, score: float, fit: float, mark: float) -> None:
    assert grade(answer(decision=decision, score=score), score=fit).score_alignment == pytest.approx(mark)


@pytest.mark.parametrize(
    ("reasons", "quality", "truth"),
    [
        (("has Python and SQL", "lacks Airflow and Spark"), 1.0, 1.0),  # two are enough
        (("has Python and SQL", "a real team player"), 0.5, 0.5),
        (("has Python and SQL", "lacks Airflow and Spark", "a real team player"), 2 / 3, 2 / 3),
        # "has Python at Initech" cites Python and invents Initech: half of it is true
        (("has Python at Initech", "lacks Airflow and Spark"), 0.5, 0.75),
        # "has SQL and Spark" cites two, of which one is the job's
        (("has SQL and Spark", "lacks Airflow"), 0.5, 0.75),
    ],
)
def test_reason_marks_by_hand(reasons: tuple[str, ...], quality: float, truth: float) -> None:
    grades = reasons_grade(*reasons)
    assert (grades.reason_quality, grades.no_hallucination) == pytest.approx((quality, truth))


def test_length_falls_from_600_to_1200_characters() -> None:
    padded = answer() + " " * (900 - len(answer()))
    assert grade(padded).length_penalty == pytest.approx(0.5)
    assert grade(padded).format_valid == 1.0


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
    "Python 30 months and SQL 48 months",
    "Excel is only beginner level",
    "python and sql are both there",
    "Most recent work was at Northwind and Globex",
    "weak on Excel (beginner, 5m)",
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
    "30m in SQL": "says 30m of 'sql'",
    "SQL of 30m": "says 30m of 'sql'",
    "worked as Data Engineer at Northwind": "says work as 'data engineer', which is not in the profile",
    "led 48 people with SQL": "says '48' of nothing",
    "all required skills, no gaps, SQL too": "says all of what the job asks for",
    "2 is inside 3-6 for Python": "'2' is not inside '3-6'",
    "4 years is below 3-6": "'4' is not below '3-6'",
    "4 years goes beyond 3-6": "'4' is not beyond '3-6'",
    "4 years falls short of 3-6": "'4' is not short",
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


def test_without_markers_grounding_still_holds_and_nothing_contradicts() -> None:
    plain = CONTEXT.replace("[JOB]\n", "").replace("[CANDIDATE]\n", "")
    assert reasons_grade("lacks Python", "Rust and SQL at Northwind", context=plain).reason_quality == 1.0
    assert reasons_grade("lacks Python at Initech", "Rust, SQL", context=plain).reason_quality == 0.0
    everything = reasons_grade("says Python, SQL and Airflow, Spark, Rust, Excel, Globex", "has SQL", context=plain)
    assert "reason 1 lists everything" in [finding.text for finding in everything.findings]


def test_what_a_job_requires_is_its_labelled_list_where_it_has_one() -> None:
    # "We need a Ward Nurse" asks for no skill called Ward Nurse.
    context = FULL.replace("need someone", "need a Ward Nurse").replace(", Special Needs Care", "")
    assert reasons_grade("has all required skills like Triage", "3.5 years", context=context).reason_quality == 0.5
    for asked in ("Required: Python. A team on Scala.", "You need Python. A team on Scala."):
        ended = f"[JOB]\n{asked}\n[CANDIDATE]\nSkills: Python (expert, 8m)."
        assert reasons_grade("has all required skills like Python", "no", context=ended).reason_quality == 0.5
    prose = "[JOB]\nWe need Python and Spark.\n[CANDIDATE]\nSkills: Python (expert, 8m)."
    assert reasons_grade("has all required skills like Python", "no", context=prose).reason_quality == 0.0


def test_a_long_list_in_the_order_of_the_job_is_no_copy() -> None:
    skills = ["Finite Element Analysis", "Sheet Metal", "Pneumatics", "Six Sigma", "CATIA", "Hydraulics"]
    listed = ", ".join(f"{skill} (beginner, 2m)" for skill in skills)
    context = f"[JOB]\nRequired: {', '.join(skills)}.\n[CANDIDATE]\nSkills: {listed}."
    reason = f"thin on {', '.join(skills[:-1])} and {skills[-1]}"
    assert reasons_grade(reason, "Six Sigma is beginner level", context=context).reason_quality == 1.0


@pytest.mark.parametrize(
    ("limit", "value", "completion"),
    [
        ("min_reasons", 4, answer()),
        ("max_reasons", 2, answer()),
        ("max_reason_chars", 20, answer()),
        ("full_chars", 20, answer()),
        ("zero_chars", 601, answer() + " " * 500),
        ("invalid_share", 1.0, "```" + answer() + "```"),
        ("score_tolerance", 0.1, answer(score=0.66)),
        ("tokens_per_citation", 1, answer()),
        ("max_terms", 1, answer()),
        ("copy_run", 4, answer(["says Analyst at Northwind, 24m", "lacks Spark"])),
        ("copy_list_run", 2, answer(["has Python (advanced, 30m)", "lacks Spark"])),
        ("copy_share", 0.9, answer(["has Data Analyst, 4 years. Skills: Python (advanced, 30m)", "lacks Spark"])),
        ("repeat_share", 0.1, answer(["has Python and SQL", "Python is advanced"])),
        ("distinct_share", 1.0, answer(["has SQL and Python and Excel", "lacks Spark"])),
    ],
)
def test_every_limit_changes_the_total(limit: str, value: float, completion: str) -> None:
    changed = STRICT.with_(limits={limit: value})(completion, decision="shortlist", score=0.62, context=CONTEXT)
    assert changed.total != pytest.approx(grade(completion).total, abs=1e-3)


def test_explain_tells_what_a_person_would_want_to_know() -> None:
    completion = answer(["worked at Initech for 4 years", "lacks Python", "good fit"], "reject", 0.9)
    assert STRICT.explain(completion, decision="shortlist", score=0.62, context=CONTEXT) == [
        "format_valid 1.00: nothing to object",
        "decision_match 0.00: 'reject' where the label is shortlist",
        "score_alignment 0.00: score 0.90 contradicts reject",
        "reason_quality 0.00: reason 1 says what is false; reason 2 says what is false; "
        "reason 3 cites nothing from the job or the profile",
        "length_penalty 1.00: nothing to object",
        "no_hallucination 0.17: reason 1: 'Initech' stands nowhere in the job or the profile; "
        "reason 2: denies 'python', which stands in the candidate's profile; reason 3 earns nothing",
        "total 0.18",
    ]


def test_a_limit_that_counts_must_be_a_whole_number():
    with pytest.raises(ValueError, match=r"limits\.max_reasons = 2\.5: counts something; give a whole number"):
        STRICT.with_(limits={"max_reasons": 2.5})
