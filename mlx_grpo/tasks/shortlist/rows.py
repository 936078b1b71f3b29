"""Dataset rows: the prompt, the gold label that the rubric grades against, and the gold completion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.gold import gold_completion
from mlx_grpo.tasks.shortlist.prompt import messages
from mlx_grpo.tasks.shortlist.records import Candidate, Form, Job, Order

Row = dict[str, Any]
"""id, prompt (chat messages), decision, score, context (the user message), completion, job_id, candidate_id, kind."""


def make_row(job: Job, candidate: Candidate, form: Form, *, kind: str, order: Order = "reasons_first") -> Row:
    """Make the row for one job and one candidate, both exactly as the prompt contains them."""
    gold = fit(job, candidate)
    prompt = messages(job, candidate, form, order)
    return {
        "id": f"{job.id}/{candidate.id}",
        "prompt": prompt,
        "decision": gold.decision,
        "score": gold.score,
        "context": prompt[-1]["content"],
        "completion": gold_completion(job, candidate, gold, order=order),
        "job_id": job.id,
        "candidate_id": candidate.id,
        "kind": kind,
    }


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write rows as JSONL, UTF-8, one object a line."""
    path.write_text(dump_rows(rows), encoding="utf-8", newline="\n")


def dump_rows(rows: list[Row]) -> str:
    """Return the JSONL text of rows."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a JSONL file that `write_rows` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
