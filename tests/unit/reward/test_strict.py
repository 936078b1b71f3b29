"""The strict rubric pays honest completions in full: each component by hand, and what every limit changes."""

from __future__ import annotations

import json

import pytest
from support.strict_cases import CONTEXT, FACTS, REASONS, answer, grade

from reward import RUBRICS, STRICT, VERSION

GOOD = {
    "canonical wording": answer(),
    "decision first": (
        '{"decision":"shortlist","score":0.62,"reasons":["SQL (expert, 48m); advanced in Python, 30 months",'
        '"no Airflow, Spark; 4 years of experience, within 3-6","work as Data Analyst is related; '
        '150 months at Globex 2015 in 4 years, impossible"]}'
    ),
    "spread over lines": "\n" + json.dumps(json.loads(answer()), indent=2) + "\n",
    "one clause for each reason, as many as may be": answer(
        ["no Airflow, Spark", REASONS[2], *REASONS[1].split("; "), REASONS[0].partition("; Air")[0]]
    ),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("rubric", RUBRICS)
def test_good_completion_earns_at_least_095_under_both(name: str, rubric: str) -> None:
    graded = RUBRICS[rubric](GOOD[name], decision="shortlist", score=0.62, facts=FACTS, context=CONTEXT)
    assert graded.total >= 0.95, graded.lines()


@pytest.mark.parametrize("name", GOOD)
def test_good_completion_earns_every_mark_under_strict(name: str) -> None:
    assert grade(GOOD[name]).total == pytest.approx(1.0)


def test_degenerate_completions_earn_at_most_a_tenth() -> None:
    for text in ("", "{}", "[]", "null", "{", '{"reasons": []}', '{"decision": "shortlist"}', "shortlist", "[[{}]]"):
        assert grade(text).total <= 0.1, text


def test_guess_without_reasons_earns_less_than_honest_reasons_with_the_wrong_decision() -> None:
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


def test_invalid_format_scales_the_rest_by_a_quarter_of_itself() -> None:
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


def test_length_falls_from_600_to_1200_characters() -> None:
    padded = answer() + " " * (900 - len(answer()))
    assert grade(padded).length_penalty == pytest.approx(0.5)
    assert grade(padded).format_valid == 1.0


def test_reasons_past_the_most_allowed_are_not_read() -> None:
    graded = grade(answer(["idle", *["idle"] * 4, *REASONS]))
    assert graded.reason_quality == graded.no_hallucination == 0.0


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
    ],
)
def test_every_limit_changes_the_total(limit: str, value: float, completion: str) -> None:
    changed = STRICT.with_(limits={limit: value})(completion, decision="shortlist", score=0.62, facts=FACTS)
    assert changed.total != pytest.approx(grade(completion).total, abs=1e-3)


def test_every_limit_of_strict_is_in_the_table_above() -> None:
    (table,) = [mark for mark in test_every_limit_changes_the_total.pytestmark if mark.name == "parametrize"]
    assert [case[0] for case in table.args[1]] == list(vars(STRICT.limits))


def test_explain_tells_what_a_person_would_want_to_know() -> None:
    reasons = ["SQL: expert; Python: missing; a good fit", "4 years, inside 3-6; 4 years is within 3-6"]
    completion = answer(reasons, "reject", 0.9)
    assert STRICT.explain(completion, decision="shortlist", score=0.62, facts=FACTS) == [
        "format_valid 1.00: nothing to object",
        "decision_match 0.00: 'reject' where the label is shortlist",
        "score_alignment 0.00: score 0.90 contradicts reject",
        "reason_quality 0.21: contradicted: 'Python: advanced, 30 months'; stated in part: 'SQL: expert, 48 months'; "
        "not stated: 'Airflow: missing'; not stated: 'Spark: missing'; not stated: 'Data Analyst: related work'; "
        "not stated: '150 months at Globex 2015 in 4 years, impossible'",
        "length_penalty 1.00: nothing to object",
        "no_hallucination 0.33: reason 1, 'Python: missing' refuted: the profile has 'Python: advanced, 30 months'; "
        "reason 1, 'a good fit' unread: is in none of the forms; "
        "reason 2, '4 years is within 3-6' unread: repeats an earlier clause",
        "total 0.25",
    ]


def test_limit_that_counts_must_be_a_whole_number() -> None:
    with pytest.raises(ValueError, match=r"limits\.max_reasons = 2\.5: counts something; give a whole number"):
        STRICT.with_(limits={"max_reasons": 2.5})


def test_version_says_which_rules_graded() -> None:
    assert STRICT.version == STRICT.with_(weights={"length_penalty": 0}).version == VERSION == "strict 2"
    assert RUBRICS["published"].version == "published"


def test_rubric_names_the_columns_that_it_grades_by() -> None:
    row = {"decision": "shortlist", "score": 0.62, "facts": FACTS, "context": CONTEXT}
    for rubric in RUBRICS.values():
        assert rubric(answer(), **{name: row[name] for name in rubric.columns}).decision_match == 1.0


def test_strict_needs_no_context_and_takes_one() -> None:
    without = STRICT(answer(), decision="shortlist", score=0.62, facts=FACTS)
    assert without == STRICT(answer(), decision="shortlist", score=0.62, facts=FACTS, context="anything")
