"""Evaluations of rows that have the user's own reward function, judge and clusters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from support.tiny_runs import evaluate

from mlx_grpo.cli.eval import print_brief, print_comparison
from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.episodes import cluster_column, heldout_prompts
from mlx_grpo.reporting import tables
from mlx_grpo.runs import Run
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.trainer import train


def test_reward_function_of_the_user_has_no_ranking(run: Path, tmp_path: Path):
    own = {"rubric": None, "functions": ["support.toy_rewards:only_long"]}
    config = Run(run).config.model_dump() | {"reward": own, "output_dir": str(tmp_path), "max_completion_length": 4}
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"say {i}", "completion": "a"}) for i in "abc")
    )
    config["data"] = {"train": str(tmp_path / "rows.jsonl"), "heldout": str(tmp_path / "rows.jsonl")}
    config["eval"]["max_new_tokens"] = 4  # only_long applies to none of them
    evaluation = evaluate(train(validate(config), SilentReporter()).folder, "mlx")
    trained = evaluation.results["means"]["trained"]
    assert trained == {"reward": None, "characters": pytest.approx(4, abs=4), "only_long": None}
    assert not {"calibration.png", "before_after.png"} & {path.name for path in evaluation.written}
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_comparison(console, evaluation.results)
    assert "–" in console.export_text()
    print_brief(console, evaluation.results, evaluation.episodes)
    shown = console.export_text()
    assert "before, reward –:" in shown and "nan" not in shown


def own_judge_config(run: Path, folder: Path, cluster: str | None = "text") -> Config:
    """Return the config of a run whose rows have labels, and whose judge is the user's own."""
    own = {"rubric": None, "functions": ["support.toy_rewards:share_of_letters"]}
    rows = [{"prompt": f"say {i}", "gold": i % 3 / 2, "text": i // 2, "completion": "a"} for i in range(12)]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = Run(run).config.model_dump() | {"output_dir": str(folder / "runs"), "eval_steps": 1}
    config["reward"] = own | {"judge": "support.toy_rewards:labelled_figures"}
    config["data"] = {"train": str(folder / "rows.jsonl"), "heldout": str(folder / "rows.jsonl")}
    config["eval"] |= {"episodes": 11, "validation": 1, "max_new_tokens": 4, "cluster": cluster}
    return validate(config)


def test_judge_of_the_user_has_ranking_figures_clusters_and_pictures(run: Path, tmp_path: Path):
    trained = train(own_judge_config(run, tmp_path), SilentReporter())
    assert "eval/correct" in trained.metrics()[-1]
    assert "eval/fit" not in trained.metrics()[-1]
    evaluation = evaluate(trained.folder, "mlx")
    results = evaluation.results
    assert results["figures"] == ["correct"]
    assert results["resampled_by"] == "text"
    assert results["majority_class_rate"] == pytest.approx(7 / 11)  # every third fit is below one half
    means = results["means"]["trained"]
    assert {"correct", "balanced_accuracy", "roc_auc", "spearman", "ndcg_at_10"} <= means.keys()
    assert not {"score", "fit", "positive"} & means.keys()
    assert {"calibration.png", "before_after.png", "figures.png"} <= {path.name for path in evaluation.written}
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_comparison(console, results)
    assert "over whole texts" in " ".join(console.export_text().split())
    assert "accuracy (majority 0.64)" in tables.headline(results)[0]


def test_cluster_that_rows_lack_is_refused(run: Path, tmp_path: Path):
    config = own_judge_config(run, tmp_path, cluster="book")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump()))
    with pytest.raises(UserError, match=r"eval\.cluster: row rows-1 has no column 'book'"):
        cluster_column(config, heldout_prompts(Run(tmp_path)))
