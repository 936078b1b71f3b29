"""Completions read as answers, and the judgement of each of their reasons."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from support.facts import FACTS

from mlx_grpo.ranking.answers import Answer, Mark, Reason, read_answer
from reward import STRICT

GOOD = (
    '{"reasons":["Python: expert, 40 months; no SQL","has Rust; Python: beginner","3 years, inside 2-4"],'
    '"score":0.7,"decision":"shortlist"}'
)


def read(completion: str) -> Answer:
    return read_answer("C1", completion, FACTS, STRICT)


def test_clauses_of_a_valid_answer_are_marked_one_by_one():
    answer = read("<think>hm</think>" + GOOD)
    assert (answer.valid, answer.decision, answer.score, answer.note) == (True, "shortlist", 0.7, "")
    assert answer.completion == ""
    assert [(mark.text, mark.status) for reason in answer.reasons for mark in reason.marks] == [
        ("Python: expert, 40 months", "confirmed"),
        ("no SQL", "confirmed"),
        ("has Rust", "unread"),
        ("Python: beginner", "refuted"),
        ("3 years, inside 2-4", "confirmed"),
    ]
    assert answer.reasons[1].marks[1].why == "the profile has 'Python: expert, 40 months'"


def test_an_answer_after_a_thought_that_the_prompt_began_is_valid():
    assert read_answer("C1", f"hm {{}}</think>{GOOD}", FACTS, STRICT, opened=True).valid
    assert not read_answer("C1", GOOD, FACTS, STRICT, opened=True).valid


def test_a_reason_has_the_status_of_its_worst_clause():
    assert [reason.status for reason in read(GOOD).reasons] == ["confirmed", "refuted", "confirmed"]
    assert Reason("", ()).status == "unread"


def test_coverage_is_the_share_of_the_decisive_facts_that_nothing_refutes():
    # Python is contradicted, SQL and the years are stated, the work is not.
    assert read(GOOD).coverage == 0.5
    assert read("no idea").coverage is None


@pytest.mark.parametrize(
    ("completion", "note"),
    [
        ("no idea", "no JSON object"),
        ("", "no JSON object"),
        ("Sure: " + GOOD, "text stands outside the object"),
        (GOOD.replace("0.7", "7"), "the score is no number from 0 to 1"),
        (GOOD.replace("0.7", "true"), "the score is no number from 0 to 1"),
        (GOOD.replace("0.7", "NaN"), "no JSON object"),
        (GOOD.replace("shortlist", "maybe"), "the decision is neither"),
        ('{"reasons":["one"],"score":0.7,"decision":"shortlist"}', "the reasons are not 2 to 5"),
        ("[" * 10_000, "no JSON object"),
    ],
)
def test_invalid_answer_notes_why_and_keeps_the_completion(completion: str, note: str):
    answer = read(completion)
    assert not answer.valid
    assert (answer.decision, answer.score, answer.reasons) == ("", None, ())
    assert note in answer.note
    assert answer.completion == completion


def test_score_that_contradicts_its_decision_is_a_valid_answer_with_a_note():
    answer = read(GOOD.replace("0.7", "0.2"))
    assert answer.valid
    assert answer.note == "score 0.20 contradicts shortlist"


def test_answer_survives_json():
    reasons = (Reason("a \ud800", (Mark("a \ud800", "unread", "w"),)), Reason("b", ()))
    answer = Answer("C1", "reject", 0.25, 0.5, reasons, True, "n", "")
    assert Answer.from_dict(json.loads(json.dumps(asdict(answer)))) == answer
