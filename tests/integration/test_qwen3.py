"""The example configuration runs on Qwen3's real tokenizer and template, with a model shrunk to seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3
from support.paths import SHARED

from mlx_grpo import runs
from mlx_grpo.config.files import load_config
from mlx_grpo.export.export import export_run
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.trainer import train

MODEL = SHARED / "models" / "qwen3-0.6b"
pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason="needs Qwen3's real tokenizer, which a bare clone lacks")


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen3-0.6B's files with random weights of two narrow layers; vocabulary, tying and norms as they are."""
    folder = tmp_path_factory.mktemp("qwen3") / "Qwen3-0.6B"
    folder.mkdir()
    for file in MODEL.iterdir():
        shutil.copyfile(file, folder / file.name)
    settings = json.loads((MODEL / "config.json").read_text())
    settings |= {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}
    settings |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_window_layers": 2}
    (folder / "config.json").write_text(json.dumps(settings))
    mx.random.seed(0)
    model = qwen3.Model(qwen3.ModelArgs.from_dict(settings))
    mx.save_safetensors(
        str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), metadata={"format": "pt"}
    )
    return folder


@pytest.mark.parametrize("name", ["qwen3", "qwen3-full", "published"])
def test_the_example_configs_train_and_export(name: str, shrunk: Path, tmp_path: Path):
    overrides = [f"model={shrunk}", "max_steps=2", "warmup_steps=0", "max_completion_length=16", "prompts_per_step=1"]
    overrides += ["warm_start.steps=1", "warm_start.warmup_steps=0", "warm_start.batch_size=1"]
    config = load_config(name, [*overrides, "num_generations=2", f"output_dir={tmp_path}"])
    run = train(config, SilentReporter()).folder
    metrics = [m for m in runs.read_jsonl(run / runs.METRICS) if "reward" in m]
    assert [m["step"] for m in metrics] == [0, 1]
    assert all(m["sampling/sampling_logp_difference/max"] < 1e-3 for m in metrics)
    folder, summary = export_run(str(run), ["hf"])
    assert summary.dtype == "float32"
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Qwen3ForCausalLM"]
