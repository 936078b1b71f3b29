"""The shortlist task as the engine sees it: its rubrics, its rows, and what its evaluation shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_grpo.errors import UserError
from mlx_grpo.tasks.base import Alarm, Figures, Grader, Remark, RewardSettings, Row, Shown, ShownRow, Task
from mlx_grpo.tasks.shortlist.prompt import CANDIDATE, JOB, form_of, with_own_marks
from mlx_grpo.tasks.shortlist.synthetic import DATA
from reward import PUBLISHED, RUBRICS, STRICT, Rubric
from reward.breakdown import DECISIONS
from reward.checks import check_reasons, columns_problem
from reward.evidence import Clause
from reward.facts import read_facts
from reward.limits import StrictLimits
from reward.parsing import read_published, read_strict

OWN_REWARD = "set reward.rubric to null and name reward.functions"
ONE_DECISION = 0.95
"""Share of the held-out candidates with the same decision: all but one of 32, so that one outlier hides nothing."""
MOSTLY_RIGHT = 0.9
"""No alarm for one decision that is correct for this share of the candidates."""
WORST_FIRST = ("refuted", "unread", "confirmed")


class Shortlist(Task):
    """Judges candidates for a job: `{"reasons", "score", "decision"}`, graded by the rules in `reward`."""

    rubrics: Mapping[str, str] = {name: rubric.version for name, rubric in RUBRICS.items()}
    bundled: Mapping[str, tuple[Path, Path]] = {
        name: (DATA / f"train{suffix}.jsonl.gz", DATA / f"heldout{suffix}.jsonl.gz")
        for name, suffix in {"shortlist": "", "shortlist-full": "-full"}.items()
    }
    cluster = "job_id"
    caution = (
        "Trained on synthetic or supplied profiles against a rule-based reward, it does not know more of a person than "
        "the prompt shows. Hiring decisions belong to people."
    )

    def grader(self, reward: RewardSettings) -> Grader:
        """Return the rubric as a reward; raise UserError for weights or limits that make no sense."""
        rubric = make_rubric(reward)

        def grade(completions: Sequence[str], /, **columns: Any) -> list[dict[str, float]]:
            labels = zip(*(columns[name] for name in rubric.columns), strict=True)
            return [
                rubric(completion, **dict(zip(rubric.columns, label, strict=True))).as_dict()
                for completion, label in zip(completions, labels, strict=True)
            ]

        return grade

    def weights(self, reward: RewardSettings) -> Mapping[str, float]:
        """Return the weights of the rubric's components."""
        return vars(make_rubric(reward).weights)

    def problem(self, reward: RewardSettings, columns: Row) -> str | None:
        """Return the reason why the rubric can't grade against a row, with a remedy; None where it can."""
        problem = columns_problem(columns, make_rubric(reward))
        if problem is None or "reward.functions" in problem:
            return problem
        return f"{problem}; correct the columns, or {OWN_REWARD}"

    def judge(self, completions: Sequence[str], /, **columns: Any) -> list[Figures]:
        """Return each completion's figures; decision and score are read as the published rubric reads them.

        A completion without a decision is wrong; one without a score ranks below all that have one. A valid one is a
        single JSON object and nothing else, without a repeated key. Rows with facts add the share of the decisive
        facts that is stated, `coverage`, and the share of the clauses that is confirmed.
        """
        labels = zip(*(columns[name] for name in PUBLISHED.columns), strict=True)
        every = columns.get("facts") or [None] * len(completions)
        with_facts = all(map(_are_facts, every))
        return [
            {**_figures(completion, *label), **(_evidence(completion, facts) if with_facts else {})}
            for completion, label, facts in zip(completions, labels, every, strict=True)
        ]

    def alarms(self, steps: Sequence[Mapping[str, Any]]) -> Iterator[Alarm]:
        """Detect a policy that gives every candidate the same decision. On a balanced set, accuracy alone hides it."""
        for record in steps:
            shares = {"shortlist": record.get("eval/shortlisted") or 0, "reject": record.get("eval/rejected") or 0}
            decision, share = max(shares.items(), key=lambda item: item[1])
            if share < ONE_DECISION or record["eval/correct"] >= MOSTLY_RIGHT:
                continue
            yield (
                record["step"],
                f"warning: {share:.0%} of the held-out candidates get the same decision, {decision}, right "
                f"for {record['eval/correct']:.0%}: whatever the reward says, the policy judges nobody",
            )

    def prompt_form(self, context: str) -> str | None:
        """Return "compact" or "full"; None where the text is no prompt of the task."""
        return form_of(context)

    def show_row(self, row: Row, context: str) -> ShownRow:
        """Return the label, and job and candidate apart."""
        job, parted, candidate = with_own_marks(context).partition(f"\n{CANDIDATE}\n")
        parts = [("Job", job.removeprefix(JOB)), ("Candidate", candidate)] if parted else []
        return ShownRow(row.get("decision"), parts)

    def show(self, completion: str, row: Row, reward: RewardSettings) -> Shown:
        """Return the decision and score, and the reasons with their clauses marked."""
        decision = str((read_published(completion) or {}).get("decision")).strip().lower()
        verdict = decision if decision in DECISIONS else None
        if columns_problem(row, STRICT):
            return Shown(verdict, read_score(completion), None)
        limits = make_rubric(reward).limits if reward.rubric == STRICT.name else None
        checked = check_reasons(completion, row["facts"], limits if isinstance(limits, StrictLimits) else None)
        remarks = list(map(_remark, checked.texts, checked.evidence.reasons))
        return Shown(verdict, read_score(completion), remarks or None)


