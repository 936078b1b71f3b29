"""The whole evaluation with a tiny model on both back ends, alone and beside other runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import yaml
from rich.console import Console
from support.command import cli
from support.paths import BUNDLED_ROWS
from support.tiny_models import tiny_config
from support.tiny_runs import reward_by

from mlx_grpo.cli.eval import print_brief, print_comparison
from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config, RewardConfig
from mlx_grpo.data.dataset import read_rows
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation import torch_check
from mlx_grpo.evaluation.episodes import cluster_column, heldout_prompts, score_completions
from mlx_grpo.evaluation.eval import Evaluation, run_eval, thought_notes
from mlx_grpo.evaluation.generators import UNFINISHED
from mlx_grpo.evaluation.statistics import NO_SCORE
from mlx_grpo.evaluation.summary import outcome_of
from mlx_grpo.evaluation.torch_check import check_in_torch
from mlx_grpo.export.export import export_run
from mlx_grpo.reporting import tables
from mlx_grpo.reporting.example import typical
from mlx_grpo.rewards import load_judge, load_reward
from mlx_grpo.runs import Run, read_episodes
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.trainer import train


@pytest.fixture(scope="module")
def run(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with a warm start, on three rows of the bundled data."""
    folder = tmp_path_factory.mktemp("run")
    for split in ("train", "heldout"):
        rows = read_rows(BUNDLED_ROWS / f"{split}.jsonl.gz")[:3]
        for row in rows:
            row["prompt"] = [{"role": "user", "content": row["prompt"][-1]["content"][:60]}]
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = tiny_config(
        tiny_qwen3,
        data={"train": str(folder)},
        warm_start={"steps": 2, "batch_size": 2},
        output_dir=str(folder / "runs"),
        eval={"episodes": 3, "max_new_tokens": 12, "batch_size": 2},
        max_completion_length=12,
    )
    return train(config, SilentReporter()).folder


def evaluate(run: Path, backend: str, **options: object) -> Evaluation:
    settings = {"episodes": None, "max_new_tokens": None, "progress": lambda *a: None, **options}
    evaluation = run_eval(str(run), backend=backend, device="cpu", **settings)
    assert evaluation is not None
    return evaluation


@pytest.fixture(scope="module")
def others(run: Path) -> list[Path]:
    """Runs that differ from the first in their seed, and in having had no warm start."""
    folders = []
    for number, changes in enumerate(({"seed": 1}, {"warm_start": {"steps": 0}, "reward": {"shuffle": True}})):
        output_dir = str(run.parents[1] / f"others{number}")
        changed = validate({**Run(run).config.model_dump(), **changes, "output_dir": output_dir})
        folders.append(train(changed, SilentReporter()).folder)
    return folders


@pytest.fixture(scope="module")
def evaluations(run: Path, others: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Evaluation]:
    """The first run evaluated alone (False) and beside the others (True), in a folder of its own."""
    folder = tmp_path_factory.mktemp("out")
    return {
        several: evaluate(run, "mlx", others=[str(path) for path in others if several], out=folder / str(several))
        for several in (False, True)
    }


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


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("several", [False, True])
def test_tables_fit_the_terminal_and_name_every_model(evaluations: dict[bool, Evaluation], width: int, several: bool):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_comparison(console, evaluations[several].results)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(" ".join(lines).split())
    for name in ("baseline", "warm start", "reason_quality", "total", "ROC AUC", "Spearman", "NDCG@10", "What GRPO"):
        assert name in words
    assert ("trained, 2 seeds" in words) == several
    rows = [line for line in lines if line.startswith("baseline ")]
    assert all("…" not in row and "0." in row for row in rows)


@pytest.mark.parametrize("width", [80, 120])
def test_brief_result_is_a_table_of_fifteen_lines_and_two_completions(evaluations: dict[bool, Evaluation], width: int):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    evaluation = evaluations[False]
    print_brief(console, evaluation.results, evaluation.episodes)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    table, _, rest = text.partition("GRPO over the warm start")
    assert len(table.splitlines()) <= 17  # with two lines on what was evaluated
    for name in ("reward (strict)", "reward (published)", "accuracy", "ROC AUC", "valid", "coverage", "confirmed"):
        assert name in table
    assert evaluation.episodes["trained"][typical(evaluation.episodes)]["prompt_id"] in " ".join(rest.split())
    assert "\nbefore, reward 0" in rest and "\nafter, reward 0" in rest


@pytest.mark.parametrize(
    ("reward", "accuracy", "no_change"),
    [((-0.02, 0.05), (-0.1, 0.0), True), ((0.01, 0.05), (-0.1, 0.1), False), ((-0.02, 0.05), (-0.1, -0.01), False)],
)
def test_grpo_without_an_effect_is_called_that(
    reward: tuple[float, float], accuracy: tuple[float, float], no_change: bool
):
    gains = {
        key: {"mean": sum(ends) / 2, "low": ends[0], "high": ends[1], "p": 0.5}
        for key, ends in (("reward", reward), ("correct", accuracy))
    }
    assert tables.grpo_gain({"grpo_over_warm_start": gains}).endswith("; within chance") == no_change


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


