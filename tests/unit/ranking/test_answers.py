"""Completions read as answers, and the judgement of each of their reasons."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from mlx_grpo.ranking.answers import Answer, Reason, read_answer
from reward import STRICT

CONTEXT = (
    "[JOB]\nData Analyst, 3-6 years. Required: Python, SQL.\n"
    "[CANDIDATE]\nAnalyst, 4 years. Skills: Python (expert, 40m). Recent: Analyst at Acme, 40m."
)
GOOD = '{"reasons":["strong in Python","lacks SQL","has Rust"],"score":0.7,"decision":"shortlist"}'


def read(completion: str) -> Answer:
    return read_answer("C1", completion, CONTEXT, STRICT)


def test_reasons_of_a_valid_answer_are_judged_one_by_one():
    answer = read("<think>hm</think>" + GOOD)
    assert (answer.valid, answer.decision, answer.score, answer.note, answer.completion) == (
        True,
        "shortlist",
        0.7,
        "",
        "",
    )
    assert [(reason.text, reason.grounded) for reason in answer.reasons] == [
        ("strong in Python", True),
        ("lacks SQL", True),
        ("has Rust", False),
    ]
    assert [reason.why for reason in answer.reasons] == ["", "", "cites nothing from the job or the profile"]


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
    answer = Answer("C1", "reject", 0.25, (Reason("a \ud800", True, ""), Reason("b", False, "c")), True, "n", "")
    assert Answer.from_dict(json.loads(json.dumps(asdict(answer)))) == answer