def make_rubric(reward: RewardSettings) -> Rubric:
    """Return the configured rubric with its weights and limits; raise UserError where they make no sense."""
    try:
        return RUBRICS[reward.rubric or STRICT.name].with_(weights=reward.weights, limits=reward.limits)
    except ValueError as error:
        raise UserError(f"reward: {error}") from None


def read_score(completion: str) -> float | None:
    """Return a completion's score, clipped to [0, 1]; None where none can be read."""
    fields = read_published(completion) or {}
    try:
        score = float(fields["score"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(score) else min(1.0, max(0.0, score))


def _figures(completion: str, decision: str, score: float, context: str) -> Figures:
    published = PUBLISHED(completion, decision=decision, score=score, context=context)
    strict = read_strict(completion)
    written = (read_published(completion) or {}).get("decision")
    return {
        "published": published.total,
        "correct": published.decision_match == 1,
        "valid": strict is not None and strict.alone and not strict.repeated,
        "shortlisted": written == "shortlist",
        "rejected": written == "reject",
        "score": read_score(completion),
        "positive": decision == "shortlist",
        "fit": score,
    }


def _are_facts(column: Any) -> bool:
    try:
        read_facts(column)
    except ValueError:
        return False
    return True


def _evidence(completion: str, facts: Mapping[str, Any]) -> Figures:
    evidence = check_reasons(completion, facts).evidence
    return {"coverage": evidence.coverage, "confirmed": evidence.confirmed}


def _remark(text: str, clauses: Sequence[Clause]) -> Remark:
    """Return a reason as pieces of text in their order, each plain or the status of a clause, and what is refuted.

    A list in a clause has a clause for each name, at the same place: the worst status counts.
    """
    places: dict[tuple[int, int], str] = {}
    for clause in clauses:
        place = (clause.start, clause.stop)
        places[place] = min(clause.status, places.get(place, clause.status), key=WORST_FIRST.index)
    pieces: list[tuple[str, str]] = []
    at = 0
    for (start, stop), status in places.items():
        if start == stop:
            continue  # a reason that is no text has one clause of nothing
        pieces += [(text[at:start], "")] if start > at else []
        pieces.append((text[start:stop], status))
        at = stop
    pieces += [(text[at:], "")] if at < len(text) else []
    return Remark(pieces, [clause.why for clause in clauses if clause.status == "refuted"])
