"""Dataset rows: the prompt, the gold label, the facts that reasons are checked against, and the gold completion."""

from __future__ import annotations

from typing import Any

from mlx_grpo.tasks.shortlist.facts import facts_of
from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.gold import gold_completion
from mlx_grpo.tasks.shortlist.instruction import Wording, worded_messages
from mlx_grpo.tasks.shortlist.records import Candidate, Fit, Form, Job

Row = dict[str, Any]
"""id, prompt (chat messages), decision, score, facts, completion, job_id, candidate_id, kind."""


def make_row(
    job: Job, candidate: Candidate, form: Form, *, kind: str, label: Fit | None = None, wording: Wording = "example"
) -> Row:
    """Make the row for one job and one candidate, both exactly as the prompt contains them.

    The `label` is the rule's, unless another one is given.
    """
    gold, facts = label or fit(job, candidate), facts_of(job, candidate)
    return {
        "id": f"{job.id}/{candidate.id}",
        "prompt": worded_messages(job, candidate, form, wording),
        "decision": gold.decision,
        "score": gold.score,
        "facts": facts,
        "completion": gold_completion(gold, facts),
        "job_id": job.id,
        "candidate_id": candidate.id,
        "kind": kind,
    }
