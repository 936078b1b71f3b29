"""A ranking goes on where it was cut off, and asks nothing twice that did not change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.answering_model import make_answering_model
from support.command import cli
from support.pools import JOB, files_in, pool_of, profile, rank, ranker

from mlx_grpo.errors import UserError


def test_killed_ranking_resumes_to_the_same_files(model: Path, tmp_path: Path):
    pool = pool_of(60)
    whole, _ = rank(model, tmp_path / "whole", pool)
    jd, candidates = files_in(tmp_path / "cut", pool)
    scores = tmp_path / "cut" / "r.scores.jsonl"
    named = ["--model", str(model), "--jd", str(jd), "--candidates", str(candidates), "--out", str(jd.parent / "r.csv")]
    options = ["--token-budget", "2000", "--max-new-tokens", "20", "--batch-size", "4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlx_grpo.cli", "rank", *named, *options], stdout=subprocess.DEVNULL
    )
    while not scores.is_file() or scores.read_bytes().count(b"\n") < 14:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "cut" / "r.csv").exists()
    resumed = ranker(model).rank(jd, candidates, tmp_path / "cut" / "r.csv")
    assert 12 <= resumed.reused < 60
    for name in ("r.csv", "r.jsonl", "r.scores.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (whole.csv.parent / name).read_bytes(), name


def test_two_processes_write_the_same_files_as_one(model: Path, tmp_path: Path):
    pool = [*pool_of(22), *pool_of(4), "{not json"]
    whole, _ = rank(model, tmp_path / "one", pool)
    files_in(tmp_path / "two", pool)
    named = ["--model", str(model), "--jd", "job.txt", "--candidates", "pool.jsonl", "--out", "r.csv"]
    options = ["--token-budget", "2000", "--max-new-tokens", "20", "--batch-size", "4", "--processes", "2"]
    done = cli("rank", *named, *options, folder=tmp_path / "two")
    assert done.returncode == 0, done.stderr
    for name in ("r.csv", "r.jsonl", "r.scores.jsonl"):
        assert (tmp_path / "two" / name).read_bytes() == (whole.csv.parent / name).read_bytes(), name


def test_partly_logged_batch_is_answered_again_as_a_whole(model: Path, tmp_path: Path):
    whole, _ = rank(model, tmp_path, pool_of(12))
    scores = tmp_path / "r.scores.jsonl"
    before = {path: path.read_bytes() for path in (whole.csv, whole.jsonl, scores)}
    scores.write_bytes(b"".join(scores.read_bytes().splitlines(keepends=True)[:7]))  # the header and six answers
    again, _ = rank(model, tmp_path, pool_of(12))
    assert again.reused == 4
    assert {path: path.read_bytes() for path in before} == before


def test_only_batches_that_changed_in_the_pool_are_answered_again(model: Path, tmp_path: Path):
    pool = [profile(f"C{i}") for i in range(8)]
    rank(model, tmp_path, pool)
    summary, records = rank(model, tmp_path, [*pool[:7], profile("C7", "expert"), profile("C8", "expert")])
    assert summary.reused == 4
    assert [record["candidate_id"] for record in records[:2]] == ["C7", "C8"]
    assert len(records) == 9


def test_finished_ranking_with_another_top_k_loads_no_model(model: Path, tmp_path: Path):
    rank(model, tmp_path, pool_of(12))
    second = ranker(model)
    summary = second.rank(tmp_path / "job.txt", tmp_path / "pool.jsonl", tmp_path / "r.csv", top_k=3)
    assert summary.reused == 12
    assert "policy" not in vars(second), "nothing was loaded"
    records = [json.loads(line) for line in summary.jsonl.read_text().splitlines()]
    assert [record["rank"] for record in records if record["valid"]] == [1, 2, 3]


def test_scores_of_another_job_or_model_are_not_mixed_in(model: Path, tmp_path: Path):
    rank(model, tmp_path, pool_of(4))
    jd, pool = tmp_path / "job.txt", tmp_path / "pool.jsonl"
    jd.write_text(JOB.replace("3-6", "5-9"))
    with pytest.raises(UserError, match=": job changed since"):
        ranker(model).rank(jd, pool, tmp_path / "r.csv")
    jd.write_text(JOB)
    with pytest.raises(UserError, match=": settings changed since"):
        ranker(model, seed=1).rank(jd, pool, tmp_path / "r.csv")
    other = make_answering_model(tmp_path / "other")
    assert ranker(other).model.fingerprint() == ranker(model).model.fingerprint(), "a copy is the same model"
    settings = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "{{ messages }}"}))
    with pytest.raises(UserError, match=": model changed since"):
        ranker(other).rank(jd, pool, tmp_path / "r.csv")
