"""Sizes and peaks counted by hand, and runs that hold no more than the estimate assumes."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support.memory_cases import CASES, SMALL_SMOL, SMOL, three_peaks
from support.paths import SHARED
from support.tiny_models import LLAMA, QWEN3, make_model_folder, tiny_config

from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import make_batch
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.generation.rollout import generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models import policy as policy_module
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.policy import Policy, load_policy, load_tokenizer_of, outline
from mlx_grpo.models.tree import token_tree
from mlx_grpo.planning.activations import Activations, MicroBatch, Pass
from mlx_grpo.planning.architecture import Architecture, count
from mlx_grpo.planning.memory import Lengths, estimate
from mlx_grpo.training.accumulate import accumulate


def model_of(folder: Path, **settings: object) -> Path:
    (folder / "config.json").write_text(json.dumps({**SMOL, **SMALL_SMOL, **settings}))
    return folder


def sizes_of(path: Path, config: Config, bits: int | None = None) -> Architecture:
    folder = ModelFolder.read(path)
    return count(outline(folder, config, bits), folder, config, bits)


def test_outline_has_the_shapes_of_the_loaded_policy(tiny_qwen3: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text((tiny_qwen3 / "config.json").read_text())
    for changes in ({}, {"lora": {"rank": 2, "num_layers": 1}}, {"fine_tune_type": "full", "lora": {}}):
        config = tiny_config(tiny_qwen3, **changes)
        outlined, loaded = outline(ModelFolder.read(tmp_path), config), load_policy(config).model
        for real, drawn in ((loaded, outlined), (loaded.trainable_parameters(), outlined.trainable_parameters())):
            arrays = {name: (w.shape, w.dtype) for name, w in tree_flatten(real)}
            assert arrays == {name: (w.shape, w.dtype) for name, w in tree_flatten(drawn)}


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "unpacked"])
@pytest.mark.parametrize("bits", [None, 4])
def test_count_of_a_loaded_policy_is_that_of_its_outline(
    bits: int | None, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(policy_module, "multiplies_packed", lambda device: packed)
    path = make_model_folder(tmp_path / "m", {**QWEN3, "hidden_size": 64})
    if bits:
        mlx_lm.convert(str(path), str(path := tmp_path / "q"), quantize=True, q_group_size=32, q_bits=bits)
    config = tiny_config(path)
    policy = load_policy(config)
    outlined = count(outline(policy.base, config, packed=packed), policy.base, config)
    assert count(policy.model, policy.base, config) == outlined


def test_count_takes_no_memory(tmp_path: Path):
    mx.clear_cache()
    before = mx.get_active_memory()
    sizes = sizes_of(model_of(tmp_path), tiny_config(tmp_path))
    assert sizes.parameters > 50e6
    assert mx.get_active_memory() - before < 1e5


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="needs Qwen3's real config.json, which a bare clone lacks")
def test_count_finds_qwen3s_596_million_parameters():
    path = SHARED / "models" / "qwen3-0.6b"
    sizes = sizes_of(path, tiny_config(path, dtype="bfloat16"))
    assert sizes.parameters == 596_049_920
    assert sizes.base_bytes == 2 * 596_049_920
    # Rank 4 on q (1024 + 2048), k and v (1024 + 1024), o (2048 + 1024), gate, up (1024 + 3072), down (3072 + 1024).
    assert sizes.trainable == 28 * 4 * (3072 + 2 * 2048 + 3072 + 3 * 4096)


def test_quantized_base_takes_its_bits_plus_a_scale_and_bias_for_64_weights(tmp_path: Path):
    sizes = sizes_of(model_of(tmp_path), tiny_config(tmp_path), bits=4)
    plain = sizes_of(tmp_path, tiny_config(tmp_path))
    assert sizes.parameters == plain.parameters
    assert sizes.base_bytes == pytest.approx(plain.base_bytes * (4 + 2 * 32 / 64) / 32, rel=1e-2)


def test_pairs_include_the_masked_ones_of_computed_blocks():
    assert Pass(2, 3).pairs == 2 * 3 * 3  # one block, masked half included
    assert Pass(1, 300).pairs == 256 * 256 + 44 * 300
    assert Pass(1, 300, whole=True).pairs == 300 * 300
    assert Pass(2, 3, prefix=10).pairs == 2 * (3 * 3 + 3 * 10)


def test_layer_keeps_of_a_token_the_arrays_counted_by_hand(tmp_path: Path):
    folder = make_model_folder(tmp_path / "m", LLAMA)
    activations = Activations(sizes_of(folder, tiny_config(folder)), fused=False)
    # D 32, H·d 32, K·d 16, I 64: two norms' inputs and outputs; queries, weighted values and their sum; keys and
    # values; gate, sigmoid, silu, up and product; seven adapters of rank 4.
    floats = 4 * 32 + 3 * 32 + 2 * 16 + 5 * 64 + 7 * 4
    assert activations.per_token(prefixed=False) == 4 * floats
    assert activations.per_token(prefixed=True) == 4 * (floats + 32)  # queries stacked over the prefix
    checkpointed = activations.kept(MicroBatch([], [Pass(3, 5)], 15), checkpointing=True)
    assert checkpointed == 2 * 15 * 4 * (32 + 2 * 16)


def test_layers_below_the_first_adapter_keep_nothing(tmp_path: Path):
    folder = make_model_folder(tmp_path / "m", LLAMA)
    batch = MicroBatch([], [Pass(2, 8)], 16)
    one, both = (
        Activations(sizes_of(folder, tiny_config(folder, lora=lora)), False).kept(batch, checkpointing=False)
        for lora in ({"rank": 4, "num_layers": 1}, {"rank": 4})
    )
    assert both > 1.9 * one


@pytest.mark.parametrize(
    "changes",
    [{"micro_batch_size": 1}, {"gradient_checkpointing": True}, {"max_completion_length": 8}, {"dtype": "bfloat16"}],
    ids=str,
)
def test_estimate_falls_with_settings_that_save_memory(changes: dict, tmp_path: Path):
    values = {"prompts_per_step": 1, "num_generations": 8, "max_completion_length": 64}
    model_of(tmp_path)
    peaks = []
    for config in (tiny_config(tmp_path, **values), tiny_config(tmp_path, **{**values, **changes})):
        peaks.append(estimate(sizes_of(tmp_path, config), config, Lengths(256), False).peak)
    assert peaks[1] < peaks[0]


def test_prediction_and_measurement_before_a_run_are_close_to_its_peak():
    predicted, before, peak = three_peaks(CASES["SmolLM2 8 layers, LoRA, quick"])
    assert 0.95 < predicted / peak < 1.15
    assert 0.98 < before / peak < 1.05


def policy_of(folder: Path, tokenizer: Path, **settings: object) -> Policy:
    base = ModelFolder.read(model_of(folder, **settings))
    policy = Policy(outline(base, tiny_config(folder)), load_tokenizer_of(tokenizer), base)
    mx.eval(policy.model.parameters())
    return policy


def test_decoding_keeps_no_logits_of_earlier_positions(tiny_qwen3: Path, tmp_path: Path):
    policy = policy_of(tmp_path, tiny_qwen3, num_hidden_layers=1, vocab_size=20000)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    generate(policy, [Prompt("a", "", (5, 6, 7))], 8, Sampling(32, ignore_stop=True))
    logits = 8 * 20000 * 4
    assert mx.get_peak_memory() - before < 12 * logits  # all positions' would be 64


def test_micro_batches_of_one_prompt_release_their_memory(tiny_qwen3: Path, tmp_path: Path):
    policy = policy_of(tmp_path, tiny_qwen3, num_hidden_layers=8, vocab_size=300)
    prompt = Prompt("a", "", tuple(range(3, 19)))
    rollouts = [Rollout(prompt, tuple(range(3, 67)), "", "length", (0.0,) * 64) for _ in range(8)]
    batch = make_batch(rollouts, mx.array(np.linspace(-1, 1, 8), mx.float32)[None])

    def loss(part, chain=()):
        return ((score_tokens(policy.model, part, chain=chain).logps * part.advantages[:, None]).sum(),)

    peaks = []
    for rows in (8, 2):
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        accumulate(policy.model, loss, token_tree(batch, rows))
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < 0.5 * peaks[0]
