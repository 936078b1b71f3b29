"""`mlx-grpo plan`, and how `mlx-grpo train` refuses a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.command import cli
from support.paths import SHARED
from support.tiny_models import QWEN3, tiny_config
from support.tiny_runs import rows_file

from mlx_grpo.config.files import load_config
from mlx_grpo.errors import UserError
from mlx_grpo.planning.plan import GB, parse_memory, plan, working_set

QWEN3_FOLDER = SHARED / "models" / "qwen3-0.6b"
needs_qwen3 = pytest.mark.skipif(not QWEN3_FOLDER.is_dir(), reason="needs Qwen3's real config.json")


def test_memory_is_in_gibibytes_and_metal_gets_two_thirds_or_three_quarters():
    assert parse_memory("16GB") == parse_memory("16") == parse_memory(" 16 gib") == 16 * GB
    assert working_set(16 * GB) / GB == pytest.approx(10.67, abs=0.01)
    assert working_set(64 * GB) == 48 * GB
    for text in ("much", "0GB", "-3", "16MB"):
        with pytest.raises(UserError, match="--memory"):
            parse_memory(text)


def test_shared_completion_prefixes_cost_one_more_pass_over_a_row(tiny_qwen3: Path):
    plain, branched = (
        plan(tiny_config(tiny_qwen3, branch_at=mark, prompts_per_step=3), "8GB", 50, None) for mark in (None, "x")
    )
    two_rows = plan(tiny_config(tiny_qwen3, num_generations=2, prompts_per_step=3), "8GB", 50, None)
    prefix = branched["step_flops"] - plain["step_flops"]
    assert 0 < prefix < two_rows["step_flops"] / 3  # one forward pass over a row, while a step trains on two
    assert branched["phases"] == plain["phases"]  # each completion is shorter by as much as its prompt is longer


@needs_qwen3
def test_qwen3_fits_16_gb_with_room_and_its_full_fine_tune_does_not(tmp_path: Path):
    (tmp_path / "config.json").write_text((QWEN3_FOLDER / "config.json").read_text())  # and nothing else
    lora = plan(load_config("qwen3", [f"model={tmp_path}"]), "16GB", 500, None)
    assert lora["fits"] and lora["peak"] < 0.8 * lora["available"]
    full = plan(load_config("qwen3-full", [f"model={tmp_path}"]), "16GB", 500, None)
    assert not full["fits"]
    assert "fine_tune_type=lora" in full["change"]
    assert plan(load_config("qwen3-full", [f"model={tmp_path}"]), "24GB", 500, None)["fits"]


@needs_qwen3
@pytest.mark.parametrize("name", ["qwen3", "qwen3-full", "published"])
@pytest.mark.parametrize("memory", ["4GB", "6GB", "8GB", "12GB"])
def test_the_named_change_makes_a_run_fit(name: str, memory: str):
    model = f"model={QWEN3_FOLDER}"
    result = plan(load_config(name, [model]), memory, 1000, None)
    if result["fits"] or "bits" in (result["change"] or "bits"):
        return
    changed = load_config(name, [model, *result["change"].split()])
    assert plan(changed, memory, 1000, None)["fits"]


GPT2 = {"model_type": "gpt2", "layer_norm_epsilon": 1e-5, "n_ctx": 8, "n_positions": 8, "vocab_size": 8}
GPT2 |= {"n_embd": 8, "n_head": 2, "n_layer": 1}
NESTED = {"model_type": "mistral3", "text_config": {**QWEN3, "model_type": "llama", "vocab_size": 8}}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (GPT2, "the gpt2 architecture is not supported"),
        (NESTED, "the mistral3 architecture is not supported"),
        ({"model_type": "qwen3_5_text"}, "no model of the type 'qwen3_5_text'"),
        ({"model_type": "../gpt2"}, "no model of the type '../gpt2'"),
    ],
    ids=["other-sizes", "nested", "unknown", "path"],
)
def test_plan_refuses_an_architecture_that_does_not_train(settings: dict[str, Any], reason: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=rf"{reason}.*; use a Qwen, Llama, Mistral"):
        plan(tiny_config(tmp_path), "16GB", 50, None)


def test_plan_measures_prompts_by_the_tokenizer_and_needs_one(tiny_qwen3: Path, tmp_path: Path):
    rows_file(tmp_path, completion="yes")
    (tmp_path / "c.yaml").write_text(
        f"model: {tiny_qwen3}\ndata: {{train: rows.jsonl}}\nwarm_start: {{steps: 1}}\n"
        "reward: {rubric: null, functions: ['support.toy_rewards:f']}\n"
    )
    done = cli("plan", "c.yaml", "--gflops", "100", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["lengths"] == {"prompt": len("say 0"), "target": len("yes") + 1, "shared": 0}
    assert result["hours"] == pytest.approx(result["run_flops"] / 100e9 / 3600)
    assert result["peak"] == max(result["phases"].values())
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text((tiny_qwen3 / "config.json").read_text())
    done = cli("plan", "c.yaml", "model=bare", folder=tmp_path)
    assert done.returncode == 2
    assert "--prompt-tokens" in done.stderr
    done = cli("plan", "c.yaml", "model=bare", "--prompt-tokens", "50", "--memory", "8GB", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5.3 GB available: fits" in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_plan_prints_measured_peaks_beside_predicted_ones(tiny_qwen3: Path, tmp_path: Path):
    rows_file(tmp_path, completion="yes")
    (tmp_path / "c.yaml").write_text(
        f"model: {tiny_qwen3}\ndata: {{train: rows.jsonl}}\nwarm_start: {{steps: 1}}\n"
        "reward: {rubric: published}\nmax_completion_length: 8\n"
    )
    done = cli("plan", "c.yaml", "--measure", "--gflops", "100", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {line.split("  ")[0].strip(): line.split() for line in done.stdout.splitlines()}
    assert [len(rows[phase]) for phase in ("decode", "update", "gradient", "warm start")] == [2, 2, 3, 4]
    assert any(line.split() == ["predicted", "measured"] for line in done.stdout.splitlines())
    assert "available: fits" in done.stdout
    done = cli("plan", "c.yaml", "--measure", "--gflops", "100", "--json", folder=tmp_path)
    result = json.loads(done.stdout)
    assert set(result["measured"]) == {"gradient", "warm start"}
    assert result["peak"] == max({**result["phases"], **result["measured"]}.values())
    done = cli("plan", "c.yaml", "--measure", "--memory", "16GB", folder=tmp_path)
    assert done.returncode == 2
    assert "--memory has no meaning beside it" in done.stderr


@needs_qwen3
def test_prediction_is_certain_only_above_one_and_a_half_limits():
    model = f"model={QWEN3_FOLDER}"
    peak = plan(load_config("qwen3", [model]), "16GB", 500, None)["peak"] / GB
    words = []
    for share in (0.9, 1.1, 1.4, 1.6):
        result = plan(load_config("qwen3", [model]), f"{peak / share * 1.5}", 500, None)
        words.append(result["verdict"].rpartition(": ")[2])
        assert result["fits"] == (share < 1)
    assert words == ["fits", "may not fit", "may not fit", "does not fit"]


@needs_qwen3
def test_a_warm_start_taken_from_another_run_costs_nothing(tmp_path: Path):
    overrides = [f"model={QWEN3_FOLDER}", "warm_start.steps=500", "warm_start.batch_size=64"]
    own = plan(load_config("qwen3", overrides), "16GB", 500, None)
    taken = plan(load_config("qwen3", [*overrides, f"warm_start.run={tmp_path}"]), "16GB", 500, None)
    none = plan(load_config("qwen3", [*overrides, "warm_start.steps=0"]), "16GB", 500, None)
    assert taken["phases"] == none["phases"] != own["phases"]
    assert taken["run_flops"] == none["run_flops"] < own["run_flops"]


def test_train_refuses_before_it_makes_a_run_folder(tiny_qwen3: Path, tmp_path: Path):
    rows_file(tmp_path)
    (tmp_path / "toy.py").write_text("def f(completions, **columns):\n    return [len(c) for c in completions]\n")
    (tmp_path / "c.yaml").write_text(
        f"model: {tiny_qwen3}\ndata: {{train: rows.jsonl}}\nmax_completion_length: 8\nmax_steps: 1\n"
        "reward: {rubric: null, functions: ['toy:f']}\n"
    )
    done = cli("train", "c.yaml", "prompts_per_step=1000000000", folder=tmp_path)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert not (tmp_path / "runs").exists()
    done = cli("train", "c.yaml", "prompts_per_step=1", "--force", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("memory: ")
