"""A policy as a GGUF: tensors and metadata as llama.cpp writes them, read back by transformers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from support.convert_cases import make_lora
from support.gguf_cases import PIECE_TYPES, PIECES, TOKENS, metadata, random_model, tensors_of, write_gguf

from convert.gguf import convert_gguf
from convert.to_gguf import export_gguf
from mlx_grpo.errors import UserError

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ARCHITECTURES = ["llama", "qwen2", "qwen3", "gemma3"]
PRE = {"llama": "smollm", "qwen2": "qwen2", "qwen3": "qwen2", "gemma3": "default"}
NOT_OURS: dict[str, set[str]] = {name: {f"{name}.attention.sliding_window"} for name in ARCHITECTURES}
NOT_OURS["gemma3"] = {"tokenizer.ggml.scores", "tokenizer.ggml.token_type"}
"""Keys of the test's own file that llama.cpp does not write, or writes otherwise."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict]:
    """Return an architecture, its Hugging Face folder, and the tensors of llama.cpp's file of it."""
    folder = tmp_path_factory.mktemp(request.param)
    model = random_model(request.param)
    # Norms near one and layers that add to the stream, as in trained models: others amplify fp16's rounding.
    for name, parameter in model.named_parameters():
        mean = float("norm" in name and request.param != "gemma3")
        torch.nn.init.normal_(parameter, mean=mean, std=1.0 if "embed" in name else 0.1)
    tensors = tensors_of(model)
    source = write_gguf(folder / "source.gguf", tensors, arch=request.param, pre=PRE[request.param])
    convert_gguf([source], folder / "base")
    return request.param, folder / "base", tensors


@pytest.fixture(scope="module")
def tuned(case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a LoRA adapter of a case's base."""
    return make_lora(case[1], tmp_path_factory.mktemp("adapter"))


def fields_of(file: Path) -> dict[str, object]:
    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items() if "." in name}


def greedy(logits: Callable[[list[int]], np.ndarray], ids: list[int]) -> list[int]:
    """Return a text with its twelve most likely next tokens."""
    for _ in range(12):
        ids = [*ids, int(logits(ids)[-1].argmax())]
    return ids


def test_tensors_and_metadata_are_those_of_llama_cpp(case, tmp_path):
    architecture, base, tensors = case
    export_gguf(base, tmp_path / "out", stop_ids={1} if architecture == "gemma3" else {0, 2})
    file = tmp_path / "out/model-F16.gguf"
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    assert stored.keys() == tensors.keys()
    for name, values in tensors.items():
        vector = values.ndim == 1
        assert stored[name].tensor_type.name == ("F32" if vector else "F16")
        # Gemma's norms are stored plus one: the last bit of an fp32 goes.
        wanted = values if vector else values.astype(np.float16)
        np.testing.assert_allclose(stored[name].data, wanted, rtol=0, atol=1e-6 if vector else 0)
    fields, expected = fields_of(file), metadata(architecture, PRE[architecture])
    near = {key for key, value in expected.items() if isinstance(value, float)}
    assert {key for key in expected.keys() - near if fields.get(key) != expected[key]} <= NOT_OURS[architecture]
    assert [fields[key] for key in near] == pytest.approx([expected[key] for key in near])
    assert (fields["general.file_type"], fields["tokenizer.ggml.add_bos_token"]) == (1, architecture == "gemma3")


@pytest.mark.parametrize("case", ["gemma3"], indirect=True)
def test_gemmas_scores_order_merges_and_its_types_are_llama_cpps(case, tmp_path):
    export_gguf(case[1], tmp_path / "out")
    fields = fields_of(tmp_path / "out/model-F16.gguf")
    scores, types = fields["tokenizer.ggml.scores"], list(fields["tokenizer.ggml.token_type"])
    assert scores[PIECES.index("he")] > scores[PIECES.index("▁he")] > scores[PIECES.index("h")]
    assert types == [3, 3, 3, 2, 3, *PIECE_TYPES[5:]]  # <mask> is a control token by its name
    assert fields["tokenizer.ggml.add_space_prefix"] is False


@pytest.mark.parametrize("case", ["gemma3"], indirect=True)
def test_gemmas_token_for_pictures_beyond_the_embedding_is_left_out(case, tmp_path):
    base = Path(shutil.copytree(case[1], tmp_path / "base"))
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": len(PIECES), "content": "<image>"})
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    export_gguf(base, tmp_path / "out", verify=True)
    assert fields_of(tmp_path / "out/model-F16.gguf")["tokenizer.ggml.tokens"] == PIECES
    tokenizer["added_tokens"].pop()
    tokenizer["model"]["vocab"]["hehe"] = len(PIECES)
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="token 'hehe' has the id 266, and the model 266 embeddings"):
        export_gguf(base, tmp_path / "out")


