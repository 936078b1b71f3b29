"""The instruction: rules in the order of the answer's keys, and examples that the rubric pays in full."""

from __future__ import annotations

from typing import get_args

import pytest

from mlx_grpo.tasks.shortlist.facts import facts_of
from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.instruction import EXAMPLE, SYSTEM_MESSAGE, instruction_of
from mlx_grpo.tasks.shortlist.prompt import parse
from mlx_grpo.tasks.shortlist.records import Form
from mlx_grpo.tasks.shortlist.vocabulary import VOCABULARY
from reward import STRICT


def test_system_message_asks_for_the_keys_in_the_order_of_the_gold():
    places = [SYSTEM_MESSAGE.index(f'"{key}"') for key in ("reasons", "score", "decision")]
    assert places == sorted(places)


@pytest.mark.parametrize("form", get_args(Form))
def test_example_is_a_turn_whose_answer_earns_everything(form: Form):
    system, question, answer = instruction_of(form)
    assert system == {"role": "system", "content": SYSTEM_MESSAGE}
    assert (question["role"], answer["role"]) == ("user", "assistant")
    job, candidate = parse(question["content"], form)
    gold, facts = fit(job, candidate), facts_of(job, candidate)
    sheet = STRICT(answer["content"], decision=gold.decision, score=gold.score, facts=facts)
    assert sheet.total == pytest.approx(1)


def test_example_shows_no_skill_of_the_bundled_rows():
    job, candidate = EXAMPLE
    shown = {skill.name for skill in candidate.skills} | set(job.required)
    assert not shown & set(VOCABULARY.skill_names)
