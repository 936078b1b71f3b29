"""Processes that share a step train as one process does."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from support import ring
from support.command import cli
from support.ranks_config import CONFIG
from support.toy_run import fail_on_process_1, write_run

from mlx_grpo.distributed.ranks import Ranks

EVERYTHING = ("beta=0.1", "num_iterations=2", "top_entropy_quantile=0.5", "dynamic_sampling=2", "scale_rewards=batch")


@pytest.fixture
def folder(tiny_qwen3: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path, **{name: CONFIG.format(model=tiny_qwen3, out=name) for name in ("one", "two")})


def train(folder: Path, name: str, *arguments: str, count: int = 1) -> tuple[dict, list[dict], list[dict]]:
    """Train in `count` processes; return the run's adapter, metrics and samples."""
    ring.run(folder, count, "train", f"{name}.yaml", *arguments)
    run = folder / name / "latest"
    adapter = {n: np.array(w) for n, w in mx.load(str(run / "adapter" / "adapters.safetensors")).items()}
    lines = [(run / f"{kind}.jsonl").read_text().splitlines() for kind in ("metrics", "samples")]
    return adapter, *([json.loads(line) for line in each] for each in lines)


# A rounding error at the entropy threshold selects another token, and two runs diverge: so that case is short.
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ((), 2),
        ((), 4),
        (("max_steps=3", *EVERYTHING), 2),
        (("max_steps=2", "max_completion_length=40", "warm_start.steps=0", """branch_at='"'"""), 2),
        pytest.param(("max_steps=3", *EVERYTHING), 4, marks=pytest.mark.long),
    ],
)
def test_several_processes_take_the_same_steps_as_one(folder: Path, options: tuple, count: int):
    adapter, metrics, samples = train(folder, "one", *options)
    shared_adapter, shared_metrics, shared_samples = train(folder, "two", *options, count=count)
    assert shared_samples == samples
    for one, two in zip(metrics, shared_metrics, strict=True):
        for name in set(one) - {"step_time", "peak_memory_gb", "phase"}:
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-5), (one["step"], name)
    branched = any("stem_tokens" in sample for sample in samples)
    assert branched == any("branch_at" in option for option in options)
    for name, weights in adapter.items():
        assert np.linalg.norm(shared_adapter[name] - weights) < 1e-3 * np.linalg.norm(weights), name


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_compute_the_same_gradient_as_one(folder: Path, count: int):
    # An epsilon far above every gradient makes Adam's first step the gradient itself, times the rate.
    plain = ("warm_start.steps=0", "max_steps=1", "learning_rate=1.0", "adam_epsilon=1000.0", "max_grad_norm=0")
    adapter, _, _ = train(folder, "one", *plain, *EVERYTHING)
    shared_adapter, _, _ = train(folder, "two", *plain, *EVERYTHING, count=count)
    steps = {name: weights for name, weights in adapter.items() if name.endswith("lora_b")}  # from zero
    for name, step in steps.items():
        assert step.any()
        np.testing.assert_allclose(shared_adapter[name], step, atol=1e-5 * np.abs(step).max(), err_msg=name)


def test_failing_process_ends_the_run_with_its_error(folder: Path):
    fail_on_process_1(folder)
    finished = cli("train", "two.yaml", "--processes", "2", folder=folder)
    assert finished.returncode == 2
    assert "toy:vowels raised ZeroDivisionError" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_more_processes_than_cores_are_refused(folder: Path):
    finished = cli("train", "two.yaml", "--processes", "4096", folder=folder)
    assert finished.returncode == 2
    assert "--processes: 4096" in finished.stderr


@pytest.mark.parametrize(("items", "size"), [(6, 2), (7, 3), (1, 4), (0, 2)])
def test_shares_are_even_and_cover_everything(items: int, size: int):
    shares = []
    for rank in range(size):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, size
        shares.append(list(ranks.share(range(items))))
    assert [item for share in shares for item in share] == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


LENGTH = len(json.dumps(5))


@pytest.mark.parametrize(
    "answers",
    [
        ([LENGTH, -7],),
        ([LENGTH, 2**31 - 1],),
        ([0, LENGTH],),
        ([LENGTH, LENGTH], [b"5", b"\xe9"]),
        ([LENGTH, LENGTH], [b"5", b"6"]),
    ],
)
def test_confirm_rejects_what_a_broken_ring_returns(answers: tuple, monkeypatch: pytest.MonkeyPatch):
    # MLX 0.32.4: an all_gather whose peer is killed may return uninitialized memory; it can't be provoked.
    ranks, remaining = Ranks(), list(answers)
    ranks.size = 2

    def all_gather(sent: mx.array, group: object) -> mx.array:
        answer = remaining.pop(0)
        return mx.array(answer if sent.ndim == 1 else [list(row) for row in answer], sent.dtype)

    monkeypatch.setattr(mx.distributed, "all_gather", all_gather)
    with pytest.raises(RuntimeError, match="lost each other"):
        ranks.confirm(5)
    assert not remaining
