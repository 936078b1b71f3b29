"""Where in a reason each claim stands, by the strict rubric's own rules."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward import STRICT
from reward.claims import Reason, read_claims

CONTEXT = (
    "[JOB]\nData Analyst, 3-6 years. Required: Python, SQL, Rust.\n"
    "[CANDIDATE]\nData Analyst, 1 year. Skills: Python (expert, 40m), SQL (beginner, 3m). Recent: Analyst at Acme, 12m."
)


def marked(reason: Reason) -> str:
    """The reason with what holds in [brackets] and what is false in {braces}."""
    text, at = "", 0
    for claim in reason.claims:
        left, right = "{}" if claim.fault else "[]"
        text += reason.text[at : claim.start] + left + reason.text[claim.start : claim.stop] + right
        at = claim.stop
    return text + reason.text[at:]


def reasons_of(*texts: object) -> list[Reason]:
    completion = json.dumps({"reasons": texts, "score": 0.2, "decision": "reject"})
    reasons = read_claims(completion, CONTEXT, STRICT.limits)
    assert reasons is not None
    return reasons


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("has Python (expert, 40m) and SQL", "has [Python] ([expert], [40m]) and [SQL]"),
        ("works as Data Analyst at Acme", "works as [Data Analyst] at [Acme]"),
        ("has Python, knows Kafka and more Kafka", "has [Python], knows {Kafka} and more {Kafka}"),
        ("has Rust and Python", "has {Rust} and [Python]"),
        ("lacks SQL", "lacks {SQL}"),
        ("1 year is inside 3-6", "{1 year is inside 3-6}"),
        ("covers none of the required skills", "covers {none of the required} skills"),
        ("has Python (expert, 12m)", "has [Python] ([expert], {12m})"),
        ("doesn't list Rust, isn't at Acme, hasn't Kafka", "doesn't list [Rust], isn't at {Acme}, hasn't {Kafka}"),
    ],
)
def test_claims_stand_where_the_text_makes_them(text: str, expected: str):
    (reason,) = reasons_of(text)
    assert marked(reason) == expected


def test_what_is_false_is_told_in_the_words_of_the_rubrics_findings():
    texts = ["has Rust and Kafka", "lacks SQL", "1 year is inside 3-6", "good team player"]
    completion = json.dumps({"reasons": texts, "score": 0.2, "decision": "reject"})
    findings = {f.text for f in STRICT(completion, decision="reject", score=0.2, context=CONTEXT).findings}
    for number, reason in enumerate(reasons_of(*texts), start=1):
        assert {f"reason {number}: {fault}" for fault in reason.faults} <= findings
        assert not reason.objection or f"reason {number} {reason.objection}" in findings
    assert reasons_of(*texts)[3].objection == "cites nothing from the job or the profile"


@pytest.mark.parametrize(
    "completion", ["", "[CANDIDATE]", "{}", '{"reasons": "has Python"}', '{"reasons": ["has Python", 3]}']
)
def test_a_completion_without_a_list_of_texts_has_no_reasons(completion: str):
    assert read_claims(completion, CONTEXT, STRICT.limits) is None


WORDS = st.sampled_from(
    ["has", "lacks", "isn't", "n't", "Rust", "Python,", "Kafka", "40m", "3-6", "1 year is under", "all required", "İ"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=9).map(" ".join)), max_size=4))
def test_claims_follow_each_other_inside_the_text(texts: list[str]):
    for reason in reasons_of(*texts):
        places = [place for claim in reason.claims for place in (claim.start, claim.stop)]
        assert places == sorted(places)
        assert all(0 <= place <= len(reason.text) for place in places)
        assert bool(reason.faults) == any(claim.fault for claim in reason.claims)
