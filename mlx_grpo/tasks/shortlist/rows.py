"""Dataset rows: the prompt, the gold label, the facts that reasons are checked against, and the gold completion."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
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


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write rows as JSONL, UTF-8, one object a line; compressed where the name ends in .gz."""
    data = dump_rows(rows).encode()
    path.write_bytes(_compressed(data) if path.suffix == ".gz" else data)


def dump_rows(rows: list[Row]) -> str:
    """Return the JSONL text of rows."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a file that `write_rows` wrote."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [json.loads(line) for line in text.splitlines()]


def user_message(row: Row) -> str:
    """Return the user message of a row."""
    return row["prompt"][-1]["content"]


def _compressed(data: bytes) -> bytes:
    """Compress without a date or a name in the header, so that the same rows give the same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()
