"""A run folder's evaluation: figures in eval.json, episodes in episodes.jsonl, both in eval.json by 0.1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.paths import ROOT

from mlx_grpo.errors import UserError
from mlx_grpo.reporting import tables
from mlx_grpo.runs import Run, read_episodes, read_results, write_results

NO_GAIN = {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
OLD_FIGURES = {
    "rubric": "strict",
    "means": {"baseline": {"reward": 0.1, "form": 0.2}, "trained": {"reward": 0.3, "form": 0.4}},
    "differences": {"trained": {"reward": NO_GAIN, "form": NO_GAIN}},
    "resampled_by": "episode",
}
FIGURES = {**OLD_FIGURES, "components": ["form"]}
EPISODES = {
    model: [{"prompt_id": "a", "completion": "é\n", "reward": reward, "components": {"form": None}}]
    for model, reward in (("baseline", 0.1), ("trained", 0.3))
}


def test_run_reads_figures_and_episodes_as_they_were_written(tmp_path: Path):
    written = write_results(tmp_path, FIGURES, EPISODES)
    assert [path.name for path in written] == ["eval.json", "episodes.jsonl"]
    assert "prompt_id" not in (tmp_path / "eval.json").read_text()
    assert Run(tmp_path).results() == FIGURES
    assert Run(tmp_path).episodes() == EPISODES


def test_run_reads_the_single_file_of_an_old_evaluation(tmp_path: Path):
    (tmp_path / "eval.json").write_text(json.dumps({**OLD_FIGURES, "models": EPISODES}))
    assert Run(tmp_path).results() == FIGURES
    assert Run(tmp_path).episodes() == EPISODES


def test_old_single_file_keeps_its_episodes_beside_new_ones(tmp_path: Path):
    (tmp_path / "old.json").write_text(json.dumps({**OLD_FIGURES, "models": EPISODES}))
    write_results(tmp_path, FIGURES, {model: [{"prompt_id": "b"}] for model in EPISODES})
    assert read_episodes(tmp_path / "old.json") == EPISODES


def test_figures_alone_give_the_tables(tmp_path: Path):
    write_results(tmp_path, FIGURES, EPISODES)
    (tmp_path / "episodes.jsonl").unlink()
    study = (tmp_path / "eval.json").rename(tmp_path / "study.json")
    assert read_episodes(study) == {}
    _, rows = tables.components(read_results(study))
    assert [row[:3] for row in rows] == [["form", "0.200", "0.400"], ["total", "0.100", "0.300"]]


def test_run_without_an_evaluation_has_neither_figures_nor_episodes(tmp_path: Path):
    assert Run(tmp_path).results() is None
    assert Run(tmp_path).episodes() == {}


@pytest.mark.parametrize("text", ['{"models": ', "[]", "{}", '{"models": {"baseline": []}}', json.dumps(OLD_FIGURES)])
def test_damaged_figures_are_refused_with_a_remedy(tmp_path: Path, text: str):
    (tmp_path / "eval.json").write_text(text)
    with pytest.raises(UserError, match=r"eval\.json: is not what .* run it again"):
        Run(tmp_path).results()


def test_episodes_of_another_evaluation_are_refused(tmp_path: Path):
    write_results(tmp_path, FIGURES, {**EPISODES, "warm start": EPISODES["baseline"]})
    with pytest.raises(UserError, match=r"episodes\.jsonl: holds other models than eval\.json; run `mlx-grpo eval`"):
        Run(tmp_path).episodes()


def test_episodes_that_name_no_model_are_refused(tmp_path: Path):
    write_results(tmp_path, FIGURES, EPISODES)
    (tmp_path / "episodes.jsonl").write_text('{"prompt_id": "a"}\n')
    with pytest.raises(UserError, match="run it again"):
        Run(tmp_path).episodes()


OTHERS = ("baselines", "precision", "prompt", "redrob", "speed")
STUDIES = [path for path in sorted((ROOT / "docs" / "results").glob("*.json")) if path.stem not in OTHERS]


@pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
def test_kept_results_of_the_documents_give_tables(path: Path):
    results = read_results(path)
    models = list(results["means"])
    for table in (tables.headline, tables.all_components, tables.figures):
        assert [row[0] for row in table(results)[1]] == models
