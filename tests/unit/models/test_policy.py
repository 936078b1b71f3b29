"""The policy's trainable parameters, its reference, and adapters in mlx-lm's format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load
from support.tiny_models import STOP, TEMPLATE, tiny_config, tiny_policy, with_template

from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import (
    find_model,
    load_adapter,
    load_for_inference,
    load_policy,
    load_tokenizer_of,
    save_adapter,
    swapped,
)

IDS = mx.array([[5, 60, 70, 80]])


def test_lora_adapts_every_linear_layer_and_starts_as_the_base_model(tiny_qwen3: Path):
    policy = load_policy(tiny_config(tiny_qwen3))
    names = {name.rsplit(".", 1)[0] for name, _ in tree_flatten(policy.model.trainable_parameters())}
    assert len(names) == 2 * 7  # q, k, v, o, gate, up, down of two layers
    base, _ = load(str(tiny_qwen3))
    np.testing.assert_array_equal(np.array(policy.model(IDS)), np.array(base(IDS)))


def test_mlx_and_pytorch_stop_at_the_same_tokens_which_are_all_that_are_named(tiny_qwen3: Path, tmp_path: Path):
    folder = with_template(tiny_qwen3, tmp_path / "m", TEMPLATE.replace("<|im_end|>", "<|im_start|>"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 6]}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": 7}))
    im_start, im_end = (config["vocab_size"] - 2, config["vocab_size"] - 1)  # ends a turn; the tokenizer's eos_token
    policy = load_policy(tiny_config(folder))
    assert policy.stop_ids == (5, 6, 7, im_start, im_end)
    assert load_tokenizer_of(folder).eos_token_ids == set(policy.stop_ids)  # what the PyTorch evaluation reads


def test_stop_tokens_that_are_no_ids_are_refused(tiny_qwen3: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_qwen3, tmp_path / "m")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [STOP]}))
    with pytest.raises(UserError, match=r"generation_config\.json: eos_token_id is .*give a token's number"):
        load_tokenizer_of(folder)


def test_lora_keys_and_layers_limit_the_trained_parameters(tiny_qwen3: Path):
    lora = {"rank": 2, "num_layers": 1, "keys": ["self_attn.q_proj"]}
    trained = dict(tree_flatten(load_policy(tiny_config(tiny_qwen3, lora=lora)).model.trainable_parameters()))
    assert {name: w.shape for name, w in trained.items()} == {
        "model.layers.1.self_attn.q_proj.lora_a": (32, 2),
        "model.layers.1.self_attn.q_proj.lora_b": (2, 32),
    }


def test_full_fine_tune_trains_every_weight_in_fp32(tiny_qwen3: Path):
    policy = load_policy(tiny_config(tiny_qwen3, fine_tune_type="full", lora={}, dtype="bfloat16"))
    trained = dict(tree_flatten(policy.model.trainable_parameters()))
    assert trained.keys() == dict(tree_flatten(policy.model.parameters())).keys()
    assert {w.dtype for w in trained.values()} == {mx.float32}


def test_lora_weights_stay_fp32_on_a_half_precision_base(tiny_qwen3: Path):
    policy = load_policy(tiny_config(tiny_qwen3, dtype="bfloat16"))
    assert policy.model.model.embed_tokens.weight.dtype == mx.bfloat16
    assert {w.dtype for _, w in tree_flatten(policy.model.trainable_parameters())} == {mx.float32}


def test_swapped_lends_the_starting_parameters_and_restores_the_trained_ones(tiny_qwen3: Path):
    policy = load_policy(tiny_config(tiny_qwen3))
    start, before = policy.model.trainable_parameters(), np.array(policy.model(IDS))
    trained = {n: mx.ones_like(w) * 0.01 for n, w in tree_flatten(policy.model.trainable_parameters())}
    policy.model.load_weights(list(trained.items()), strict=False)
    after = np.array(policy.model(IDS))
    with swapped(policy.model, start):
        np.testing.assert_array_equal(np.array(policy.model(IDS)), before)
    np.testing.assert_array_equal(np.array(policy.model(IDS)), after)
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.parametrize("changes", [{}, {"fine_tune_type": "full", "lora": {}}])
def test_saved_adapter_is_read_by_mlx_lm(tiny_qwen3: Path, tmp_path: Path, changes: dict):
    config = tiny_config(tiny_qwen3, **changes)
    policy = tiny_policy(tiny_qwen3, **changes)
    save_adapter(policy, config, tmp_path / "adapter")
    again, _ = load(str(tiny_qwen3), adapter_path=str(tmp_path / "adapter"))
    np.testing.assert_allclose(np.array(again(IDS)), np.array(policy.model(IDS)), atol=1e-5)
    ours = load_for_inference(tiny_qwen3, tmp_path / "adapter", "float32")
    np.testing.assert_allclose(np.array(ours.model(IDS)), np.array(policy.model(IDS)), atol=1e-5)
    fresh = load_policy(config)
    load_adapter(fresh, tmp_path / "adapter")
    np.testing.assert_array_equal(np.array(fresh.model(IDS)), np.array(policy.model(IDS)))


def test_rope_theta_nested_as_in_transformers_5_is_used(tiny_llama: Path, tmp_path: Path):
    def logits(**changes: object) -> np.ndarray:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(tiny_llama, folder)
        settings = json.loads((folder / "config.json").read_text())
        del settings["rope_theta"]
        (folder / "config.json").write_text(json.dumps(settings | changes))
        return np.array(load_policy(tiny_config(folder)).model(IDS))

    nested = logits(rope_parameters={"rope_theta": 50.0, "rope_type": "default"})
    np.testing.assert_array_equal(nested, logits(rope_theta=50.0))
    assert np.abs(nested - logits(rope_theta=10000.0)).max() > 1e-3


def test_activations_beyond_float16_are_refused_with_a_remedy(tiny_llama: Path, tmp_path: Path):
    shutil.copytree(tiny_llama, tmp_path / "m")
    weights = mx.load(str(tiny_llama / "model.safetensors"))
    weights["model.norm.weight"] = weights["model.norm.weight"] * 60000
    mx.save_safetensors(str(tmp_path / "m/model.safetensors"), weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="set dtype: float32"):
        load_policy(tiny_config(tmp_path / "m", dtype="float16"))
    assert load_policy(tiny_config(tmp_path / "m"))


def test_folder_without_weights_is_refused(tiny_llama: Path, tmp_path: Path):
    shutil.copytree(tiny_llama, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(UserError, match="can't be loaded"):
        load_policy(tiny_config(tmp_path / "m"))


def test_adapter_of_another_shape_is_refused(tiny_qwen3: Path, tmp_path: Path):
    save_adapter(tiny_policy(tiny_qwen3), tiny_config(tiny_qwen3), tmp_path)
    other = load_policy(tiny_config(tiny_qwen3, lora={"rank": 2}))
    with pytest.raises(UserError, match="does not fit"):
        load_adapter(other, tmp_path)


def test_seed_decides_the_starting_adapter(tiny_qwen3: Path):
    def start(seed: int) -> np.ndarray:
        return np.array(
            tree_flatten(load_policy(tiny_config(tiny_qwen3, seed=seed)).model.trainable_parameters())[0][1]
        )

    np.testing.assert_array_equal(start(1), start(1))
    assert np.abs(start(1) - start(2)).max() > 0


def test_find_model_refuses_a_folder_without_config_and_an_unknown_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(UserError, match=r"no config\.json"):
        find_model(str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="give a local folder"):
        find_model("no/such/folder/here")
