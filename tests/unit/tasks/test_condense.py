"""Cutting long texts costs a few tokenizations, and cuts what dropping one part after another would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_grpo.tasks.shortlist.build import candidate_for_prompt, job_for_prompt, message_counter
from mlx_grpo.tasks.shortlist.condense import condense
from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.records import Candidate, Form, Job, Role, Skill
from mlx_grpo.tasks.shortlist.text import sentences

JOB = Job("Data Engineer", ("Python", "SQL", "Airflow"), ("dbt",), 3, 6)
PERSON = Candidate("Clerk", 4, (Skill("Python", "advanced", 30),), (Role("Clerk", "Kestrel", 24, "Filed papers."),))
LONG = "Made tea. Moved boxes with nine others! Was calm? " * 4000
TEXTS = {
    "sentences": LONG,
    "one sentence": "made tea " * 22_000,
    "one word": "a" * 200_000,
    "short sentences": "a. " * 66_000,
    "named skills": "Tuned Airflow. " + LONG + "Wrote SQL. " + LONG[:200],
}


@pytest.mark.parametrize("form", ["compact", "full"])
@pytest.mark.parametrize("place", ["summary", "description"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_of_200_kb_is_tokenized_a_few_times(form: Form, place: str, text: str):
    person = replace(PERSON, summary=text if place == "summary" else "Calm.")
    if place == "description":
        person = replace(person, roles=(replace(PERSON.roles[0], text=text),))
    counted = 0

    def words(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return len(text.split())

    count = message_counter(words, form)
    job, _ = job_for_prompt(JOB, form, 300, count)
    short, _, fault = candidate_for_prompt(job, person, form, 300, count)
    assert fault == ""
    assert fit(job, short) == fit(job, person)
    assert counted < 4 * len(text) + 60_000


def test_a_job_text_of_200_kb_is_tokenized_a_few_times():
    counted = 0

    def words(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return len(text.split())

    count = message_counter(words, "full")
    short, _ = job_for_prompt(replace(JOB, text=LONG + "We use SQL."), "full", 600, count)
    assert short.text.endswith("We use SQL.")
    assert counted < 2 * len(LONG)


def one_by_one(job: Job, person: Candidate, fits: Callable[[Candidate], bool]) -> Candidate:
    """Drop the sentences of summary and careers one after another, from the last."""
    while person.summary and not fits(person):
        person = replace(person, summary=" ".join(sentences(person.summary)[:-1]))
    for at in reversed(range(len(person.roles))):
        for drop in reversed(range(len(sentences(person.roles[at].text)))):
            parts = sentences(person.roles[at].text)
            role = replace(person.roles[at], text=" ".join(parts[:drop] + parts[drop + 1 :]))
            smaller = replace(person, roles=(*person.roles[:at], role, *person.roles[at + 1 :]))
            if not fits(person) and fit(job, smaller) == fit(job, person):
                person = smaller
    return person


prose = st.lists(
    st.sampled_from(["Made tea.", "Used SQL.", "Airflow and dbt!", "Tuned Airflow.", "Python?"]), max_size=7
).map(" ".join)


@settings(deadline=None)
@given(prose, st.lists(prose, min_size=1, max_size=3), st.integers(0, 90))
def test_the_search_cuts_what_dropping_one_by_one_would(summary, careers, most):
    roles = tuple(Role(f"Clerk {number}", "X", 9, text) for number, text in enumerate(careers))
    person = replace(PERSON, summary=summary, roles=roles)

    def fits(person: Candidate) -> bool:
        return len(person.summary) + sum(len(role.text) for role in person.roles) <= most

    expected = one_by_one(JOB, person, fits)
    short, _ = condense(JOB, person, fits)
    assert short.summary == expected.summary
    assert [role.text for role in short.roles if role.text] == [role.text for role in expected.roles if role.text]
    assert short == expected or not fits(expected)