def test_export_after_the_evaluation_has_a_card_with_its_tables(run: Path, tmp_path: Path):
    evaluation = evaluate(run, "mlx")
    folder, summary = export_run(str(run), ["hf"], tmp_path / "out")
    card = (folder / "README.md").read_text()
    assert (folder / "training_curves.png").is_file()
    assert str(run.parents[1]) not in card
    assert tables.markdown_table(*tables.headline(evaluation.results)) in card
    assert "enable_thinking=False" in card
    assert "model.safetensors" in summary.files


def test_export_before_the_evaluation_has_a_card_with_its_tables_after_it(run: Path, tmp_path: Path):
    copied = Path(shutil.copytree(run, tmp_path / "copied", ignore=shutil.ignore_patterns("hf*", "eval.json", "plots")))
    assert evaluate(copied, "mlx").card is None  # there is no export yet
    (copied / "eval.json").unlink()
    shutil.rmtree(copied / "plots")
    export_run(str(copied), ["hf"], verify=False)
    card = copied / "hf" / "README.md"
    assert "Not evaluated yet." in card.read_text()
    evaluation = evaluate(copied, "mlx")
    assert evaluation.card == card
    assert tables.markdown_table(*tables.headline(evaluation.results)) in card.read_text()
    assert (copied / "hf" / "before_after.png").is_file()


def test_export_of_an_older_adapter_keeps_its_card(run: Path, tmp_path: Path):
    copied = Path(shutil.copytree(run, tmp_path / "copied", ignore=shutil.ignore_patterns("hf*")))
    export_run(str(copied), ["hf"], verify=False)
    before = (copied / "hf" / "README.md").read_text()
    later = (copied / "hf" / "export.json").stat().st_mtime + 1
    os.utime(copied / "adapter" / "adapters.safetensors", (later, later))
    assert evaluate(copied, "mlx", episodes=2).card is None
    assert (copied / "hf" / "README.md").read_text() == before


def test_model_exported_for_the_evaluation_has_no_card(run: Path, tmp_path: Path):
    pytest.importorskip("torch", reason="needs torch")
    copied = Path(shutil.copytree(run, tmp_path / "copied", ignore=shutil.ignore_patterns("hf*")))
    evaluate(copied, "torch", out=tmp_path / "out")
    assert (copied / "hf" / "model.safetensors").is_file()
    assert not list(copied.glob("hf*/README.md"))


def test_out_that_cannot_be_written_is_refused_before_the_work(run: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out: .*file can't be made"):
        evaluate(run, "mlx", out=tmp_path / "file")


def test_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="not a run folder"):
        evaluate(tmp_path, "mlx")


@pytest.mark.parametrize("backend", ["mlx", "torch"])
def test_interrupted_evaluation_continues_with_the_batch_it_was_in(run: Path, tmp_path: Path, backend: str):
    whole, done = [], []
    uncut = evaluate(run, backend, out=tmp_path / "whole", progress=lambda *call: whole.append(call))

    def unplug(*call: object) -> None:
        done.append(call)
        if len(done) == len(whole) // 2 + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(run, backend, out=tmp_path / "cut", progress=unplug)
    with (tmp_path / "cut" / UNFINISHED).open("a") as file:
        file.write('{"key": "torn')
    resumed = evaluate(run, backend, out=tmp_path / "cut", progress=lambda *call: done.append(call))
    assert done == whole
    assert resumed.episodes == uncut.episodes
    assert not (tmp_path / "cut" / UNFINISHED).exists()


def test_processes_that_share_the_prompts_write_the_same_files_as_one(run: Path, tmp_path: Path):
    pytest.importorskip("torch", reason="needs torch")
    whole = evaluate(run, "mlx", torch_episodes=2, out=tmp_path / "one")
    options = ("--device", "cpu", "--out", "two", "--json", "--processes", "2")
    shared = cli("eval", str(run), "--backend", "mlx", "--torch-episodes", "2", *options, folder=tmp_path)
    assert shared.returncode == 0, shared.stderr
    for name in ("eval.json", "episodes.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert json.loads(shared.stdout) == json.loads(json.dumps(whole.results))
    refused = cli("eval", str(run), *options, folder=tmp_path)
    assert refused.returncode == 2
    assert "add --backend mlx" in refused.stderr


def test_completions_of_another_adapter_are_not_used(run: Path, tmp_path: Path):
    copied = shutil.copytree(run, tmp_path / "copied")

    weights = mx.load(str(run / "warm_start" / "adapters.safetensors"))
    for name in ("warm_start", "adapter"):
        changed = {key: value * (2 if name == "adapter" else 1) for key, value in weights.items()}
        mx.save_safetensors(str(copied / name / "adapters.safetensors"), changed)

    def unplug(model: str, done: int, total: int) -> None:
        if model == "trained":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(copied, "mlx", progress=unplug)
    shutil.copyfile(run / "warm_start" / "adapters.safetensors", copied / "adapter" / "adapters.safetensors")
    episodes = evaluate(copied, "mlx").episodes
    assert episodes["trained"] == episodes["warm start"]


def test_models_with_the_same_weights_are_completed_once(run: Path, tmp_path: Path):
    copied = shutil.copytree(run, tmp_path / "copied")
    for name in ("adapters.safetensors", "adapter_config.json"):
        shutil.copyfile(run / "warm_start" / name, copied / "adapter" / name)
    completed = []
    episodes = evaluate(copied, "mlx", progress=lambda model, *_: completed.append(model)).episodes
    assert set(completed) == {"baseline", "warm start"}
    assert episodes["trained"] == episodes["warm start"]
