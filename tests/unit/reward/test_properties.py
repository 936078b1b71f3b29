"""Whatever a model writes, grading is total: seven numbers in [0, 1], no exception, in time linear in its length."""

from __future__ import annotations

import ast
import json
import pickle
import re
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reward
from reward import COMPONENTS, RUBRICS, STRICT
from reward.published import _claims

CONTEXT = """[JOB]
Data Engineer, 3-6 years. Required: Python, SQL, Airflow.
[CANDIDATE]
Data Analyst, 4 years. Skills: Python (advanced, 30m), SQL (expert, 48m). Recent: Analyst at Northwind, 24m."""
VOCABULARY = """has lacks no not all none Python SQL Airflow and , . ( ) 4 30m years is inside 3-6 missing required
skills Initech expert ' (advanced, 30m) ſ İ ٣ ²"""
WORDS = [*VOCABULARY.split(), "\u200b", "\ud800", "a\u0301"]

any_text = st.text(st.characters(), max_size=200)  # lone surrogates included
reason = any_text | st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=8,
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "decision": st.sampled_from(["shortlist", "reject"]) | json_value,
        "score": st.floats(0, 1) | json_value,
        "reasons": st.lists(reason, max_size=7) | json_value,
    },
)
completions = (
    any_text
    | objects.map(json.dumps)
    | st.tuples(any_text, objects, any_text).map(
        lambda parts: parts[0] + json.dumps(parts[1], ensure_ascii=False) + parts[2]
    )
)


@pytest.mark.parametrize("name", RUBRICS)
@settings(max_examples=150, deadline=None)
@given(
    completion=completions,
    decision=st.sampled_from(["shortlist", "reject"]),
    score=st.floats(0, 1),
    marked=st.booleans(),
)
def test_any_text_earns_seven_numbers_in_0_to_1(
    completion: str, decision: str, score: float, marked: bool, name: str
) -> None:
    context = CONTEXT if marked else CONTEXT.replace("[", "(")
    graded = RUBRICS[name](completion, decision=decision, score=score, context=context)
    assert list(graded.as_dict()) == [*COMPONENTS, "total"]
    for value in graded.as_dict().values():
        assert type(value) is float and 0.0 <= value <= 1.0
    "\n".join(graded.lines()).encode("utf-8")  # explanations of any text can be written to a file


@pytest.mark.parametrize("name", RUBRICS)
@settings(max_examples=100, deadline=None)
@given(completion=completions)
def test_every_lost_mark_has_a_finding(name: str, completion: str) -> None:
    graded = RUBRICS[name](completion, decision="reject", score=0.3, context=CONTEXT)
    told = {finding.component for finding in graded.findings}
    assert {component for component in COMPONENTS if getattr(graded, component) < 1 - 1e-12} <= told


@settings(max_examples=100, deadline=None)
@given(context=any_text, reasons=st.lists(reason, min_size=2, max_size=5))
def test_any_context_is_read(context: str, reasons: list[str]) -> None:
    completion = json.dumps({"decision": "reject", "score": 0.3, "reasons": reasons})
    for split in (context, f"[JOB]\n{context}\n[CANDIDATE]\n{context}"):
        assert 0 <= STRICT(completion, decision="reject", score=0.3, context=split).total <= 1


@settings(max_examples=100, deadline=None)
@given(reasons=st.lists(reason, min_size=2, max_size=5))
def test_key_order_is_free(reasons: list[str]) -> None:
    fields = {"decision": "reject", "score": 0.3, "reasons": reasons}
    swapped = dict(reversed(fields.items()))
    for rubric in RUBRICS.values():
        one, other = (rubric(json.dumps(f), decision="reject", score=0.3, context=CONTEXT) for f in (fields, swapped))
        assert one == other


@settings(max_examples=300, deadline=None)
@given(st.text("AaBb-_ 1.é\n", max_size=40))
def test_linear_claims_equal_the_backtracking_patterns(text: str) -> None:
    names = re.compile(r"\b[A-Z][A-Za-z0-9-]{2,}(?:\s+[A-Z][A-Za-z0-9-]{2,})*\b")
    numbers = re.compile(r"\b\d+(?:\.\d+)?\b")
    assert _claims(text) == numbers.findall(text) + names.findall(text)


MEGABYTE = 1_000_000
FILL = {
    "hyphened capitals": "A-- ",
    "capitals": "Aaa ",
    "digits": "1",
    "dotted digits": "1.",
    "commaed digits": "1,111",
    "open brackets": "(",
    "letters": "a",
    "spaces": " ",
    "words": "Python and ",
    "quotes": "'",
    "zero width": "\u200b",
}


@pytest.mark.parametrize("fill", FILL)
@pytest.mark.parametrize("name", RUBRICS)
def test_a_megabyte_is_graded_in_two_seconds(name: str, fill: str) -> None:
    text = FILL[fill] * (MEGABYTE // len(FILL[fill]))
    many = [text[at : at + 100] for at in range(0, MEGABYTE, 100)]
    start = time.process_time()
    for reasons in ([text, text], many):
        completion = json.dumps({"decision": "reject", "score": 0.3, "reasons": reasons})
        RUBRICS[name](completion, decision="reject", score=0.3, context=CONTEXT)
    assert time.process_time() - start < 4.0  # two completions of a megabyte and more


@pytest.mark.parametrize("name", RUBRICS)
@pytest.mark.parametrize("unit", ["{", "}", "[", '{"a":', "{}", '"', "\\", "{'", "9"])
def test_a_megabyte_of_broken_json_is_graded_in_two_seconds(name: str, unit: str) -> None:
    start = time.process_time()
    for text in (unit * (MEGABYTE // len(unit)), '{"score": ' + unit * (MEGABYTE // len(unit)) + "}"):
        RUBRICS[name](text, decision="reject", score=0.3, context=CONTEXT)
    assert time.process_time() - start < 4.0


def test_a_rubric_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(STRICT)) == STRICT


def test_reward_imports_the_standard_library_alone() -> None:
    for file in Path(reward.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in {*sys.stdlib_module_names, "reward"}, f"{file.name} imports {name}"
