"""Whatever a model writes, grading is total: seven numbers in [0, 1], no exception, in time linear in its length."""

from __future__ import annotations

import ast
import json
import pickle
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strict_cases import CONTEXT, FACTS

import reward
from reward import COMPONENTS, RUBRICS, STRICT
from reward.evidence import judge, weigh
from reward.facts import read_facts
from reward.names import fold
from reward.published import _claims

GOLD: dict[str, Any] = {"decision": "reject", "score": 0.3, "facts": FACTS, "context": CONTEXT}

VOCABULARY = """no lacks missing not listed Python SQL Airflow and or , ; ; : . ( ) 4 30 30m years months inside above
below 3-6 + work as with related unrelated work partly advanced expert in of for is impossible jobs at Northwind
Data Analyst ' (advanced, 30m) ſ İ ٣ ² – ；"""
WORDS = [*VOCABULARY.split(), "\u200b", "\ud800", "a\u0301", "４"]

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
@given(completion=completions, decision=st.sampled_from(["shortlist", "reject"]), score=st.floats(0, 1))
def test_any_text_earns_seven_numbers_in_0_to_1(completion: str, decision: str, score: float, name: str) -> None:
    graded = RUBRICS[name](completion, decision=decision, score=score, facts=FACTS, context=CONTEXT)
    assert list(graded.as_dict()) == [*COMPONENTS, "total"]
    for value in graded.as_dict().values():
        assert type(value) is float and 0.0 <= value <= 1.0
    "\n".join(graded.lines()).encode("utf-8")  # explanations of any text can be written to a file


@pytest.mark.parametrize("name", RUBRICS)
@settings(max_examples=100, deadline=None)
@given(completion=completions)
def test_every_lost_mark_has_a_finding(name: str, completion: str) -> None:
    graded = RUBRICS[name](completion, **GOLD)
    told = {finding.component for finding in graded.findings}
    assert {component for component in COMPONENTS if getattr(graded, component) < 1 - 1e-12} <= told


@settings(max_examples=500, deadline=None)
@given(reason=reason)
def test_any_reason_is_judged(reason: str) -> None:
    clauses = judge(reason, FACTS)
    for clause in clauses:
        assert clause.status in ("confirmed", "refuted", "unread") and clause.why
        assert reason[clause.start : clause.stop] == clause.text
        assert (clause.status == "confirmed") == bool(clause.parts) or clause.why == "repeats an earlier clause"
        clause.why.encode("utf-8")
    assert bool(clauses) == bool(reason.replace("；", ";").replace(";", " ").strip())


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
skills = st.dictionaries(
    names,
    st.fixed_dictionaries(
        {
            "level": st.none() | st.sampled_from(["beginner", "intermediate", "advanced", "expert"]),
            "months": st.none() | st.integers(0, 400),
        }
    ),
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(skills=skills, titles=st.dictionaries(names, st.sampled_from([0, 0.5, 1]), max_size=3), reason=reason)
def test_any_names_are_read(skills: dict[str, Any], titles: dict[str, float], reason: str) -> None:
    requirements = [{"any": [name], "best": name} for name in skills] + [{"any": ["SQL", "Go"], "best": None}]
    facts = read_facts(FACTS | {"requirements": requirements, "skills": skills, "titles": titles})
    evidence = weigh([reason, *facts.decisive()], facts)
    assert 0 <= evidence.coverage <= 1 and 0 <= evidence.no_hallucination <= 1


@settings(max_examples=200, deadline=None)
@given(name=names)
def test_folding_twice_changes_nothing(name: str) -> None:
    assert fold(fold(name)) == fold(name)


@settings(max_examples=100, deadline=None)
@given(reasons=st.lists(reason, max_size=5), extra=reason)
def test_another_reason_refutes_nothing_before_it(reasons: list[str], extra: str) -> None:
    facts = read_facts(FACTS)
    before, after = weigh(reasons, facts), weigh([*reasons, extra], facts)
    assert after.reasons[: len(reasons)] == before.reasons


@settings(max_examples=100, deadline=None)
@given(reasons=st.lists(reason, min_size=2, max_size=5))
def test_key_order_is_free(reasons: list[str]) -> None:
    fields = {"decision": "reject", "score": 0.3, "reasons": reasons}
    swapped = dict(reversed(fields.items()))
    for rubric in RUBRICS.values():
        one, other = (rubric(json.dumps(f), **GOLD) for f in (fields, swapped))
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
    "semicolons": ";a",
    "skills": "Python: advanced, 30 months; ",
    "a list of skills": "no Python, SQL and ",
    "half a doubt": "1 at 1 in 1 years ",
    "half a skill": "a is 1m, ",
    "half a job list": "jobs of 1 and 1 and ",
    "full width": "；ａ",
    "ligatures": "\ufdfa",
    "combining": "a\u0301\u0323",
}


@pytest.mark.parametrize("fill", FILL)
@pytest.mark.parametrize("name", RUBRICS)
def test_a_megabyte_is_graded_in_a_second(name: str, fill: str) -> None:
    text = FILL[fill] * (MEGABYTE // len(FILL[fill]))
    many = [text[at : at + 600] for at in range(0, MEGABYTE, 600)]
    for reasons in ([text], many, many[:5]):
        completion = json.dumps({"decision": "reject", "score": 0.3, "reasons": reasons})
        start = time.process_time()
        RUBRICS[name](completion, **GOLD)
        assert time.process_time() - start < 1.0


@pytest.mark.parametrize("fill", FILL)
def test_a_megabyte_is_judged_in_a_second(fill: str) -> None:
    start = time.process_time()
    judge(FILL[fill] * (MEGABYTE // len(FILL[fill])), FACTS)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("name", RUBRICS)
@pytest.mark.parametrize("unit", ["{", "}", "[", '{"a":', "{}", '"', "\\", "{'", "9"])
def test_a_megabyte_of_broken_json_is_graded_in_two_seconds(name: str, unit: str) -> None:
    start = time.process_time()
    for text in (unit * (MEGABYTE // len(unit)), '{"score": ' + unit * (MEGABYTE // len(unit)) + "}"):
        RUBRICS[name](text, **GOLD)
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
