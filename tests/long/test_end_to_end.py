"""The three commands on SmolLM2-135M's real weights, and its export in plain transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command import cli
from support.paths import SMOLLM2

from mlx_grpo.reporting import tables
from mlx_grpo.runs import Run

MODEL = SMOLLM2
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not MODEL.is_dir(), reason="needs SmolLM2's weights: make model"),
]


def test_train_export_and_evaluate_real_weights(tmp_path: Path):
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers")
    small = [
        "warm_start.steps=2",
        "max_steps=1",
        "eval_steps=0",
        "prompts_per_step=1",
        "num_generations=4",
        "max_completion_length=24",
    ]
    trained = cli("train", "smollm2", f"model={MODEL}", *small, "--json", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    metrics = json.loads(trained.stdout)["metrics"]
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-3
    exported = cli("export", "--hf", "--json", folder=tmp_path)
    assert exported.returncode == 0, exported.stderr
    evaluated = cli("eval", "--episodes", "2", "--max-new-tokens", "24", "--json", folder=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    run = Run.find(tmp_path / "runs" / "latest")
    in_torch = run.episodes()
    assert tables.markdown_table(*tables.headline(run.results())) in (run.folder / "hf" / "README.md").read_text()
    in_mlx = cli("eval", "--episodes", "2", "--max-new-tokens", "24", "--backend", "mlx", folder=tmp_path)
    assert in_mlx.returncode == 0, in_mlx.stderr
    again = run.episodes()
    for model in ("baseline", "warm start", "trained"):
        assert [e["completion"] for e in again[model]] == [e["completion"] for e in in_torch[model]], model

    folder = json.loads(exported.stdout)["folder"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
