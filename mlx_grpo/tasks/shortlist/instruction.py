"""What every shortlist prompt begins with: the rules in plain words, then a worked example as turns of the chat.

A model of half a billion parameters copies the forms of an answer from a turn that it takes for its own. The same
example quoted inside the system message makes it write further examples (docs/prompt.md has the comparison).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from mlx_grpo.tasks.shortlist.facts import facts_of
from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.gold import gold_completion
from mlx_grpo.tasks.shortlist.prompt import render, with_published_marks
from mlx_grpo.tasks.shortlist.records import Candidate, Form, Job, Role, Skill

Message = dict[str, str]
"""A chat message: `role` and `content`."""

SYSTEM_MESSAGE = (
    "You judge how well a candidate fits a job. Reply with one JSON object and nothing else. "
    '"reasons" is a list of 2 to 5 strings that state facts: each required skill with the candidate\'s level and '
    "months, or missing; the years, inside, below or above the range; the title or the work, as related, partly "
    'related or unrelated; and a claim that can\'t be true, as "SKILL: MONTHS months in YEARS years, impossible". '
    '"score" is the fit from 0 to 1, by skills, then years, then work; 0 where a claim is impossible. '
    '"decision" is "shortlist" from a score of 0.5, else "reject".'
)

EXAMPLE = (
    Job("Pastry Chef", ("Lamination", "Tempering", "Costing"), (), 2, 5),
    Candidate(
        "Pastry Chef",
        4,
        (Skill("Tempering", "advanced", 19), Skill("Lamination", "expert", 40)),
        (Role("Pastry Chef", "Larkfield", 44, "Lamination"),),
    ),
)
"""A job and a candidate of a field that the bundled rows do not have.

Its years are inside the range and its work is related, as in most rows. A small model repeats the example's words. By
itself it says "above" and "below", but hardly ever "inside", and GRPO can only reward what is said.
"""


PUBLISHED_MESSAGE = (
    "You are RedRob, an explainable candidate-ranking assistant. Decide whether the candidate should be SHORTLISTED "
    "for the role. Respond with a single JSON object: "
    '{"decision":"shortlist"|"reject","score":0..1,"reasons":[..]}.'
)
"""The system message of the published run, as its model card gives it (williyam/redrob-qwen-grpo)."""
PUBLISHED_INSTRUCTION: tuple[Message, ...] = ({"role": "system", "content": PUBLISHED_MESSAGE},)

Wording = Literal["example", "published"]
"""Our instruction with its example, or the published run's system message and marks."""


def messages(job: Job, candidate: Candidate, form: Form, instruction: Sequence[Message]) -> list[Message]:
    """Return the chat of one prompt: the instruction, then the user's message with the marks of its wording."""
    text = render(job, candidate, form)
    if tuple(instruction) == PUBLISHED_INSTRUCTION:
        text = with_published_marks(text)
    return [*instruction, {"role": "user", "content": text}]


def worded_messages(job: Job, candidate: Candidate, form: Form, wording: Wording) -> list[Message]:
    """Return the chat of one prompt in either wording."""
    return messages(job, candidate, form, instruction_of(form) if wording == "example" else PUBLISHED_INSTRUCTION)


@lru_cache
def instruction_of(form: Form) -> tuple[Message, ...]:
    """Return the messages that all prompts of a form begin with: the system message, then the example's two turns."""
    job, candidate = EXAMPLE
    return (
        {"role": "system", "content": SYSTEM_MESSAGE},
        {"role": "user", "content": render(job, candidate, form)},
        {"role": "assistant", "content": gold_completion(fit(job, candidate), facts_of(job, candidate))},
    )
