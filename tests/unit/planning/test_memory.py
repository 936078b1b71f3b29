"""What `estimate` counts, by hand, and that runs hold no more than it takes for granted."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support.memory_cases import CASES, SMALL_SMOL, SMOL, predicted_and_measured
from support.paths import SHARED
from support.tiny_models import LLAMA, make_model_folder, tiny_config

from mlx_grpo.data.batch import make_batch, split_batch
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.generation.rollout import generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.policy import Policy, load_policy, load_tokenizer_of, outline
from mlx_grpo.planning.architecture import count
from mlx_grpo.planning.memory import Lengths, Pass, by_token, estimate, kept
from mlx_grpo.training.accumulate import accumulate


def model_of(folder: Path, **settings: object) -> Path:
    (folder / "config.json").write_text(json.dumps({**SMOL, **SMALL_SMOL, **settings}))
    return folder


def test_config_json_alone_gives_the_shapes_that_training_has(tiny_qwen3: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text((tiny_qwen3 / "config.json").read_text())
    for changes in ({}, {"lora": {"rank": 2, "num_layers": 1}}, {"fine_tune_type": "full", "lora": {}}):
        config = tiny_config(tiny_qwen3, **changes)
        outlined, loaded = outline(tmp_path, config), load_policy(config).model
        for real, drawn in ((loaded, outlined), (loaded.trainable_parameters(), outlined.trainable_parameters())):
            arrays = {name: (w.shape, w.dtype) for name, w in tree_flatten(real)}
            assert arrays == {name: (w.shape, w.dtype) for name, w in tree_flatten(drawn)}


def test_counting_takes_no_memory(tmp_path: Path):
    mx.clear_cache()
    before = mx.get_active_memory()
    sizes, _ = count(model_of(tmp_path), tiny_config(tmp_path))
    assert sizes.parameters > 50e6
    assert mx.get_active_memory() - before < 1e5


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="needs Qwen3's real config.json, which a bare clone lacks")
def test_the_parameters_of_qwen3_are_counted():
    sizes, _ = count(SHARED / "models" / "qwen3-0.6b", tiny_config(SHARED / "models" / "qwen3-0.6b", dtype="bfloat16"))
    assert sizes.parameters == 596_049_920
    assert sizes.base_bytes == 2 * 596_049_920
    # Rank 4 on q (1024 + 2048), k and v (1024 + 1024), o (2048 + 1024), gate, up (1024 + 3072), down (3072 + 1024).
    assert sizes.trainable == 28 * 4 * (3072 + 2 * 2048 + 3072 + 3 * 4096)


def test_a_quantized_base_takes_its_bits_and_a_scale_and_bias_for_64(tmp_path: Path):
    sizes, _ = count(model_of(tmp_path), tiny_config(tmp_path), bits=4)
    plain, _ = count(tmp_path, tiny_config(tmp_path))
    assert sizes.base_bytes == pytest.approx(plain.base_bytes * (4 + 2 * 32 / 64) / 32, rel=1e-2)


def test_pairs_are_counted_by_hand():
    assert Pass(2, 3).pairs == 2 * 3 * 3  # one block, masked half included
    assert Pass(1, 300).pairs == 256 * 256 + 44 * 300
    assert Pass(1, 300, whole=True).pairs == 300 * 300
    assert Pass(2, 3, prefix=10).pairs == 2 * (3 * 3 + 3 * 10)


def test_what_a_token_leaves_behind_is_counted_by_hand(tmp_path: Path):
    folder = make_model_folder(tmp_path / "m", LLAMA)
    sizes, _ = count(folder, tiny_config(folder))
    # D 32, H·d 32, K·d 16, I 64: two norms' inputs and outputs; queries, weighted values and their sum; keys and
    # values; gate, sigmoid, silu, up and product; seven adapters of rank 4.
    floats = 4 * 32 + 3 * 32 + 2 * 16 + 5 * 64 + 7 * 4
    assert by_token(sizes, fused=False, prefixed=False) == 4 * floats
    assert by_token(sizes, fused=False, prefixed=True) == 4 * (floats + 32)  # queries stacked over the prefix
    checkpointed = kept(sizes, [], [Pass(3, 5)], True, False)
    assert checkpointed == 2 * 15 * 4 * (32 + 2 * 16)


def test_layers_below_the_first_adapter_keep_nothing(tmp_path: Path):
    folder = make_model_folder(tmp_path / "m", LLAMA)
    one, _ = count(folder, tiny_config(folder, lora={"rank": 4, "num_layers": 1}))
    both, _ = count(folder, tiny_config(folder))
    assert kept(both, [], [Pass(2, 8)], False, False) > 1.9 * kept(one, [], [Pass(2, 8)], False, False)


@pytest.mark.parametrize(
    "changes",
    [{"micro_batch_size": 1}, {"gradient_checkpointing": True}, {"max_completion_length": 8}, {"dtype": "bfloat16"}],
    ids=str,
)
def test_what_saves_memory_lowers_the_prediction(changes: dict, tmp_path: Path):
    values = {"prompts_per_step": 1, "num_generations": 8, "max_completion_length": 64}
    model_of(tmp_path)
    peaks = []
    for config in (tiny_config(tmp_path, **values), tiny_config(tmp_path, **{**values, **changes})):
        peaks.append(estimate(count(tmp_path, config)[0], config, Lengths(256), False).peak)
    assert peaks[1] < peaks[0]


def test_a_prediction_is_close_to_what_a_run_takes():
    predicted, measured = predicted_and_measured(CASES["SmolLM2 8 layers, LoRA, quick"])
    assert 0.95 < predicted / measured < 1.15


def policy_of(folder: Path, tokenizer: Path, **settings: object) -> Policy:
    policy = Policy(outline(model_of(folder, **settings), tiny_config(folder)), load_tokenizer_of(tokenizer), folder)
    mx.eval(policy.model.parameters())
    return policy


def test_a_decoded_position_leaves_no_vocabulary_behind(tiny_qwen3: Path, tmp_path: Path):
    policy = policy_of(tmp_path, tiny_qwen3, num_hidden_layers=1, vocab_size=20000)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    generate(policy, [Prompt("a", "", (5, 6, 7))], 8, Sampling(32, ignore_stop=True))
    logits = 8 * 20000 * 4
    assert mx.get_peak_memory() - before < 12 * logits  # all positions' would be 64


def test_micro_batches_of_one_prompt_live_one_after_another(tiny_qwen3: Path, tmp_path: Path):
    policy = policy_of(tmp_path, tiny_qwen3, num_hidden_layers=8, vocab_size=300)
    prompt = Prompt("a", "", tuple(range(3, 19)))
    rollouts = [Rollout(prompt, tuple(range(3, 67)), "", "length", (0.0,) * 64) for _ in range(8)]
    batch = make_batch(rollouts, mx.array(np.linspace(-1, 1, 8), mx.float32)[None])

    def loss(part, prefixes=None):
        return ((score_tokens(policy.model, part, prefixes=prefixes).logps * part.advantages[:, None]).sum(),)

    peaks = []
    for rows in (8, 2):
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        accumulate(policy.model, loss, split_batch(batch, rows))
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < 0.5 * peaks[0]