def test_f16_file_has_the_trained_policys_logits_and_greedy_text(case, tuned, tmp_path):
    _, base, _ = case
    check = export_gguf(base, tmp_path / "out", adapter=tuned, verify=True).verification
    assert check.checked_in == ("MLX", "PyTorch") and check.storing_error < check.tolerance
    assert check.error < 1e-3  # at the worst position, relative to the logits' size
    assert check.adapter_effect > 0.05 and check.kept == pytest.approx(1, abs=0.02)
    convert_gguf([tmp_path / "out/model-F16.gguf"], tmp_path / "read")
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "read").eval().requires_grad_(False)
    policy, tokenizer = mlx_lm.load(str(base), adapter_path=str(tuned))
    policy.eval()
    in_torch = lambda ids: read(torch.tensor([ids])).logits[0].numpy()  # noqa: E731
    in_mlx = lambda ids: np.array(policy(mx.array([ids]))[0])  # noqa: E731
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "read").encode("he 2020 hehe")
    assert ids == tokenizer.encode("he 2020 hehe")
    size = np.abs(in_mlx(ids)).max()
    np.testing.assert_allclose(in_torch(ids), in_mlx(ids), rtol=0, atol=1e-3 * size)
    assert greedy(in_torch, ids) == greedy(in_mlx, ids)


def test_q8_0_file_is_the_policy_in_blocks_of_8_bits(case, tuned, tmp_path):
    _, base, _ = case
    summary = export_gguf(base, tmp_path / "out", adapter=tuned, quant="Q8_0", verify=True)
    assert sorted(summary.files) == ["Modelfile", "model-Q8_0.gguf"]
    assert summary.verification.storing_error < summary.verification.tolerance < 0.02
    assert 1e-3 < summary.verification.error < 0.2
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "out/model-Q8_0.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == "Q8_0"
    assert kinds["output_norm.weight"] == "F32"


@pytest.mark.parametrize("case", ["llama"], indirect=True)
def test_file_that_differs_is_not_written(case, tuned, tmp_path, monkeypatch):
    monkeypatch.setattr("convert.to_gguf._interleaved", lambda weight, heads: weight)
    with pytest.raises(UserError, match=r"differs from the policy, first at model\.layers\.0"):
        export_gguf(case[1], tmp_path / "out", adapter=tuned, verify=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["qwen2"], indirect=True)
def test_embedding_with_more_rows_than_tokens_gets_unused_ones(case, tmp_path):
    base = case[1]
    padded = Path(shutil.copytree(base, tmp_path / "padded"))
    weights = dict(mx.load(str(base / "model.safetensors")))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = mx.concatenate([weights[name], mx.zeros((6, 64))])
    mx.save_safetensors(str(padded / "model.safetensors"), weights, metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    (padded / "config.json").write_text(json.dumps(config | {"vocab_size": len(TOKENS) + 6}))
    export_gguf(padded, tmp_path / "out", verify=True)
    fields = fields_of(tmp_path / "out/model-F16.gguf")
    assert fields["tokenizer.ggml.tokens"][len(TOKENS) :] == [f"[PAD{len(TOKENS) + i}]" for i in range(6)]
    assert list(fields["tokenizer.ggml.token_type"][len(TOKENS) :]) == [5] * 6


@pytest.mark.parametrize(
    ("case", "changes", "problem"),
    [
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rope_scaling is"),
        ("llama", {"model_type": "mistral"}, "qwen3, gemma3_text are; use llama.cpp's"),
        ("llama", {"max_position_embeddings": None}, "has no max_position_embeddings, which a GGUF needs; add it"),
        ("gemma3", {"head_dim": None, "sliding_window": None}, "has no head_dim, sliding_window, which a GGUF needs"),
        ("gemma3", {"sliding_window_pattern": 4}, "sliding_window_pattern is 4"),
        ("gemma3", {"query_pre_attn_scalar": 99}, "query_pre_attn_scalar is 99"),
        ("gemma3", {"layer_types": ["full_attention"] * 6}, "layer_types is"),
    ],
    indirect=["case"],
)
def test_model_that_the_format_does_not_hold_is_refused(case, changes, problem, tmp_path):
    base = Path(shutil.copytree(case[1], tmp_path / "base"))
    config = {k: v for k, v in json.loads((base / "config.json").read_text()).items() if k != "rope_theta"}
    (base / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=re.escape(problem)):
        export_gguf(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["llama"], indirect=True)
def test_tokenizer_that_splits_otherwise_is_refused_with_llama_cpps_converter(case, tmp_path):
    base = Path(shutil.copytree(case[1], tmp_path / "base"))
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"].reverse()
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"none of the ways gpt-2, smollm, qwen2; use llama\.cpp's"):
        export_gguf(base, tmp_path / "out")
    (base / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"is in another file than tokenizer\.json; use llama\.cpp's"):
        export_gguf(base, tmp_path / "out")
