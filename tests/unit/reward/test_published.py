"""The published rubric agrees with its fixture, its table and numbers worked out by hand."""

from __future__ import annotations

import json

import pytest
from support.paths import FIXTURES

from reward import PUBLISHED, STRICT, Breakdown, Weights
from reward.breakdown import COMPONENTS

CASES = [json.loads(line) for line in (FIXTURES / "published_rubric_cases.jsonl").read_text("utf-8").splitlines()]
CONTEXT = "Data Analyst at Northwind, 4 years. Skills: Python, SQL (48m)."


def grade(completion: str, decision: str = "reject", score: float = 0.2, context: str = CONTEXT) -> Breakdown:
    return PUBLISHED(completion, decision=decision, score=score, context=context)


def answer(reasons: object, decision: object = "reject", score: object = 0.2) -> str:
    return json.dumps({"decision": decision, "score": score, "reasons": reasons})


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_agrees_with_the_published_rubric_on_every_fixture_case(case: dict) -> None:
    given = {key: case[key] for key in ("decision", "score", "context")}
    assert PUBLISHED(case["completion"], **given).as_dict() == pytest.approx(case["expected"], abs=1e-9)


def test_the_fixture_holds_eighty_cases() -> None:
    assert len(CASES) == 80


@pytest.mark.parametrize(
    ("components", "total"),
    [
        ((5 / 6, 0.5, 0.373025, 0.0, 1.0, 0.779167), 0.539495),
        ((1.0, 0.5, 0.652933, 0.778084, 1.0, 0.655556), 0.712986),
    ],
    ids=["baseline", "trained"],
)
def test_the_weights_give_the_totals_of_the_published_table(components: tuple[float, ...], total: float) -> None:
    weights = vars(PUBLISHED.weights)
    assert list(weights) == list(COMPONENTS)
    assert sum(w * c for w, c in zip(weights.values(), components, strict=True)) == pytest.approx(total, abs=1e-6)


def test_an_empty_object_has_a_valid_format_and_little_else() -> None:
    # format 1, and 2 of 30 characters: 0.2 + 0.05 * 2/30
    assert grade("{}").total == pytest.approx(0.2 + 0.05 * 2 / 30)


def test_single_quotes_are_read_on_the_second_try() -> None:
    assert grade("{'decision': 'reject', 'score': 0.2, 'reasons': []}").decision_match == 1.0


@pytest.mark.parametrize(
    ("score", "mark"),
    [(0.5, 0.7), ("0.5", 0.7), (True, 0.2), (7, 0.2), (-3, 0.8), (None, 0), ([0.5], 0), ("NaN", 0), ("high", 0)],
)
def test_the_score_is_read_with_float_and_clipped(score: object, mark: float) -> None:
    assert grade(answer([], score=score)).score_alignment == pytest.approx(mark)


@pytest.mark.parametrize(
    ("text", "mark"),
    [("NaN", 0.0), ("-Infinity", 0.8), ("1e999", 0.2), ("9" * 4000, 0.0), ("9" * 6000, 0.0)],
    ids=["nan", "minus infinity", "infinite", "overflow", "past the digit limit"],
)
def test_scores_no_float_can_hold_do_not_raise(text: str, mark: float) -> None:
    assert grade('{"decision": "reject", "score": ' + text + "}").score_alignment == pytest.approx(mark)


def test_reason_quality_by_hand() -> None:
    # "has Python" and "has SQL and has Python": two of five reasons; words has python has sql and has python:
    # 4 distinct of 7; neither stands in the context. 0.5 * 0.4 + 0.3 * 4/7 + 0.2
    mark = grade(answer(["has Python", "has SQL and has Python"])).reason_quality
    assert mark == pytest.approx(0.2 + 0.3 * 4 / 7 + 0.2)


def test_one_reason_counts_half_and_a_copied_one_loses_the_copy_share() -> None:
    # count 1/5 halved; "python, sql" has two words, both distinct; it stands in the context, case aside
    assert grade(answer(["PYTHON, sql"])).reason_quality == pytest.approx(0.5 * 0.1 + 0.3)


def test_reasons_outside_3_to_240_characters_do_not_count() -> None:
    assert grade(answer(["no", "x" * 241])).reason_quality == 0.0


@pytest.mark.parametrize(("n", "mark"), [(15, 0.5), (30, 1.0), (1200, 1.0), (1800, 0.5), (2400, 0.0), (9999, 0.0)])
def test_length_rises_to_30_and_falls_from_1200_to_2400(n: int, mark: float) -> None:
    assert grade("x" * n).length_penalty == pytest.approx(mark)


