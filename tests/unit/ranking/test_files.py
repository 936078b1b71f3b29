"""The files of a ranking: sorted, safe to open, never half written, and a log that survives a cut."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from mlx_grpo.errors import UserError
from mlx_grpo.ranking.answers import Answer, Mark, Reason
from mlx_grpo.ranking.files import Outputs, Place, ScoreLog, outputs, write_ranked

HEADER = {"job": {"title": "Analyst"}, "model": "m", "settings": {"seed": 0}}
CONFIRMED = Mark("Python: expert", "confirmed", "the profile lists it so")
REFUTED = Mark("lacks SQL", "refuted", "the profile has 'SQL: expert, 4 months'")
REASONS = (Reason("Python: expert", (CONFIRMED,)), Reason("lacks SQL; Python: expert", (REFUTED, CONFIRMED)))


def answer(name: str, score: float | None, decision: str = "reject", **changes: object) -> Answer:
    reasons = () if score is None else REASONS
    coverage = None if score is None else 1 / 3
    return Answer(name, "" if score is None else decision, score, coverage, reasons, **changes)


def ranked(folder: Path, answers: list[Answer], top_k: int | None = None) -> tuple[list[dict], list[dict]]:
    """The rows of the CSV and of the JSONL."""
    files = outputs(folder / "r.csv")
    with ScoreLog(files.scores, HEADER) as log:
        keys = [str(position) for position in range(len(answers))]
        log.append(keys, answers)
        places = [Place.of(one, position, keys[position]) for position, one in enumerate(answers)]
        write_ranked(files, log, places, 5, top_k)
    with files.csv.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, [json.loads(line) for line in files.jsonl.read_text().splitlines()]


def test_best_come_first_and_invalid_answers_last_in_the_pools_order(tmp_path: Path):
    given = [answer("z", None), answer("b", 0.5, "reject"), answer("c", 0.5, "shortlist"), answer("a", None)]
    given += [answer("d", 0.9), answer("e", 0.1, "shortlist"), answer("a2", 0.5, "reject")]
    rows, records = ranked(tmp_path, given)
    assert [row["candidate_id"] for row in rows] == ["d", "c", "a2", "b", "e", "z", "a"]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5", "", ""]
    assert [record["rank"] for record in records] == [1, 2, 3, 4, 5, None, None]
    assert [row["valid"] for row in rows] == ["true"] * 5 + ["false"] * 2
    assert (rows[-1]["decision"], rows[-1]["score"]) == ("", "")
    assert [rows[0][name] for name in ("status_1", "reason_2", "status_2")] == [
        "confirmed",
        "lacks SQL; Python: expert",
        "refuted",
    ]
    assert [row["coverage"] for row in rows] == ["0.3333"] * 5 + [""] * 2
    assert records[0]["reasons"][1] == {
        "text": "lacks SQL; Python: expert",
        "status": "refuted",
        "clauses": [REFUTED._asdict(), CONFIRMED._asdict()],
    }
    assert records[0]["coverage"] == 0.3333


def test_top_k_omits_lower_ranks_but_no_invalid_answer(tmp_path: Path):
    rows, records = ranked(tmp_path, [answer("a", 0.1), answer("b", 0.2), answer("c", None), answer("d", 0.3)], top_k=2)
    assert [row["candidate_id"] for row in rows] == [r["candidate_id"] for r in records] == ["d", "b", "c"]


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1"])
def test_no_csv_cell_is_a_formula_and_jsonl_is_unchanged(tmp_path: Path, start: str):
    given = answer(start, 0.5, note=start)
    given = Answer(start, given.decision, given.score, 0.0, (Reason(start, ()),), note=start)
    (row,), (record,) = ranked(tmp_path, [given])
    assert row["candidate_id"] == row["reason_1"] == row["note"] == "'" + start
    assert record["candidate_id"] == record["reasons"][0]["text"] == start


def test_text_that_utf8_cannot_carry_is_written_as_its_escape(tmp_path: Path):
    (row,), (record,) = ranked(tmp_path, [answer('é, "x"\n', 0.5, note="\ud800")])
    assert (row["candidate_id"], row["note"]) == ('é, "x"\n', "\\ud800")
    assert (record["candidate_id"], record["note"]) == ('é, "x"\n', "\ud800")


def test_a_torn_last_line_is_cut_off_and_the_rest_kept(tmp_path: Path):
    path = tmp_path / "s.jsonl"
    with ScoreLog(path, HEADER) as log:
        log.append(["a", "b"], [answer("a", 0.5), answer("b", 0.6)])
    path.write_bytes(path.read_bytes()[:-20])
    with ScoreLog(path, HEADER) as log:
        assert log.holds(["a"])
        assert not log.holds(["a", "b"])
        log.append(["b"], [answer("b", 0.7)])
        assert (log.read("a"), log.read("b")) == (answer("a", 0.5), answer("b", 0.7))
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 3


@pytest.mark.parametrize("name", ["job", "model", "settings"])
def test_log_of_another_job_model_or_setting_is_refused(tmp_path: Path, name: str):
    ScoreLog(tmp_path / "s.jsonl", HEADER).__exit__(None, None, None)
    with pytest.raises(UserError, match=f": {name} changed since"):
        ScoreLog(tmp_path / "s.jsonl", {**HEADER, name: {"x": 1}})
    with ScoreLog(tmp_path / "s.jsonl", HEADER) as log:
        assert not log.holds(["a"])


@pytest.mark.parametrize("text", ["not json\n", '{"prompt": 1}\n', "[1]\n"])
def test_file_without_scores_is_refused_and_unchanged(tmp_path: Path, text: str):
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match="holds no scores"):
        ScoreLog(path, HEADER)
    assert path.read_text() == text


def test_second_ranking_of_one_log_is_refused(tmp_path: Path):
    with ScoreLog(tmp_path / "s.jsonl", HEADER), pytest.raises(UserError, match="another ranking is writing it"):
        ScoreLog(tmp_path / "s.jsonl", HEADER)


def test_outputs_are_side_by_side_and_never_inputs(tmp_path: Path):
    pool = tmp_path / "pool.jsonl"
    pool.write_text("{}")
    named = tmp_path / "new" / "r.csv"
    assert outputs(named, pool) == Outputs(named, named.with_name("r.jsonl"), named.with_name("r.scores.jsonl"))
    with pytest.raises(UserError, match="would be written over, and it is an input"):
        outputs(tmp_path / "pool.csv", pool)
    with pytest.raises(UserError, match=r"ends in \.csv"):
        outputs(tmp_path / "r.xlsx", pool)
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        outputs(tmp_path / "d.csv", pool)
