"""A run's files, its end when updates are not finite, and its memory and speed over many steps."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from support.tiny_models import tiny_config
from support.tiny_runs import reward_by, rows_file

from mlx_grpo import runs
from mlx_grpo.config.schema import Config
from mlx_grpo.errors import UserError
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.run_logger import INSPECTION
from mlx_grpo.training.trainer import train


def letters(model: Path, folder: Path, **changes: object) -> Config:
    """Return the configuration of a run in `folder` that rewards letters."""
    data, reward = {"train": rows_file(folder)}, reward_by("share_of_letters")
    return tiny_config(model, output_dir=str(folder / "runs"), data=data, reward=reward, **changes)


def test_diverging_run_stops_after_five_skipped_updates_and_writes_its_batch(tiny_qwen3: Path, tmp_path: Path):
    config = letters(tiny_qwen3, tmp_path, max_steps=20, learning_rate=1e30)
    with pytest.raises(UserError, match="not finite 5 times in a row"):
        train(config, SilentReporter())
    run = tmp_path / "runs" / "latest"
    skipped = [record["update_skipped"] for record in runs.read_jsonl(run / runs.METRICS)]
    assert skipped[0] == 0
    assert skipped[-5:] == [1] * 5
    batch = [json.loads(line) for line in (run / INSPECTION).read_text().splitlines()]
    assert len(batch) == config.prompts_per_step * config.num_generations
    assert all(row["completion_ids"] and row["prompt_ids"] for row in batch)


@pytest.mark.parametrize("until", [3, 4, 6])  # between save steps, at one, and at the run's own end
def test_last_checkpoint_is_written_once(tiny_qwen3: Path, tmp_path: Path, monkeypatch, until: int):
    saved = []
    monkeypatch.setattr("mlx_grpo.training.run_logger.save_checkpoint", lambda run, state, at: saved.append(at.steps))
    train(letters(tiny_qwen3, tmp_path, max_steps=6, save_steps=2), SilentReporter(), until=until)
    assert saved == [*range(0, until, 2), until]


@pytest.mark.long
def test_three_hundred_steps_keep_their_memory_and_speed(tiny_qwen3: Path, tmp_path: Path):
    memory, resident = [], []

    class Meter(SilentReporter):
        def step(self, metrics: dict[str, float]) -> None:
            memory.append(mx.get_active_memory())
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]))

    train(letters(tiny_qwen3, tmp_path, max_steps=300, save_steps=10), Meter())
    times = [record["step_time"] for record in runs.read_jsonl(tmp_path / "runs" / "latest" / runs.METRICS)]
    assert max(memory[50:]) <= 1.02 * memory[50]
    assert np.mean(resident[-50:]) < 1.05 * np.mean(resident[50:100])
    assert np.median(times[-100:]) < 1.5 * np.median(times[50:150])
