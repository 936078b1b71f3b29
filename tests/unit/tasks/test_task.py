"""The shortlist task behind the seam: its figures, its alarm, and what the report shows."""

from __future__ import annotations

import pytest
from support.facts import FACTS
from support.paths import FIXTURES

from mlx_grpo.config.schema import RewardConfig
from mlx_grpo.json_files import read_jsonl
from mlx_grpo.tasks.shortlist.task import Shortlist, read_score
from reward.facts import read_facts

TASK = Shortlist()
DECISIVE = read_facts(FACTS).decisive()
CONTEXT = "[JOB]\nClerk. Required: SQL.\n[CANDIDATE]\nClerk, 4 years. Skills: SQL (expert, 48m)."


def evaluations(**columns: list[float | None]) -> list[dict]:
    """Return the metrics of some steps with an evaluation each."""
    return [
        {"step": step, **dict(zip(columns, values, strict=True))}
        for step, values in enumerate(zip(*columns.values(), strict=True))
    ]


def test_figures_count_decisions_regardless_of_scores():
    completions = [
        '{"reasons":["has SQL"],"score":0.1,"decision":"shortlist"}',  # strict rewards it with 0
        '{"reasons":["has SQL"],"score":0.9,"decision":"reject"}',
        "no JSON",
        '{"decision":"maybe"}',
    ]
    figures = TASK.judge(completions, decision=["shortlist"] * 4, score=[0.8] * 4, context=[CONTEXT] * 4)
    assert [own["correct"] for own in figures] == [1, 0, 0, 0]
    assert [own["shortlisted"] for own in figures] == [1, 0, 0, 0]
    assert [own["rejected"] for own in figures] == [0, 1, 0, 0]
    assert max(range(4), key=lambda row: figures[row]["published"]) == 0
    assert [own["score"] for own in figures] == [0.1, 0.9, None, None]
    assert {(own["positive"], own["fit"]) for own in figures} == {(True, 0.8)}


def judged_with(facts: list) -> list[dict]:
    completions = ['{"reasons":["Python: expert, 40 months; won an award"]}', "no JSON"]
    labels = {"decision": ["reject"] * 2, "score": [0.2] * 2, "context": [CONTEXT] * 2}
    return [dict(own) for own in TASK.judge(completions, **labels, facts=facts)]


def test_rows_with_facts_add_what_is_stated_and_what_is_confirmed():
    written, nothing = judged_with([FACTS, FACTS])
    assert (written["coverage"], written["confirmed"]) == (pytest.approx(1 / len(DECISIVE)), 0.5)
    assert (nothing["coverage"], nothing["confirmed"]) == (0, 0)


@pytest.mark.parametrize("facts", [[FACTS, None], [{"version": 1}, FACTS]])
def test_rows_of_which_one_has_no_readable_facts_are_judged_without(facts: list):
    assert not {"coverage", "confirmed"} & judged_with(facts)[0].keys()


@pytest.mark.parametrize("score", ['"high"', "null", "[1]", "NaN", "1" + "0" * 400])
def test_score_that_is_no_number_is_none(score: str):
    assert read_score(f'{{"score":{score}}}') is None


def test_one_decision_for_all_raises_an_alarm_at_half_accuracy():
    steps = evaluations(
        **{"eval/correct": [0.56, 0.5, 0.5], "eval/shortlisted": [0.9, 0.03, 0.0], "eval/rejected": [0.1, 0.97, 1.0]}
    )
    step, line = next(TASK.alarms(steps))
    assert step == 1
    assert "97% of the held-out candidates get the same decision, reject, right for 50%" in line


@pytest.mark.parametrize(("correct", "rejected"), [(0.95, 1.0), (0.03, 0.06)])
def test_one_decision_that_is_mostly_correct_or_rare_raises_no_alarm(correct: float, rejected: float):
    steps = evaluations(**{"eval/correct": [correct], "eval/shortlisted": [0.0], "eval/rejected": [rejected]})
    assert list(TASK.alarms(steps)) == []
    assert list(TASK.alarms([{"step": 0}])) == []


def test_demo_metrics_warn_that_everyone_is_rejected():
    step, line = next(TASK.alarms(read_jsonl(FIXTURES / "demo_metrics.jsonl")))
    assert step == 7
    assert "same decision, reject" in line


def test_report_shows_job_and_candidate_apart_and_marks_each_clause():
    row = {"decision": "reject", "score": 0.2, "facts": FACTS}
    assert TASK.show_row(row, CONTEXT).label == "reject"
    assert [heading for heading, _ in TASK.show_row(row, CONTEXT).parts] == ["Job", "Candidate"]
    assert TASK.show_row(row, "something else").parts == []
    completion = '{"reasons":["no SQL; Python: beginner"],"score":0.3,"decision":"Shortlist"}'
    shown = TASK.show(completion, row, RewardConfig())
    assert (shown.verdict, shown.score) == ("shortlist", 0.3)
    [remark] = shown.remarks
    assert "".join(text for text, _ in remark.pieces) == "no SQL; Python: beginner"
    assert [mark for _, mark in remark.pieces if mark] == ["confirmed", "refuted"]
    assert len(remark.faults) == 1
    assert TASK.show(completion, {}, RewardConfig()) == ("shortlist", 0.3, None)  # the row is gone
    assert TASK.show("no list of reasons", row, RewardConfig()) == (None, None, None)
