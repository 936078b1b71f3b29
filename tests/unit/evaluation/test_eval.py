"""The whole evaluation with a tiny model on both back ends, alone and beside other runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from support.tiny_runs import evaluate, reward_by

from mlx_grpo.config.schema import RewardConfig
from mlx_grpo.data.dataset import read_rows
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation import torch_check
from mlx_grpo.evaluation.episodes import heldout_prompts, score_completions
from mlx_grpo.evaluation.eval import Evaluation, thought_notes
from mlx_grpo.evaluation.statistics import NO_SCORE
from mlx_grpo.evaluation.summary import outcome_of
from mlx_grpo.evaluation.torch_check import check_in_torch
from mlx_grpo.reporting import tables
from mlx_grpo.rewards import load_judge, load_reward
from mlx_grpo.runs import Run, read_episodes


def test_torch_and_mlx_give_the_same_completions(run: Path):
    pytest.importorskip("torch", reason="needs torch")
    in_torch = evaluate(run, "torch")
    assert (run / "hf" / "model.safetensors").is_file()
    in_mlx = evaluate(run, "mlx")
    for model in ("baseline", "warm start", "trained"):
        assert [e["completion"] for e in in_torch.episodes[model]] == [e["completion"] for e in in_mlx.episodes[model]]
    assert {path.name for path in in_torch.written} == {
        "eval.json",
        "episodes.jsonl",
        "training_curves.png",
        "components_by_step.png",
        "completion_lengths.png",
        "calibration.png",
        "before_after.png",
        "baseline_vs_trained.png",
        "figures.png",
        "reward_components.png",
        "reward_distribution.png",
    }


def test_completions_that_end_in_their_thought_are_counted_by_model():
    prompts = [Prompt("a", "<think>\n", (1,)), Prompt("b", "<think>\n", (1,))]
    texts = {"baseline": ["hm", "hm</think>{}"], "trained": ["</think>{}", "</think>{}"]}
    (note,) = thought_notes(prompts, texts, 12)
    assert note.startswith("baseline: 1 of 2 completions end inside their thought")
    assert "raise eval.max_new_tokens (12)" in note


def test_episode_holds_what_comes_after_a_thought_that_the_prompt_began():
    prompts = [Prompt("a", "<think>\n", (1,)), Prompt("b", "<think>\n", (1,)), Prompt("c", "", (1,))]
    reward = load_reward(RewardConfig(**reward_by("constant")))
    episodes = score_completions(prompts, ["hm</think> yes", "hm", "hm"], reward)
    assert [(e["completion"], e["characters"]) for e in episodes] == [("yes", 3), ("", 0), ("hm", 2)]


def test_figures_follow_from_the_episodes_that_are_written_beside_them(run: Path, tmp_path: Path):
    evaluation = evaluate(run, "mlx", out=tmp_path / "new")
    saved = json.loads((tmp_path / "new" / "eval.json").read_text())
    assert {path.parent for path in evaluation.written} == {tmp_path / "new", tmp_path / "new" / "plots"}
    assert saved == evaluation.results
    assert "models" not in saved
    assert read_episodes(tmp_path / "new" / "eval.json") == evaluation.episodes
    episodes = evaluation.episodes["trained"]
    assert [e["prompt_id"] for e in episodes] == [row["id"] for row in read_rows(run.parents[1] / "heldout.jsonl")]
    assert saved["means"]["trained"]["reward"] == pytest.approx(np.mean([e["reward"] for e in episodes]))
    assert saved["majority_class_rate"] == pytest.approx(2 / 3)
    assert saved["resampled_by"] == "episode"  # three rows are too few clusters
    gain = saved["differences"]["trained"]["characters"]
    base = evaluation.episodes["baseline"]
    assert gain["mean"] == pytest.approx(
        np.mean([e["characters"] - b["characters"] for e, b in zip(episodes, base, strict=True)])
    )
    assert gain["low"] <= gain["mean"] <= gain["high"]
    assert 0 < gain["p"] <= 1
    assert saved["over_warm_start"]["trained"] == saved["grpo_over_warm_start"]
    figures = {"balanced_accuracy", "roc_auc", "spearman", "ndcg_at_10", "valid"}
    assert figures <= saved["means"]["trained"].keys() == saved["grpo_over_warm_start"].keys()
    assert list(episodes[0]["components"]) == saved["components"]
    assert set(saved["components"]) == {
        "format_valid",
        "decision_match",
        "score_alignment",
        "reason_quality",
        "length_penalty",
        "no_hallucination",
    }


def test_completion_without_a_decision_is_wrong_and_ranks_last(run: Path):
    prompts = heldout_prompts(Run(run))
    labels = [prompt.columns["decision"] for prompt in prompts]
    completions = [
        f'<think>no</think>{{"decision":"{labels[0]}","score":"0.3","reasons":[]}}',
        f"{{'decision':'{labels[1]}','score':7}}",
        "I would hire them.",
    ]
    config = Run(run).config
    grading = load_reward(config.reward), load_judge(config)
    episodes = score_completions(prompts, completions, *grading)
    assert [e["correct"] for e in episodes] == [True, True, False]
    assert [e["score"] for e in episodes] == [0.3, 1.0, None]
    assert [e["valid"] for e in episodes] == [True, False, False]  # single quotes are no JSON
    around, twice = '{"decision":"reject"} I hope', '{"score":0.1,"score":0.2}'
    others = score_completions(prompts, [around, twice, "{}"], *grading)
    assert [e["valid"] for e in others] == [False, False, True]
    assert [e["characters"] for e in episodes] == [len(completions[0]) - 17, len(completions[1]), 18]
    assert [e["fit"] for e in episodes] == [prompt.columns["score"] for prompt in prompts]
    outcome = outcome_of(episodes)
    assert outcome.labelled["score"].tolist() == [0.3, 1.0, NO_SCORE]
    assert outcome.labelled["correct"].tolist() == [True, True, False]


def test_prompts_that_chose_the_adapter_are_not_evaluated(run: Path, tmp_path: Path):
    config = Run(run).config.model_dump() | {"eval_steps": 1}
    config["eval"] |= {"episodes": 1, "validation": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    ids = [prompt.id for prompt in heldout_prompts(Run(run))]
    assert [prompt.id for prompt in heldout_prompts(Run(tmp_path), 3)] == ids[:2]
    assert [prompt.id for prompt in heldout_prompts(Run(run), 3, [Run(tmp_path)])] == ids[:2]


def test_other_runs_are_rows_beside_the_first_on_the_same_prompts(
    run: Path, others: list[Path], evaluations: dict[bool, Evaluation]
):
    alone, results = evaluations[False], evaluations[True].results
    episodes = evaluations[True].episodes
    assert alone.results["runs"] == {"trained": run.name}
    assert list(results["runs"].values()) == [run.name, *(path.name for path in others)]
    assert list(episodes) == [
        "baseline",
        "warm start",
        "trained",
        "warm start, seed 1",
        "trained, seed 1",
        "trained, shuffled reward, no warm start",
    ]
    for name in ("baseline", "warm start", "trained"):
        assert episodes[name] == alone.episodes[name]
    assert list(results["over_warm_start"]) == ["trained", "trained, seed 1"]
    pair = [results["means"][name]["reward"] for name in ("trained", "trained, seed 1")]
    over_seeds = results["seeds"]["trained, 2 seeds"]["figures"]["reward"]
    assert over_seeds["mean"] == pytest.approx(np.mean(pair))
    assert over_seeds["sd"] == pytest.approx(abs(pair[0] - pair[1]) / np.sqrt(2))
    for of_model in episodes.values():
        assert [e["prompt_id"] for e in of_model] == [e["prompt_id"] for e in episodes["baseline"]]


def test_pytorch_completes_the_first_prompts_again(run: Path, tmp_path: Path):
    pytest.importorskip("torch", reason="needs torch")
    evaluation = evaluate(run, "mlx", torch_episodes=2, out=tmp_path / "out")
    own = [episode["reward"] for episode in evaluation.episodes["trained"][:2]]
    assert evaluation.results["in_torch"] == {
        "episodes": 2,
        "same": 2,
        "reward": pytest.approx(np.mean(own)),
        "reward_in_mlx": pytest.approx(np.mean(own)),
        "device": "cpu",
    }
    assert "2 of 2 completions are MLX's" in tables.in_torch(evaluation.results)
    with pytest.raises(UserError, match="--torch-episodes: every episode is completed in PyTorch already"):
        evaluate(run, "torch", torch_episodes=2)


def test_mean_reward_in_pytorch_leaves_out_prompts_without_a_reward(monkeypatch: pytest.MonkeyPatch):
    def checked(*rewards: float) -> dict:
        episodes = [{"completion": "a", "reward": reward} for reward in rewards]
        completer = SimpleNamespace(**dict.fromkeys(("settings", "progress", "ranks")))
        completer.run, completer.store = SimpleNamespace(folder=Path()), Path("x")
        return check_in_torch(completer, [], episodes, lambda prompts, texts: episodes, "cpu")

    monkeypatch.setattr(torch_check, "replace", lambda settings, **changes: settings)
    monkeypatch.setattr(torch_check, "Completer", lambda *a: SimpleNamespace(complete=lambda *b: []))
    assert checked(0.5, float("nan"), 1.0)["reward"] == 0.75
    nothing = checked(float("nan"))
    assert (nothing["reward"], nothing["reward_in_mlx"]) == (None, None)
    assert tables.in_torch({"in_torch": nothing}).endswith("reward –, in MLX –")


def test_out_that_cannot_be_written_is_refused_before_the_work(run: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out: .*file can't be made"):
        evaluate(run, "mlx", out=tmp_path / "file")


def test_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="not a run folder"):
        evaluate(tmp_path, "mlx")
