"""Gold completions, which a supervised warm start trains on: the decisive facts as reasons, then the verdict.

The reasons are the steps of the fit rule in its order: the requirements one by one, the years and a doubt, the work. A
model that writes them first has everything that the score needs. Each fact has one wording, which is the rubric's own,
so that a small model learns the judgement and not a choice of synonyms.
"""

from __future__ import annotations

import json
from typing import Any

from mlx_grpo.tasks.shortlist.records import Fit
from reward.facts import read_facts

FIRST_REQUIREMENTS = 3
"""The requirements of the first reason; the others follow in the second."""


def gold_completion(fit: Fit, facts: dict[str, Any]) -> str:
    """Return the gold completion as JSON text; `facts` is the column of the row."""
    return dump_answer({"reasons": gold_reasons(facts), "score": fit.score, "decision": fit.decision})


def gold_reasons(facts: dict[str, Any]) -> list[str]:
    """Return two to four reasons that state every decisive fact once, in the canonical wording."""
    read = read_facts(facts)
    asked = list(dict.fromkeys(requirement.fact for requirement in read.requirements))
    years_and_doubts = [fact for fact in read.decisive() if fact not in (*asked, read.work_fact)]
    parts = [asked[:FIRST_REQUIREMENTS], asked[FIRST_REQUIREMENTS:], years_and_doubts, [read.work_fact]]
    return ["; ".join(clauses) for clauses in parts if clauses]


def dump_answer(answer: dict[str, Any]) -> str:
    """Format an answer as the JSON text of a completion, with the blanks that instruct models write too."""
    return json.dumps(answer, ensure_ascii=False)
