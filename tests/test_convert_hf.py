"""MLX -> Hugging Face: the policy in MLX, the export in PyTorch and the export in MLX compute the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from convert.hf import ExportSummary, export_hf, verify_export
from mlx_grpo.errors import UserError

# isort: split
import mlx.core as mx
import mlx_lm
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMOLLM2 = Path(__file__).parents[1] / "models" / "SmolLM2-135M-Instruct"
IDS = [list(range(5, 45)), list(range(200, 160, -1))]
SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
KEYS = ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj"]


def make_base(folder: Path, kind: str, **options: object) -> Path:
    """A random Qwen3 (tied) or Llama (untied) on disk with a byte-level tokenizer, as transformers saves it."""
    torch.manual_seed(0)
    if kind == "qwen3":
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, tie_word_embeddings=True))
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=False))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.1)
    model.save_pretrained(folder, **options)
    write_tokenizer(folder)
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "eos_token_id": 1}')
    return folder


def write_tokenizer(folder: Path) -> None:
    tokens = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(tokens[:2])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<pad>"}
    config["chat_template"] = "{% for m in messages %}{{ m['content'] }}<eos>{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def make_lora(base: Path, folder: Path, keys: list[str] | None = KEYS, size: float = 0.05, layers: int = 2) -> Path:
    """An adapter as mlx-lm writes it, with a B that is not zero."""
    parameters = {"rank": 4, "scale": 3.0, "dropout": 0.0, "keys": keys}
    model, _ = mlx_lm.load(str(base))
    model.freeze()
    linear_to_lora_layers(model, layers, parameters)
    mx.random.seed(1)
    weights = {
        name: mx.random.normal(weight.shape) * size for name, weight in tree_flatten(model.trainable_parameters())
    }
    return save_adapter(
        folder, weights, {"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": parameters}
    )


def make_full(base: Path, folder: Path) -> Path:
    """Every weight of the base moved a little."""
    model, _ = mlx_lm.load(str(base))
    mx.random.seed(2)
    weights = {name: w + 0.02 * mx.random.normal(w.shape) for name, w in tree_flatten(model.parameters())}
    return save_adapter(folder, weights, {"fine_tune_type": "full", "num_layers": 2, "lora_parameters": {}})


def save_adapter(folder: Path, weights: dict[str, mx.array], config: dict) -> Path:
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def mlx_logits(folder: Path, adapter: Path | None = None) -> np.ndarray:
    model, _ = mlx_lm.load(str(folder), adapter_path=str(adapter) if adapter else None)
    return np.array(model(mx.array(IDS)))


def torch_logits(folder: Path) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()


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


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "llama", "llama")


@pytest.fixture(scope="module")
def lora(llama, tmp_path_factory) -> Path:
    return make_lora(llama, tmp_path_factory.mktemp("adapter"))


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
def test_a_quantized_base_is_exported_as_plain_weights(llama, tmp_path, mixed):
    def bits(path: str, _: object) -> dict | bool:
        return {"group_size": 32, "bits": 8 if mixed and "mlp" in path else 4}

    base = tmp_path / "base"
    mlx_lm.convert(
        str(llama), str(base), quantize=True, q_group_size=32, q_bits=4, dtype="float32", quant_predicate=bits
    )
    adapter = make_lora(base, tmp_path / "adapter")
    export_hf(base, tmp_path / "out", adapter=adapter, dtype="float32")
    assert "quantization" not in json.loads((tmp_path / "out/config.json").read_text())
    assert_all_agree(base, adapter, tmp_path / "out")


def test_a_rope_theta_in_the_place_of_transformers_5_reaches_mlx_lm(llama, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(llama, base)
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


def test_the_delta_is_added_in_fp32_and_rounded_once(llama, lora, tmp_path):
    export_hf(llama, tmp_path / "exact", adapter=lora, dtype="float32")
    for dtype in ("bfloat16", "float16"):
        export_hf(llama, tmp_path / dtype, adapter=lora, dtype=dtype)
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


def test_config_states_class_and_tying_where_the_base_left_them_to_defaults(llama, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    config = json.loads((base / "config.json").read_text())
    del config["architectures"], config["tie_word_embeddings"]
    (base / "config.json").write_text(json.dumps(config))
    export_hf(base, tmp_path / "out")
    exported = json.loads((tmp_path / "out/config.json").read_text())
    assert exported["architectures"] == ["LlamaForCausalLM"] and exported["tie_word_embeddings"] is False


def test_tokenizer_template_card_and_extra_files_travel(llama, tmp_path):
    extra = tmp_path / "eval.json"
    extra.write_text("{}")
    summary = export_hf(llama, tmp_path / "out", card="# Ranker 🏅\n", extra_files=[extra])
    chat = [{"role": "user", "content": "hi"}]
    ours, theirs = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "out", llama))
    assert (
        ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(chat, tokenize=False) == "hi<eos>"
    )
    assert (tmp_path / "out/README.md").read_text(encoding="utf-8") == "# Ranker 🏅\n"
    copied = (tmp_path / "out/generation_config.json", tmp_path / "out/eval.json")
    assert [path.read_bytes() for path in copied] == [(llama / "generation_config.json").read_bytes(), b"{}"]
    assert ExportSummary(**json.loads((tmp_path / "out/export.json").read_text())) == summary
    assert {*summary.files, "export.json"} == {path.name for path in (tmp_path / "out").iterdir()}


# Quantized, for MLX


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_export_is_what_mlx_lm_makes_of_the_plain_one(llama, lora, tmp_path, bits):
    summary = export_hf(llama, tmp_path / "out", adapter=lora, dtype="float32", bits=bits, verify=True)
    export_hf(llama, tmp_path / "plain", adapter=lora, dtype="float32")
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


def test_verification_of_a_quantized_export_names_an_unquantized_layer_that_differs(llama, lora, tmp_path):
    export_hf(llama, tmp_path / "out", adapter=lora, dtype="float32", bits=4)
    path = str(tmp_path / "out/model.safetensors")
    weights = dict(mx.load(path))
    weights["model.layers.1.post_attention_layernorm.weight"] *= 1.05
    mx.eval(weights)
    mx.save_safetensors(path, weights)
    with pytest.raises(UserError, match=r"differs from the policy, first at model\.layers\.1:"):
        verify_export(llama, tmp_path / "out", adapter=lora)


# What is refused


def problems_of(base: Path, out: Path, **options: object) -> list[str]:
    """The problems named; checks that a refusal changes nothing on disk."""
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        export_hf(base, out, **options)
    assert sorted(out.parent.rglob("*")) == before
    return caught.value.problems


def test_every_adapter_tensor_that_does_not_fit_is_listed(llama, lora, tmp_path):
    weights = mx.load(str(lora / "adapters.safetensors"))
    prefix = "model.layers.0.self_attn"
    weights["model.layers.7.mlp.up_proj.lora_a"] = mx.zeros((64, 4))
    weights[f"{prefix}.q_proj.lora_b"] = mx.zeros((4, 63))
    weights["model.norm.weight"] = mx.zeros(64)
    del weights[f"{prefix}.v_proj.lora_b"]
    config = json.loads((lora / "adapter_config.json").read_text())
    problems = problems_of(llama, tmp_path / "out", adapter=save_adapter(tmp_path / "bad", weights, config))
    for words in (
        "model.layers.7.mlp.up_proj.lora_a: the base has no model.layers.7.mlp.up_proj.weight",
        f"{prefix}.q_proj.weight: lora_a (64, 4) and lora_b (4, 63) do not fit the base's (64, 64)",
        "model.norm.weight: is not part of a LoRA",
        f"{prefix}.v_proj.lora_a: its partner is missing",
    ):
        assert any(words in problem for problem in problems), words
    assert len(problems) == 4


def test_every_full_weight_that_does_not_fit_is_listed(llama, tmp_path):
    weights = {"model.norm.weight": mx.zeros(65), "model.layers.9.input_layernorm.weight": mx.zeros(64)}
    problems = problems_of(
        llama, tmp_path / "out", adapter=save_adapter(tmp_path / "bad", weights, {"fine_tune_type": "full"})
    )
    assert len(problems) == 2
    assert "model.layers.9.input_layernorm.weight: the base has no such tensor" in problems[0]
    assert "model.norm.weight: has shape (65,), the base (64,)" in problems[1]


def test_adapters_that_cannot_be_read_are_refused(llama, lora, tmp_path):
    weights = mx.load(str(lora / "adapters.safetensors"))
    dora = save_adapter(tmp_path / "dora", weights, {"fine_tune_type": "dora"})
    scaleless = save_adapter(
        tmp_path / "scaleless", weights, {"fine_tune_type": "lora", "lora_parameters": {"rank": 4}}
    )
    torn = save_adapter(tmp_path / "torn", weights, json.loads((lora / "adapter_config.json").read_text()))
    (torn / "adapters.safetensors").write_bytes((torn / "adapters.safetensors").read_bytes()[:50])
    cases = {"'dora' cannot be exported": dora, "lora_parameters.scale": scaleless, "cannot be read": torn}
    for words, adapter in (cases | {"adapter_config.json": tmp_path / "absent"}).items():
        assert words in problems_of(llama, tmp_path / "out", adapter=adapter)[0]


def test_weights_that_overflow_the_dtype_are_refused(llama, tmp_path):
    huge = save_adapter(tmp_path / "huge", {"model.norm.weight": mx.full((64,), 1e5)}, {"fine_tune_type": "full"})
    assert (
        "not finite in float16: model.norm.weight"
        in problems_of(llama, tmp_path / "out", adapter=huge, dtype="float16")[0]
    )
    export_hf(llama, tmp_path / "out", adapter=huge, dtype="bfloat16")


def test_a_base_without_weights_or_with_a_missing_shard_is_refused(llama, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "config.json" in problems_of(empty, tmp_path / "out")[0]
    shutil.copy(llama / "config.json", empty)
    assert "model.safetensors" in problems_of(empty, tmp_path / "out")[0]
    (empty / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../elsewhere.safetensors"}}')
    assert "../elsewhere.safetensors" in problems_of(empty, tmp_path / "out")[0]


def test_only_an_export_of_ours_is_replaced_and_a_failed_one_leaves_it_whole(llama, lora, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    assert "choose an empty or new folder" in problems_of(llama, out)[0]
    (out / "thesis.txt").unlink()
    export_hf(llama, out, dtype="float32")
    first = (out / "model.safetensors").read_bytes()
    assert "no such file to add" in problems_of(llama, out, adapter=lora, extra_files=[tmp_path / "none"])[0]
    assert (out / "model.safetensors").read_bytes() == first
    export_hf(llama, out, adapter=lora, dtype="float32")
    assert (out / "model.safetensors").read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# The check after the export


def test_verification_measures_rounding_against_what_training_changed(llama, lora, tmp_path):
    errors = {}
    for dtype in ("float32", "float16", "bfloat16"):
        export_hf(llama, tmp_path / dtype, adapter=lora, dtype=dtype)
        verification = verify_export(llama, tmp_path / dtype, adapter=lora)
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
def test_verification_names_the_first_layer_that_differs(llama, lora, tmp_path, name, where):
    export_hf(llama, tmp_path / "out", adapter=lora, dtype="float32")
    path = str(tmp_path / "out/model.safetensors")
    weights = dict(mx.load(path))
    weights[name] = weights[name] * 1.05
    mx.eval(weights)
    mx.save_safetensors(path, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"differs from the policy, first at {where}:"):
        verify_export(llama, tmp_path / "out", adapter=lora)


def test_rounding_that_eats_the_training_is_told_from_an_adapter_left_out(llama, tmp_path):
    adapter = make_lora(llama, tmp_path / "adapter", size=3e-3)
    kept = {}
    for dtype in ("float32", "bfloat16"):
        check = export_hf(llama, tmp_path / dtype, adapter=adapter, dtype=dtype, verify=True).verification
        kept[dtype] = check.kept
        assert check.storing_error < 1e-5 and check.checked_in == ("MLX", "PyTorch")
    assert abs(kept["float32"] - 1) < 1e-3
    assert check.error > check.adapter_effect
    export_hf(llama, tmp_path / "without", dtype="bfloat16")
    with pytest.raises(UserError, match=r"first at model\.layers\.0"):
        verify_export(llama, tmp_path / "without", adapter=adapter)


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


def test_verification_notices_an_adapter_left_out_and_another_tokenizer(llama, lora, tmp_path):
    export_hf(llama, tmp_path / "out", dtype="bfloat16")
    with pytest.raises(UserError, match=r"first at model\.layers\.0"):
        verify_export(llama, tmp_path / "out", adapter=lora)
    tokenizer = json.loads((tmp_path / "out/tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "out/tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="tokenizer splits"):
        verify_export(llama, tmp_path / "out")
