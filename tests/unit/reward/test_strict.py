"""The strict rubric pays honest completions in full: each component by hand, and what every limit changes."""

from __future__ import annotations

import json

import pytest
from support.strict_cases import CONTEXT, FULL, JUNIOR, answer, grade, reasons_grade

from reward import RUBRICS, STRICT

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
