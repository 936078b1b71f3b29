"""Pools of candidates, and rankings of them by a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

from mlx_grpo import Ranker
from mlx_grpo.ranking.summary import RankSummary

JOB = "Job Description: Data Analyst\nRequired: Python, SQL\n3-6 years of experience\n"
"""A job description."""


def profile(name: str, level: str = "advanced", title: str = "Analyst", skill: str = "Python") -> dict:
    """Return a profile with one skill."""
    return {
        "candidate_id": name,
        "profile": {"current_title": title, "years_of_experience": 4},
        "skills": [{"name": skill, "proficiency": level, "duration_months": 20}],
        "career_history": [{"title": title, "company": "Acme", "duration_months": 40}],
    }


def pool_of(count: int) -> list[dict]:
    """Return profiles, every third an expert, every fourth unsure."""
    return [
        profile(f"C{i}", "expert" if i % 3 == 0 else "advanced", "unsure Analyst" if i % 4 == 1 else "Analyst")
        for i in range(count)
    ]


def files_in(folder: Path, pool: list) -> tuple[Path, Path]:
    """Write the job description and a pool; return their paths."""
    folder.mkdir(exist_ok=True)
    (folder / "job.txt").write_text(JOB)
    lines = (line if isinstance(line, str) else json.dumps(line) for line in pool)
    (folder / "pool.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "job.txt", folder / "pool.jsonl"


def ranker(model: Path, **changes: object) -> Ranker:
    """Return a ranker with short answers and small batches."""
    return Ranker(model, **{"token_budget": 2000, "max_new_tokens": 20, "batch_size": 4, **changes})


def rank(
    model: Path, folder: Path, pool: list, batch_size: int | None = 4, **changes: object
) -> tuple[RankSummary, list[dict]]:
    """Rank a pool in a folder; return the summary and the rows of the result."""
    summary = ranker(model, batch_size=batch_size).rank(*files_in(folder, pool), folder / "r.csv", **changes)
    return summary, [json.loads(line) for line in summary.jsonl.read_text().splitlines()]
