"""MLX -> Hugging Face: the policy in MLX, the export in PyTorch and the export in MLX compute the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.convert_cases import KEYS, make_base, make_full, make_lora, mlx_logits, torch_logits
from support.paths import SMOLLM2

from convert.hf import ExportSummary, export_hf
from convert.verify import verify_export
from mlx_grpo.errors import UserError

# isort: split
import mlx.core as mx
import mlx_lm
from safetensors import safe_open

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def assert_all_agree(base: Path, adapter: Path | None, out: Path) -> None:
    policy = mlx_logits(base, adapter)
    assert np.abs(policy).max() > 0.5  # else agreement to 1e-4 would say nothing
    if adapter:
        assert np.abs(policy - mlx_logits(base)).max() > 0.1
    np.testing.assert_allclose(torch_logits(out), policy, atol=1e-4, rtol=0)
    np.testing.assert_allclose(mlx_logits(out), policy, atol=1e-4, rtol=0)


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def base(request, tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / request.param, request.param)


# Policy in MLX = export in PyTorch = export in MLX


def test_a_lora_policy_and_its_export_agree(base, tmp_path):
    adapter = make_lora(base, tmp_path / "adapter")
    summary = export_hf(base, tmp_path / "out", adapter=adapter, dtype="float32")
    assert_all_agree(base, adapter, tmp_path / "out")
    assert (summary.adapter, summary.changed_tensors) == ("lora", 2 * len(KEYS))


def test_a_lora_on_the_embedding_or_the_head_is_fused_too(base, tmp_path):
    key = "model.embed_tokens" if base.name == "qwen3" else "lm_head"
    adapter = make_lora(base, tmp_path / "adapter", [*KEYS, key])
    export_hf(base, tmp_path / "out", adapter=adapter, dtype="float32")
    assert_all_agree(base, adapter, tmp_path / "out")


def test_a_full_fine_tune_and_its_export_agree(base, tmp_path):
    adapter = make_full(base, tmp_path / "adapter")
    export_hf(base, tmp_path / "out", adapter=adapter, dtype="float32")
    assert_all_agree(base, adapter, tmp_path / "out")


@pytest.mark.parametrize("base_shards", ["100KB", "1GB"])
def test_weights_larger_than_a_shard_are_split_whatever_the_bases_files(tmp_path, base_shards):
    base = make_base(tmp_path / "base", "qwen3", max_shard_size=base_shards)
    adapter = make_lora(base, tmp_path / "adapter")
    out = tmp_path / "out"
    export_hf(base, out, adapter=adapter, dtype="float32", shard_bytes=150_000)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    stored = {file.name: mx.load(str(file)) for file in out.glob("*.safetensors")}
    assert len(stored) > 2 and set(stored) == {
        f"model-{i + 1:05d}-of-{len(stored):05d}.safetensors" for i in range(len(stored))
    }
    assert index["weight_map"] == {name: file for file, weights in stored.items() for name in weights}
    sizes = [sum(weight.nbytes for weight in weights.values()) for weights in stored.values()]
    assert max(sizes) <= 150_000 and sum(sizes) == index["metadata"]["total_size"]
    assert_all_agree(base, adapter, out)


def test_weights_that_fit_one_shard_need_no_index(tmp_path):
    base = make_base(tmp_path / "base", "qwen3", max_shard_size="100KB")
    export_hf(base, tmp_path / "out", dtype="float32")
    assert [file.name for file in (tmp_path / "out").glob("model*")] == ["model.safetensors"]


@pytest.mark.parametrize("mixed", [False, True], ids=["4 bits", "4 and 8 bits"])
def test_a_quantized_base_is_exported_as_plain_weights(llama_base, tmp_path, mixed):
    def bits(path: str, _: object) -> dict | bool:
        return {"group_size": 32, "bits": 8 if mixed and "mlp" in path else 4}

    base = tmp_path / "base"
    mlx_lm.convert(
        str(llama_base), str(base), quantize=True, q_group_size=32, q_bits=4, dtype="float32", quant_predicate=bits
    )
    adapter = make_lora(base, tmp_path / "adapter")
    export_hf(base, tmp_path / "out", adapter=adapter, dtype="float32")
    assert "quantization" not in json.loads((tmp_path / "out/config.json").read_text())
    assert_all_agree(base, adapter, tmp_path / "out")


@pytest.mark.parametrize("group_size", [32, 64])
def test_layers_of_another_width_that_config_json_does_not_name_are_exported(llama_base, tmp_path, group_size):
    def bits(path: str, _: object) -> dict:
        return {"group_size": group_size, "bits": 8} if "o_proj" in path else {"group_size": 32, "bits": 4}

    base = tmp_path / "base"
    mlx_lm.convert(
        str(llama_base), str(base), quantize=True, q_group_size=32, q_bits=4, dtype="float32", quant_predicate=bits
    )
    config = json.loads((base / "config.json").read_text())
    config["quantization"] = config["quantization_config"] = {"group_size": 32, "bits": 4}
    (base / "config.json").write_text(json.dumps(config))
    adapter = make_lora(base, tmp_path / "adapter")
    export_hf(base, tmp_path / "out", adapter=adapter, dtype="float32", verify=True)
    assert_all_agree(base, adapter, tmp_path / "out")


def test_a_rope_theta_in_the_place_of_transformers_5_reaches_mlx_lm(llama_base, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(llama_base, base)
    config = json.loads((base / "config.json").read_text())
    assert "rope_theta" not in config
    config["rope_parameters"]["rope_theta"] = 100.0
    (base / "config.json").write_text(json.dumps(config))
    export_hf(base, tmp_path / "out", dtype="float32")
    np.testing.assert_allclose(mlx_logits(tmp_path / "out"), torch_logits(base), atol=1e-4, rtol=0)


@pytest.mark.skipif(not (SMOLLM2 / "config.json").is_file(), reason=f"no {SMOLLM2}: run convert.gguf first")
def test_smollm2_with_a_lora_agrees_in_mlx_and_pytorch(tmp_path):
    adapter = make_lora(SMOLLM2, tmp_path / "adapter", size=0.03)
    out = tmp_path / "out"
    export_hf(SMOLLM2, out, adapter=adapter, dtype="float32")
    verification = verify_export(SMOLLM2, out, adapter=adapter)
    assert verification.error < 1e-5 and verification.same_top_token == 1.0 and verification.adapter_effect > 1e-2
    policy = mlx_logits(SMOLLM2, adapter)
    assert np.abs(torch_logits(out) - policy).max() < 1e-4 * np.abs(policy).max()


# What is stored


def test_the_delta_is_added_in_fp32_and_rounded_once(llama_base, llama_lora, tmp_path):
    export_hf(llama_base, tmp_path / "exact", adapter=llama_lora, dtype="float32")
    for dtype in ("bfloat16", "float16"):
        export_hf(llama_base, tmp_path / dtype, adapter=llama_lora, dtype=dtype)
        exact, rounded = (mx.load(str(tmp_path / d / "model.safetensors")) for d in ("exact", dtype))
        assert exact.keys() == rounded.keys()
        assert all((exact[name].astype(rounded[name].dtype) == rounded[name]).all() for name in exact)
        assert {str(weight.dtype) for weight in rounded.values()} == {f"mlx.core.{dtype}"}
        with safe_open(tmp_path / dtype / "model.safetensors", "np") as stored:
            assert stored.metadata() == {"format": "pt"}  # transformers before 5 refuses a file without it
        config = json.loads((tmp_path / dtype / "config.json").read_text())
        assert config["dtype"] == config["torch_dtype"] == dtype


def test_a_tied_model_stores_no_head_even_where_the_base_does(tmp_path):
    base = make_base(tmp_path / "base", "qwen3")
    weights = mx.load(str(base / "model.safetensors"))
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    mx.save_safetensors(str(base / "model.safetensors"), weights)
    export_hf(base, tmp_path / "out", dtype="float32")
    assert "lm_head.weight" not in mx.load(str(tmp_path / "out/model.safetensors"))
    assert_all_agree(base, None, tmp_path / "out")


def test_config_states_class_and_tying_where_the_base_left_them_to_defaults(llama_base, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(llama_base, base)
    config = json.loads((base / "config.json").read_text())
    del config["architectures"], config["tie_word_embeddings"]
    (base / "config.json").write_text(json.dumps(config))
    export_hf(base, tmp_path / "out")
    exported = json.loads((tmp_path / "out/config.json").read_text())
    assert exported["architectures"] == ["LlamaForCausalLM"] and exported["tie_word_embeddings"] is False


def test_tokenizer_template_card_and_extra_files_travel(llama_base, tmp_path):
    extra = tmp_path / "eval.json"
    extra.write_text("{}")
    summary = export_hf(llama_base, tmp_path / "out", card="# Ranker 🏅\n", extra_files=[extra])
    chat = [{"role": "user", "content": "hi"}]
    ours, theirs = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "out", llama_base))
    assert (
        ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(chat, tokenize=False) == "hi<eos>"
    )
    assert (tmp_path / "out/README.md").read_text(encoding="utf-8") == "# Ranker 🏅\n"
    copied = (tmp_path / "out/generation_config.json", tmp_path / "out/eval.json")
    assert [path.read_bytes() for path in copied] == [(llama_base / "generation_config.json").read_bytes(), b"{}"]
    assert ExportSummary(**json.loads((tmp_path / "out/export.json").read_text())) == summary
    assert {*summary.files, "export.json"} == {path.name for path in (tmp_path / "out").iterdir()}


# Quantized, for MLX


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_export_is_what_mlx_lm_makes_of_the_plain_one(llama_base, llama_lora, tmp_path, bits):
    summary = export_hf(llama_base, tmp_path / "out", adapter=llama_lora, dtype="float32", bits=bits, verify=True)
    export_hf(llama_base, tmp_path / "plain", adapter=llama_lora, dtype="float32")
    mlx_lm.convert(str(tmp_path / "plain"), str(tmp_path / "theirs"), quantize=True, q_bits=bits, dtype="float32")
    np.testing.assert_array_equal(mlx_logits(tmp_path / "out"), mlx_logits(tmp_path / "theirs"))
    ours, plain = (mx.load(str(tmp_path / name / "model.safetensors")) for name in ("out", "plain"))
    untouched = [name for name in plain if f"{name.removesuffix('.weight')}.scales" not in ours]
    # 64 does not divide the width of down_proj, 96; norms are never quantized.
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in untouched} == {
        "down_proj",
        "norm",
        "input_layernorm",
        "post_attention_layernorm",
    }
    assert all((ours[name] == plain[name]).all() for name in untouched)
    check = summary.verification
    assert summary.bits == bits and check.storing_error < 1e-2
    assert {4: 0.05, 8: 0.002}[bits] < check.error < {4: 0.5, 8: 0.05}[bits]


def test_verification_of_a_quantized_export_names_an_unquantized_layer_that_differs(llama_base, llama_lora, tmp_path):
    export_hf(llama_base, tmp_path / "out", adapter=llama_lora, dtype="float32", bits=4)
    path = str(tmp_path / "out/model.safetensors")
    weights = dict(mx.load(path))
    weights["model.layers.1.post_attention_layernorm.weight"] *= 1.05
    mx.eval(weights)
    mx.save_safetensors(path, weights)
    with pytest.raises(UserError, match=r"differs from the policy, first at model\.layers\.1:"):
        verify_export(llama_base, tmp_path / "out", adapter=llama_lora)