@pytest.mark.parametrize(
    ("reasons", "mark"),
    [
        (["has Python and SQL for 4 years"], 1.0),
        (["Strong Python"], 0.0),  # the run "Strong Python" is one claim
        (["knows SQL", "Python too"], 0.0),  # joined by a space, the two reasons make the run "SQL Python"
        (["in Northwind for 7 years"], 0.5),
        (["at NORTHWIND"], 0.0),  # case-sensitive
        (["no claim at all"], 1.0),
        (["about 8 of them"], 1.0),  # the loophole: 8 stands inside 48m
        ([3, None], 1.0),
        ([], 0.0),
        ("Python", 0.0),
    ],
)
def test_claims_are_looked_up_as_substrings_of_the_context(reasons: object, mark: float) -> None:
    assert grade(answer(reasons)).no_hallucination == pytest.approx(mark)


def test_a_breakdown_is_frozen_and_lists_seven_numbers() -> None:
    breakdown = grade("{}")
    with pytest.raises(AttributeError):
        breakdown.total = 1.0  # type: ignore[misc]
    assert list(breakdown.as_dict()) == [*COMPONENTS, "total"]


def test_explain_has_a_line_for_each_component_and_names_the_invention() -> None:
    lines = PUBLISHED.explain(
        answer(["7 years in Initech"], "shortlist"), decision="reject", score=0.2, context=CONTEXT
    )
    assert [line.split()[0] for line in lines] == [*COMPONENTS, "total"]
    assert lines[1] == "decision_match 0.00: 'shortlist' where the label is reject"
    nowhere = "stands nowhere in the context"
    assert lines[5] == f"no_hallucination 0.00: '7' {nowhere}; 'Initech' {nowhere}"


def test_an_explanation_can_be_written_to_a_file_whatever_it_quotes() -> None:
    lines = PUBLISHED.explain('{"decision": "\\ud800"}', decision="reject", score=0.2, context=CONTEXT)
    assert lines[1] == r"decision_match 0.00: '\ud800' where the label is reject"
    "\n".join(lines).encode("utf-8")


def test_weights_are_divided_by_their_sum() -> None:
    only = PUBLISHED.with_(weights={**dict.fromkeys(COMPONENTS, 0), "format_valid": 3, "decision_match": 1})
    assert only("{}", decision="reject", score=0.2, context="").total == 0.75


def test_with_changes_a_copy() -> None:
    changed = PUBLISHED.with_(weights={"length_penalty": 0}, limits={"short_chars": 4})
    assert changed.weights.length_penalty == 0
    assert changed("{}", decision="reject", score=0.2, context="").length_penalty == 0.5
    assert PUBLISHED.weights == Weights(0.20, 0.30, 0.15, 0.15, 0.05, 0.15)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": {"colour": 1, "decision_match": 1}}, ["weights.colour = 1", "no such key", "format_valid"]),
        ({"limits": {"colour": 1}}, ["limits.colour = 1", "no such key", "full_chars"]),
        (
            {"weights": {"format_valid": -1, "no_hallucination": float("nan")}},
            ["valid = -1", "no_hallucination = nan"],
        ),
        ({"weights": {"format_valid": "1"}}, ["weights.format_valid = '1'", "finite"]),
        ({"weights": dict.fromkeys(COMPONENTS, 0)}, ["all are 0", "give at least one"]),
        ({"limits": {"full_chars": 5000}}, ["limits.full_chars = 5000", "below zero_chars = 2400"]),
        ({"limits": {"short_chars": 0}}, ["limits.short_chars = 0", "above 0"]),
        ({"limits": {"short_chars": None}}, ["limits.short_chars = None", "finite number"]),
    ],
)
def test_changes_that_make_no_sense_are_named_with_their_remedy(change: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        PUBLISHED.with_(**change)
    assert all(word in str(error.value) for word in words)


def test_strict_limits_are_checked_too() -> None:
    with pytest.raises(ValueError, match=r"score_tolerance = 2.*min_reasons = 9: more than max.*full_chars = 9999"):
        STRICT.with_(limits={"score_tolerance": 2, "min_reasons": 9, "full_chars": 9999})


@pytest.mark.parametrize(("decision", "score"), [("maybe", 0.5), ("reject", 1.5), ("reject", float("nan"))])
def test_a_label_or_fit_that_cannot_be_is_an_error_in_the_data(decision: str, score: float) -> None:
    with pytest.raises(ValueError, match="correct the data"):
        grade("{}", decision=decision, score=score)
