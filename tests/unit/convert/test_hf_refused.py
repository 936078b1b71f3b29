"""What an export to Hugging Face refuses, naming all that does not fit, and leaving the disk as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.convert_cases import save_adapter

from convert.hf import export_hf
from mlx_grpo.errors import UserError

# isort: split
import mlx.core as mx

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def problems_of(base: Path, out: Path, **options: object) -> list[str]:
    """The problems named; checks that a refusal changes nothing on disk."""
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        export_hf(base, out, **options)
    assert sorted(out.parent.rglob("*")) == before
    return caught.value.problems


def test_every_adapter_tensor_that_does_not_fit_is_listed(llama_base, llama_lora, tmp_path):
    weights = mx.load(str(llama_lora / "adapters.safetensors"))
    prefix = "model.layers.0.self_attn"
    weights["model.layers.7.mlp.up_proj.lora_a"] = mx.zeros((64, 4))
    weights[f"{prefix}.q_proj.lora_b"] = mx.zeros((4, 63))
    weights["model.norm.weight"] = mx.zeros(64)
    del weights[f"{prefix}.v_proj.lora_b"]
    config = json.loads((llama_lora / "adapter_config.json").read_text())
    problems = problems_of(llama_base, tmp_path / "out", adapter=save_adapter(tmp_path / "bad", weights, config))
    for words in (
        "model.layers.7.mlp.up_proj.lora_a: the base has no model.layers.7.mlp.up_proj.weight",
        f"{prefix}.q_proj.weight: lora_a (64, 4) and lora_b (4, 63) do not fit the base's (64, 64)",
        "model.norm.weight: is not part of a LoRA",
        f"{prefix}.v_proj.lora_a: its partner is missing",
    ):
        assert any(words in problem for problem in problems), words
    assert len(problems) == 4


def test_every_full_weight_that_does_not_fit_is_listed(llama_base, tmp_path):
    weights = {"model.norm.weight": mx.zeros(65), "model.layers.9.input_layernorm.weight": mx.zeros(64)}
    problems = problems_of(
        llama_base, tmp_path / "out", adapter=save_adapter(tmp_path / "bad", weights, {"fine_tune_type": "full"})
    )
    assert len(problems) == 2
    assert "model.layers.9.input_layernorm.weight: the base has no such tensor" in problems[0]
    assert "model.norm.weight: has shape (65,), the base (64,)" in problems[1]


def test_adapters_that_cannot_be_read_are_refused(llama_base, llama_lora, tmp_path):
    weights = mx.load(str(llama_lora / "adapters.safetensors"))
    dora = save_adapter(tmp_path / "dora", weights, {"fine_tune_type": "dora"})
    scaleless = save_adapter(
        tmp_path / "scaleless", weights, {"fine_tune_type": "lora", "lora_parameters": {"rank": 4}}
    )
    torn = save_adapter(tmp_path / "torn", weights, json.loads((llama_lora / "adapter_config.json").read_text()))
    (torn / "adapters.safetensors").write_bytes((torn / "adapters.safetensors").read_bytes()[:50])
    cases = {"'dora' cannot be exported": dora, "lora_parameters.scale": scaleless, "cannot be read": torn}
    for words, adapter in (cases | {"adapter_config.json": tmp_path / "absent"}).items():
        assert words in problems_of(llama_base, tmp_path / "out", adapter=adapter)[0]


def test_weights_that_overflow_the_dtype_are_refused(llama_base, tmp_path):
    huge = save_adapter(tmp_path / "huge", {"model.norm.weight": mx.full((64,), 1e5)}, {"fine_tune_type": "full"})
    assert (
        "not finite in float16: model.norm.weight"
        in problems_of(llama_base, tmp_path / "out", adapter=huge, dtype="float16")[0]
    )
    export_hf(llama_base, tmp_path / "out", adapter=huge, dtype="bfloat16")


def test_a_base_without_weights_or_with_a_missing_shard_is_refused(llama_base, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "config.json" in problems_of(empty, tmp_path / "out")[0]
    shutil.copy(llama_base / "config.json", empty)
    assert "model.safetensors" in problems_of(empty, tmp_path / "out")[0]
    (empty / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../elsewhere.safetensors"}}')
    assert "../elsewhere.safetensors" in problems_of(empty, tmp_path / "out")[0]


def test_only_an_export_of_ours_is_replaced_and_a_failed_one_leaves_it_whole(llama_base, llama_lora, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    assert "choose an empty or new folder" in problems_of(llama_base, out)[0]
    (out / "thesis.txt").unlink()
    export_hf(llama_base, out, dtype="float32")
    first = (out / "model.safetensors").read_bytes()
    assert "no such file to add" in problems_of(llama_base, out, adapter=llama_lora, extra_files=[tmp_path / "none"])[0]
    assert (out / "model.safetensors").read_bytes() == first
    export_hf(llama_base, out, adapter=llama_lora, dtype="float32")
    assert (out / "model.safetensors").read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
