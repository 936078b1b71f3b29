"""Facts that are not in the schema are an error in the data, and its text says what to do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from support.strict_cases import FACTS, answer

from reward import PUBLISHED, STRICT
from reward.facts import read_facts


def grade(facts: Any) -> None:
    STRICT(answer(), decision="shortlist", score=0.62, facts=facts)


def test_row_without_facts_is_told_how_to_get_them_or_do_without() -> None:
    with pytest.raises(ValueError) as error:
        STRICT(answer(), decision="shortlist", score=0.62)
    assert str(error.value) == (
        "facts is NoneType: strict confirms reasons against them; write the rows with `mlx-grpo data build` or "
        "`mlx-grpo data synthetic`, or set reward.rubric to published, or to null and name reward.functions"
    )


def test_published_needs_no_facts() -> None:
    assert PUBLISHED(answer(), decision="shortlist", score=0.62, context="").format_valid == 1.0


def test_published_without_a_context_is_an_error_in_the_data() -> None:
    with pytest.raises(ValueError, match="context is NoneType: it must be the text that the model read"):
        PUBLISHED(answer(), decision="shortlist", score=0.62)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": 1}, r"facts\.version = 1: strict reads 2"),
        ({"version": None}, r"facts\.version = None"),
        ({"skills": ["Python"]}, "AttributeError"),
        ({"skills": FACTS["skills"] | {"Go": {"level": "guru", "months": 3}}}, r"skills\.Go\.level = 'guru'"),
        ({"skills": FACTS["skills"] | {"Go": {"level": "expert"}}}, "months"),
        ({"skills": FACTS["skills"] | {"Go": {"level": "expert", "months": "3"}}}, "'3' is no number"),
        ({"skills": {}}, "Python"),
        ({"requirements": [{"any": ["Go"]}]}, "best"),
        ({"years": True}, "True is no number"),
        ({"years": 10**400}, "OverflowError"),
        ({"range": [3]}, "unpack"),
        ({"titles": {"Baker": 0.7}}, "0.7 is none of 1, 0.5, 0"),
        ({"roles": [["Baker"]]}, "unpack"),
        ({"work": None}, "None is no number"),
        ({"impossible": [{"kind": "jobs", "months": 3}]}, "'jobs' of 3"),
        ({"impossible": [{"kind": "luck", "months": 3}]}, "'luck' of 3"),
    ],
)
def test_facts_outside_the_schema_are_named_with_the_remedy(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        grade(FACTS | fields)
    assert "mlx-grpo data build" in str(error.value)


@pytest.mark.parametrize("key", [key for key in FACTS if key != "nice"])
def test_missing_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        grade({name: value for name, value in FACTS.items() if name != key})


def test_nice_to_haves_may_be_left_out() -> None:
    assert "rust" not in read_facts({name: value for name, value in FACTS.items() if name != "nice"}).asked


def test_grading_leaves_the_facts_of_a_row_alone() -> None:
    before = copy.deepcopy(FACTS)
    grade(FACTS)
    assert before == FACTS
