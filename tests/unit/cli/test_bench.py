"""`mlx-grpo bench` times the parts of a step, with and without the shared prompt."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.nn as nn
import pytest
from support.command import cli
from support.tiny_models import LLAMA, make_model_folder

from mlx_grpo.models.policy import load_for_inference
from mlx_grpo.planning.architecture import weights_in
from mlx_grpo.planning.flops import Shape, training_flops


def config_file(model: Path, folder: Path) -> None:
    (folder / "rows.jsonl").write_text(json.dumps({"id": "a", "prompt": "say something"}))
    (folder / "toy.py").write_text("def f(completions, **columns):\n    return [len(c) for c in completions]\n")
    (folder / "c.yaml").write_text(
        f"model: {model}\ndtype: float32\ndata: {{train: rows.jsonl}}\nreward: {{rubric: null, functions: ['toy:f']}}\n"
    )


def test_every_part_is_timed_for_every_shape(tiny_qwen3: Path, tmp_path: Path):
    config_file(tiny_qwen3, tmp_path)
    done = cli("bench", "c.yaml", "--shapes", "40x2x9,8x3x4", "--repeats", "1", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [(r["prompt_tokens"], r["num_generations"], r["completion_tokens"]) for r in results["shapes"]] == [
        (40, 2, 9),
        (8, 3, 4),
    ]
    for r in results["shapes"]:
        parts = [r[name] for name in ("prefill", "decode", "reward", "train", "update")]
        assert all(part > 0 for part in parts)
        assert r["step"] == pytest.approx(sum(parts))
        assert r["train_plain"] > 0
        assert 0 < r["share_of_matrix_speed"] < 1.5


def test_each_process_takes_a_prompt_of_its_own(tiny_qwen3: Path, tmp_path: Path):
    config_file(tiny_qwen3, tmp_path)
    options = ("--shapes", "20x2x5", "--repeats", "1", "--no-plain", "--processes", "2")
    done = cli("bench", "c.yaml", *options, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    (shape,) = results["shapes"]
    assert results["processes"] == 2
    assert shape["tokens_per_s"] == pytest.approx(2 * 2 * 5 / shape["step"])
    assert "train_plain" not in shape
    done = cli("bench", "c.yaml", *options, folder=tmp_path)
    assert "2 processes with a prompt each" in done.stdout


def test_tables_fit_80_columns(tiny_qwen3: Path, tmp_path: Path):
    config_file(tiny_qwen3, tmp_path)
    done = cli("bench", "c.yaml", "--shapes", "1000x16x96", "--repeats", "1", folder=tmp_path)
    assert done.returncode == 2  # longer than the tiny model's context
    assert "512" in done.stderr
    done = cli("bench", "c.yaml", "--shapes", "20x2x5", "--repeats", "1", folder=tmp_path)
    lines = done.stdout.splitlines()
    assert any("20 x 2 x 5" in line for line in lines)
    assert all(len(line) <= 80 for line in lines[1:])


def test_invalid_shape_is_an_error(tmp_path: Path):
    done = cli("bench", "smollm2", "--shapes", "8x8", folder=tmp_path)
    assert done.returncode == 2
    assert "8x8" in done.stderr


def test_training_flops_equal_a_count_by_hand(tmp_path: Path):
    folder = make_model_folder(tmp_path / "m", LLAMA)
    model = load_for_inference(folder, None, "float32").model
    # Two layers of q, k, v, o (32x32, 32x16, 32x16, 32x32) and three 32x64; a head of vocabulary x 32.
    weights = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64)
    vocabulary = model.args.vocab_size * 32
    pairs = 5 * 5 / 2 + 3 * (2 * 2 / 2 + 2 * 5)
    expected = 2 * 2 * weights * (5 + 3 * 2) + 2 * 2 * vocabulary * 3 * 2 + 2 * 4 * 32 * pairs * 3
    assert training_flops(model, Shape(5, 3, 2), full=False) == pytest.approx(expected)


def test_packed_weights_count_by_their_unpacked_number():
    assert weights_in(nn.QuantizedLinear(64, 32, group_size=32, bits=4)) == 64 * 32
    assert weights_in(nn.QuantizedEmbedding(96, 64, group_size=32, bits=8)) == 96 * 64
