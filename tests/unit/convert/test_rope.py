"""RoPE in every place where config.json may have it: MLX and PyTorch compute the same, or the key is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.convert_cases import SIZES, make_lora, write_tokenizer
from support.tiny_models import LLAMA, QWEN3, tiny_config

from convert.hf import export_hf
from convert.rope import rope_changes
from mlx_grpo.errors import UserError
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.policy import load_for_inference, load_policy, outline

# isort: split
import mlx.core as mx
import mlx.nn as nn
import mlx_lm

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ORIGINAL = 32
"""The length before scaling; the prompts are eight times as long."""
IDS = [np.random.default_rng(0).integers(5, 500, 8 * ORIGINAL).tolist()]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": ORIGINAL,
}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": ORIGINAL}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.5] * 4, "long_factor": [1.5] * 4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3": ("Llama", LLAMA3),
    "linear": ("Llama", {"rope_type": "linear", "factor": 4.0}),
    "llama yarn with betas": ("Llama", {**YARN, "beta_fast": 16.0, "beta_slow": 2.0}),
    "mistral theta": ("Mistral", {"rope_type": "default", "rope_theta": 500.0}),
    "qwen2 yarn": ("Qwen2", YARN),
    "qwen2 yarn without a length": ("Qwen2", {"rope_type": "yarn", "factor": 4.0}),
    "qwen2 yarn with mscales": ("Qwen2", {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}),
    "qwen3 yarn": ("Qwen3", YARN),
    "phi3 partial": ("Phi3", {"rope_type": "default", "partial_rotary_factor": 0.5}),
    "phi3 partial and longrope": ("Phi3", {**LONGROPE, "partial_rotary_factor": 0.5}),
}
MOE = {
    **QWEN3,
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "Phi3": {"original_max_position_embeddings": ORIGINAL, "sliding_window": None},
    "Mistral": {"sliding_window": None},
}


def saved_model(folder: Path, family: str, rope: dict[str, Any]) -> Path:
    """Save a random model as transformers 5 does, with its RoPE in `rope_parameters` alone."""
    torch.manual_seed(0)
    rope = {"rope_theta": 10000.0, **rope}
    options = {**SIZES, "num_hidden_layers": 2, **OPTIONS.get(family, {}), "rope_parameters": rope}
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**options))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.15)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def logits_in_torch(folder: Path) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()


def logits_in_mlx(model: nn.Module) -> np.ndarray:
    return np.array(model(mx.array(IDS)))


@pytest.mark.parametrize("case", CASES)
def test_rope_in_rope_parameters_is_computed_as_in_transformers(case: str, tmp_path: Path):
    family, rope = CASES[case]
    base = saved_model(tmp_path / "base", family, rope)
    config = json.loads((base / "config.json").read_text())
    assert not config.keys() & {"rope_theta", "rope_scaling", "partial_rotary_factor"}
    theirs = logits_in_torch(base)
    assert np.abs(theirs).max() > 0.5
    loaded = load_policy(tiny_config(base)).model
    np.testing.assert_allclose(logits_in_mlx(loaded), theirs, atol=1e-4, rtol=0)
    plain, _ = mlx_lm.load(str(base), model_config={"rope_parameters": None, "rope_theta": 10000.0})
    assert np.abs(logits_in_mlx(plain) - theirs).max() > 1e-2  # plain RoPE would be noticed


def test_export_has_the_rope_where_mlx_lm_and_transformers_read_it(tmp_path: Path):
    base = saved_model(tmp_path / "base", "Llama", LLAMA3)
    adapter = make_lora(base, tmp_path / "adapter")
    summary = export_hf(base, tmp_path / "out", adapter=adapter, dtype="float32", verify=True)
    assert summary.verification is not None and summary.verification.checked_in == ("MLX", "PyTorch")
    by_itself, _ = mlx_lm.load(str(tmp_path / "out"))
    np.testing.assert_allclose(logits_in_mlx(by_itself), logits_in_torch(tmp_path / "out"), atol=1e-4, rtol=0)


def test_layers_of_gemma_3_get_their_own_rope_theta():
    ropes = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }
    changes = rope_changes({"model_type": "gemma3_text", "rope_parameters": ropes})
    scaling = {"rope_type": "linear", "type": "linear", "factor": 8.0}
    assert changes == {"rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": scaling}
    inside = rope_changes({"text_config": {"model_type": "gemma3_text", "rope_parameters": ropes}})
    assert inside["text_config"].items() >= changes.items()


@pytest.mark.parametrize("own", [{"rope_theta": 1e6}, {"rope_theta": 1e6, "rope_scaling": None}, {}])
def test_config_with_its_rope_at_the_top_is_left_as_it_is(own: dict[str, Any]):
    assert rope_changes({"model_type": "llama", **own}) == {}


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "attention_factor": (LLAMA, {**YARN, "attention_factor": 1.5}, "attention_factor is 1.5: it scales attention by"),
    "truncate": (LLAMA, {**YARN, "truncate": False}, "truncate is False"),
    "mscale alone": (LLAMA, {**YARN, "mscale_all_dim": 1.0}, "mscale_all_dim is 1.0"),
    "two longropes": (LLAMA, {**LONGROPE, "short_factor": [1.0] * 4}, "short_factor is [1.0, 1.0, 1.0, 1.0]"),
    "longrope factor": (LLAMA, {**LONGROPE, "factor": 32.0}, "factor is 32.0: it scales attention by"),
    "dynamic": (LLAMA, {"rope_type": "dynamic", "factor": 2.0}, "rope_type is 'dynamic'"),
    "an unknown type": (LLAMA, {"rope_type": "spiral"}, "rope_type is 'spiral': mlx-lm has no such RoPE"),
    "a scaling left out": (MOE, YARN, "rope_type is 'yarn': mlx-lm's qwen3_moe leaves it out"),
    "a share left out": (LLAMA, {"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
}


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("case", REFUSED)
def test_rope_that_mlx_lm_does_not_compute_is_refused_with_the_key(case: str, key: str, tmp_path: Path):
    settings, rope, words = REFUSED[case]
    (tmp_path / "config.json").write_text(json.dumps({**settings, "vocab_size": 258, key: rope}))
    with pytest.raises(UserError) as caught:
        outline(ModelFolder.read(tmp_path), tiny_config(tmp_path))
    assert f"config.json: {key}.{words}" in str(caught.value)


@pytest.mark.parametrize("load", [lambda m: load_policy(tiny_config(m)), lambda m: load_for_inference(m, None)])
@pytest.mark.parametrize("case", ["truncate", "a share left out"])
def test_both_loaders_refuse_a_rope_that_mlx_lm_does_not_compute(
    case: str, load: Any, tiny_llama: Path, tmp_path: Path
):
    _, rope, words = REFUSED[case]
    shutil.copytree(tiny_llama, tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    (tmp_path / "m/config.json").write_text(json.dumps({**config, "rope_scaling": rope}))
    with pytest.raises(UserError, match=words):
        load(tmp_path / "m")
