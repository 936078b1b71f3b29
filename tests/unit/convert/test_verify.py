"""The check after an export: rounding passes; a layer, an adapter or a tokenizer that differs does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.convert_cases import make_base, make_lora

import convert.verify as verify_module
from convert.hf import export_hf
from convert.verify import verify_export
from mlx_grpo.errors import UserError

# isort: split
import mlx.core as mx

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def test_verification_measures_rounding_against_what_training_changed(llama_base, llama_lora, tmp_path):
    errors = {}
    for dtype in ("float32", "float16", "bfloat16"):
        export_hf(llama_base, tmp_path / dtype, adapter=llama_lora, dtype=dtype)
        verification = verify_export(llama_base, tmp_path / dtype, adapter=llama_lora)
        errors[dtype] = verification.error
        assert verification.adapter_effect > 0.1
    assert errors["float32"] < 2e-6  # the order of summing alone: 1.01e-6 by AVX-512 kernels, below 1e-6 by AVX2's
    # fp16 keeps 10 bits of a number after the first and bf16 keeps 7: 8 times coarser.
    assert 4 < errors["bfloat16"] / errors["float16"] < 16


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0"),
        ("model.layers.1.self_attn.q_proj.weight", "model.layers.1"),
        ("lm_head.weight", "the final norm or the head"),
    ],
)
def test_verification_names_the_first_layer_that_differs(llama_base, llama_lora, tmp_path, name, where):
    export_hf(llama_base, tmp_path / "out", adapter=llama_lora, dtype="float32")
    path = str(tmp_path / "out/model.safetensors")
    weights = dict(mx.load(path))
    weights[name] = weights[name] * 1.05
    mx.eval(weights)
    mx.save_safetensors(path, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"differs from the policy, first at {where}:"):
        verify_export(llama_base, tmp_path / "out", adapter=llama_lora)


@pytest.mark.parametrize(("bits", "in_torch"), [(None, ["out"]), (4, [])])
def test_check_loads_each_model_once(llama_base, llama_lora, tmp_path, monkeypatch, bits, in_torch):
    loads = {"mlx": [], "adapter": [], "torch": []}

    def count(kind: str, place: object, name: str, argument: int) -> None:
        original = getattr(place, name)

        def counted(*args: object, **options: object) -> object:
            loads[kind].append(Path(str(args[argument])).name)
            return original(*args, **options)

        monkeypatch.setattr(place, name, counted)

    count("mlx", verify_module, "load", 0)
    count("adapter", verify_module, "load_adapters", 1)
    count("torch", transformers.AutoModelForCausalLM, "from_pretrained", 0)
    export_hf(llama_base, tmp_path / "out", adapter=llama_lora, bits=bits)
    assert loads == {"mlx": [], "adapter": [], "torch": []}
    verify_export(llama_base, tmp_path / "out", adapter=llama_lora)
    assert loads == {"mlx": ["out", llama_base.name], "adapter": [llama_lora.name], "torch": in_torch}


def test_rounding_that_undoes_the_training_is_told_from_an_adapter_left_out(llama_base, tmp_path):
    adapter = make_lora(llama_base, tmp_path / "adapter", size=3e-3)
    kept = {}
    for dtype in ("float32", "bfloat16"):
        check = export_hf(llama_base, tmp_path / dtype, adapter=adapter, dtype=dtype, verify=True).verification
        kept[dtype] = check.kept
        assert check.storing_error < 1e-5 and check.checked_in == ("MLX", "PyTorch")
    assert abs(kept["float32"] - 1) < 1e-3
    assert check.error > check.adapter_effect
    export_hf(llama_base, tmp_path / "without", dtype="bfloat16")
    with pytest.raises(UserError, match=r"first at model\.layers\.0"):
        verify_export(llama_base, tmp_path / "without", adapter=adapter)


def test_a_model_that_pytorch_computes_otherwise_is_not_exported(tmp_path):
    base = make_base(tmp_path / "base", "qwen3")
    config = json.loads((base / "config.json").read_text())
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    (base / "config.json").write_text(json.dumps(config | window | {"layer_types": None}))
    export_hf(base, tmp_path / "out", verify=False)
    before = (tmp_path / "out" / "export.json").read_bytes()
    with pytest.raises(UserError, match=r"loaded in PyTorch, differs from the policy, first at model\.layers\.1:"):
        export_hf(base, tmp_path / "out", dtype="float32", verify=True)
    assert (tmp_path / "out" / "export.json").read_bytes() == before


def test_verification_notices_an_adapter_left_out_and_another_tokenizer(llama_base, llama_lora, tmp_path):
    export_hf(llama_base, tmp_path / "out", dtype="bfloat16")
    with pytest.raises(UserError, match=r"first at model\.layers\.0"):
        verify_export(llama_base, tmp_path / "out", adapter=llama_lora)
    tokenizer = json.loads((tmp_path / "out/tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "out/tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="tokenizer splits"):
        verify_export(llama_base, tmp_path / "out")
