"""`mlx-grpo bench` times the parts of a step, with and without the shared prompt."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import mlx.nn as nn
import pytest
from click.testing import CliRunner
from rich.console import Console
from support.command import cli
from support.tiny_models import LLAMA, make_model_folder

from mlx_grpo.cli.bench import bench_command, print_bench
from mlx_grpo.cli.bench_processes import best_count, print_counts
from mlx_grpo.config.files import load_config
from mlx_grpo.data.types import Prompt
from mlx_grpo.models.policy import load_for_inference
from mlx_grpo.models.tree import common_start
from mlx_grpo.planning.architecture import weights_in
from mlx_grpo.planning.flops import Shape, training_flops
from mlx_grpo.training.bench import bench, prompts_of


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
    assert {"machine", "memory_gb", "mlx", "mlx_grpo"} <= results.keys()
    for r in results["shapes"]:
        parts = [r[name] for name in ("prefill", "decode", "reward", "train", "update")]
        assert all(part > 0 for part in parts)
        assert r["step"] == pytest.approx(sum(parts))
        assert r["train_plain"] > 0
        tokens = r["num_generations"] * r["completion_tokens"]
        assert r["rollout_tokens_per_s"] == pytest.approx(tokens / (r["prefill"] + r["decode"]))
        assert r["steps_per_s"] == pytest.approx(1 / r["step"])
        assert r["peak_gb"] >= r["train_peak_gb"] > 0
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
    assert "2 processes with prompts of their own" in done.stdout


def test_counts_of_processes_take_the_same_prompts_and_one_is_advised(tiny_qwen3: Path, tmp_path: Path):
    config_file(tiny_qwen3, tmp_path)
    options = ("--shapes", "20x2x5", "--repeats", "1", "--processes", "1,2", "--json")
    done = cli("bench", "c.yaml", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [(r["processes"], r["shapes"][0]["prompts"]) for r in results] == [(1, 2), (2, 1)]
    console = Console(file=io.StringIO(), width=80)
    print_counts(console, results, as_json=False)
    printed = console.file.getvalue()
    assert "2 prompts, 20 x 2 x 5" in printed
    assert "take --processes" in printed


def test_memory_of_several_processes_is_that_of_all():
    shape = dict(zip(("prompt_tokens", "num_generations", "completion_tokens"), (20, 2, 5), strict=True))
    times = {"decode": 1.0, "train": 1.0, "step": 2.0, "tokens_per_s": 10.0, "peak_gb": 3.25}
    results = [
        {"processes": count, "shapes": [{**shape, "shared_tokens": 0, "prompts": 2 // count, **times}]}
        for count in (1, 2)
    ]
    console = Console(file=io.StringIO(), width=80)
    print_counts(console, results, as_json=False)
    assert [line.split()[-1] for line in console.file.getvalue().splitlines() if line[:1] in "12"][-2:] == [
        "3.25",
        "6.50",
    ]


def test_larger_count_is_advised_only_where_it_is_faster():
    assert best_count({1: 10.0, 2: 7.0}) == 2
    assert best_count({2: 9.8, 1: 10.0}) == 1


@pytest.mark.parametrize("counts", ["0", "1,1", "1,", "two"])
def test_wrong_counts_are_refused_in_one_line(counts: str):
    done = CliRunner().invoke(bench_command, ["qwen3", "--processes", counts])
    assert done.exit_code == 2
    assert "such as 1,2" in done.output


def test_failed_count_ends_the_comparison(tiny_qwen3: Path, tmp_path: Path):
    config_file(tiny_qwen3, tmp_path)
    done = cli("bench", "c.yaml", "--shapes", "1000x2x5", "--processes", "1,2", folder=tmp_path)
    assert done.returncode == 2
    assert "512" in done.stderr
    assert done.stdout == ""


def test_shape_beyond_the_models_limit_is_refused(tiny_qwen3: Path, tmp_path: Path):
    config_file(tiny_qwen3, tmp_path)
    done = cli("bench", "c.yaml", "--shapes", "1000x16x96", "--repeats", "1", folder=tmp_path)
    assert done.returncode == 2  # longer than the tiny model's context
    assert "512" in done.stderr


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal_and_show_rates_and_memory(tiny_qwen3: Path, tmp_path: Path, width: int):
    config_file(tiny_qwen3, tmp_path)
    with contextlib.chdir(tmp_path):
        results = bench(load_config("c.yaml"), [Shape(19, 2, 5), Shape(8, 2, 3)], 1, True, lambda _: None)
    shown = io.StringIO()
    print_bench(Console(file=shown, width=width), results)
    lines = shown.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines[1:])  # the first is a sentence, which the terminal folds
    table = next(i for i, line in enumerate(lines) if line.strip() == "Sampling, steps and memory")
    header = " ".join(lines[table + 1 : table + 3]).split()
    assert sorted(header) == sorted(["P", "x", "G", "x", "T", "rollout", "tok/s", "steps/s", "peak", "GB"])
    first = results["shapes"][0]
    rates = [f"{first['rollout_tokens_per_s']:.0f}", f"{first['steps_per_s']:.3g}", f"{first['peak_gb']:.2f}"]
    row = next(line for line in lines[table:] if "19 x 2 x 5" in line)
    assert row.split()[5:] == rates


def test_prompts_with_a_common_beginning_are_timed_with_it_run_once_and_for_each(tiny_qwen3: Path, tmp_path: Path):
    config_file(tiny_qwen3, tmp_path)
    shapes = ("--shapes", "60/20x2x5", "--prompts", "3", "--repeats", "1")
    (shape,) = json.loads(cli("bench", "c.yaml", *shapes, "--json", folder=tmp_path).stdout)["shapes"]
    assert (shape["prompt_tokens"], shape["shared_tokens"], shape["prompts"]) == (80, 60, 3)
    assert min(shape["train"], shape["train_groups"], shape["train_plain"]) > 0
    assert shape["tokens_per_s"] == pytest.approx(3 * 2 * 5 / shape["step"])
    assert "60/20 x 2 x 5" in cli("bench", "c.yaml", *shapes, folder=tmp_path).stdout


def test_bench_prompts_have_the_shapes_tokens_in_common():
    row = Prompt("a", "", tuple(range(100, 140)))
    alone, first, second = *prompts_of(row, Shape.parse("50x2x5")), *prompts_of(row, Shape.parse("60/20x2x5", 2))
    assert alone.token_ids == (row.token_ids * 2)[:50]
    assert len(first.token_ids) == len(second.token_ids) == 80
    assert common_start([first.token_ids, second.token_ids]) == 60


@pytest.mark.parametrize("text", ["8x8", "1/2/3x8x8", "0/5x2x2", "axbxc", "5x2x0"])
def test_shape_of_another_form_is_refused(text: str):
    with pytest.raises(ValueError):
        Shape.parse(text)


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


def test_flops_of_prompts_with_a_common_beginning_equal_a_count_by_hand(tmp_path: Path):
    model = load_for_inference(make_model_folder(tmp_path / "m", LLAMA), None, "float32").model
    alone, three = Shape(5, 3, 2), Shape(9, 3, 2, shared_tokens=4, prompts=3)
    weights = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64)
    pairs = 4 * 4 / 2 + 3 * (5 * 5 / 2 + 5 * 4 + 3 * (2 * 2 / 2 + 2 * 9))
    expected = 2 * 2 * weights * (4 + 3 * 5 + 9 * 2) + 2 * 2 * model.args.vocab_size * 32 * 9 * 2 + 24 * 32 * pairs
    assert training_flops(model, three, full=False) == pytest.approx(expected)
    assert training_flops(model, alone, full=False) < expected


def test_packed_weights_count_by_their_unpacked_number():
    assert weights_in(nn.QuantizedLinear(64, 32, group_size=32, bits=4)) == 64 * 32
    assert weights_in(nn.QuantizedEmbedding(96, 64, group_size=32, bits=8)) == 96 * 64
