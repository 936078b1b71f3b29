"""Gold completions, which a supervised warm start trains on: the decisive facts as reasons, then the verdict.

The reasons are the steps of the fit rule in its order: the requirements one by one, the years and a doubt, the work. A
model that writes them first has everything that the score needs. Each fact has one wording, which is the rubric's own,
so that a small model learns the judgement and not a choice of synonyms.
"""

from __future__ import annotations

import json
from typing import Any

from mlx_grpo.tasks.shortlist.records import Fit
from reward.facts import Facts, Requirement, read_facts
from reward.wording import claim_text, missing_text, skill_text, work_text, years_text

FIRST_REQUIREMENTS = 3
"""The requirements of the first reason; the others follow in the second."""


def gold_completion(fit: Fit, facts: dict[str, Any]) -> str:
    """Return the gold completion as JSON text; `facts` is the column of the row."""
    return dump_answer({"reasons": gold_reasons(facts), "score": fit.score, "decision": fit.decision})


def gold_reasons(facts: dict[str, Any]) -> list[str]:
    """Return two to four reasons that state every decisive fact once, in the canonical wording."""
    read = read_facts(facts)
    requirements = [_requirement(asked) for asked in read.requirements]
    years_and_doubts = _years(read) + [claim_text(claim, read) for claim in read.impossible]
    parts = [
        requirements[:FIRST_REQUIREMENTS],
        requirements[FIRST_REQUIREMENTS:],
        years_and_doubts,
        [work_text(read)],
    ]
    return ["; ".join(clauses) for clauses in parts if clauses]


def _requirement(asked: Requirement) -> str:
    return missing_text(asked) if asked.best is None else skill_text(asked.best)


def _years(facts: Facts) -> list[str]:
    """Return the years against the range, where the job asks for any."""
    return [years_text(facts)] if facts.low > 0 or facts.high is not None else []


def dump_answer(answer: dict[str, Any]) -> str:
    """Format an answer as the JSON text of a completion, with the blanks that instruct models write too."""
    return json.dumps(answer, ensure_ascii=False)
