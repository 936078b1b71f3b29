"""One candidate of a file, asked about as `mlx-grpo rank` asks, with the rule's label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mlx_grpo.errors import UserError
from mlx_grpo.ranking.model import find_ranking_model
from mlx_grpo.ranking.ranker import survey
from mlx_grpo.runs import Run
from mlx_grpo.tasks.shortlist.build import candidate_for_prompt, job_for_prompt, message_counter
from mlx_grpo.tasks.shortlist.instruction import messages
from mlx_grpo.tasks.shortlist.jd import JobReading
from mlx_grpo.tasks.shortlist.pool import stream_pool
from mlx_grpo.tasks.shortlist.records import Candidate
from mlx_grpo.tasks.shortlist.rows import Row, make_row


class CandidateRow(NamedTuple):
    """A row about one job and one candidate."""

    row: Row
    job: JobReading
    """The job as it was read."""


def candidate_row(
    run: Run, jd: Path, candidates: Path, name: str | None, count_tokens: Callable[[str], int]
) -> CandidateRow:
    """Make a row of a job's file and the candidate `name` of a file, the first one without a name.

    Its prompt has the instruction and the form of the run. Raises UserError where a file can't be read, or the
    candidate is not there or does not fit, or the run's prompts are not those of the shortlist task.
    """
    if run.inputs is not None and run.inputs.form is None:
        raise UserError(
            f"--jd: the prompts of {run.folder} ask something else than the shortlist task; give --prompt, or type one"
        )
    settings = find_ranking_model(str(run.folder), None).settings
    reading, _ = survey(jd, candidates)
    candidate = _find(candidates, name)
    count = message_counter(count_tokens, settings.form)
    job, _ = job_for_prompt(reading.job(jd), settings.form, settings.token_budget, count)
    candidate, _, fault = candidate_for_prompt(job, candidate, settings.form, settings.token_budget, count)
    if fault:
        raise UserError(f"{candidates} ({candidate.id}): {fault}")
    row = make_row(job, candidate, settings.form, kind="chat")
    return CandidateRow({**row, "prompt": messages(job, candidate, settings.form, settings.instruction)}, reading)


def _find(candidates: Path, name: str | None) -> Candidate:
    for entry in stream_pool(candidates):
        if name is not None and entry.candidate_id != name:
            continue
        if entry.candidate is None:
            raise UserError(*entry.problems)
        return entry.candidate
    raise UserError(f"--id: {candidates} has no candidate {name!r}; leave it out for the first one")
