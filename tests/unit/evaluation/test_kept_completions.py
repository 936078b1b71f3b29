"""Completions that are kept: of an evaluation that was cut off, of other processes, of the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from support.command import cli
from support.tiny_runs import evaluate

from mlx_grpo.evaluation.generators import UNFINISHED


@pytest.mark.parametrize("backend", ["mlx", "torch"])
def test_interrupted_evaluation_continues_with_the_batch_it_was_in(run: Path, tmp_path: Path, backend: str):
    whole, done = [], []
    uncut = evaluate(run, backend, out=tmp_path / "whole", progress=lambda *call: whole.append(call))

    def unplug(*call: object) -> None:
        done.append(call)
        if len(done) == len(whole) // 2 + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(run, backend, out=tmp_path / "cut", progress=unplug)
    with (tmp_path / "cut" / UNFINISHED).open("a") as file:
        file.write('{"key": "torn')
    resumed = evaluate(run, backend, out=tmp_path / "cut", progress=lambda *call: done.append(call))
    assert done == whole
    assert resumed.episodes == uncut.episodes
    assert not (tmp_path / "cut" / UNFINISHED).exists()


def test_processes_that_share_the_prompts_write_the_same_files_as_one(run: Path, tmp_path: Path):
    pytest.importorskip("torch", reason="needs torch")
    whole = evaluate(run, "mlx", torch_episodes=2, out=tmp_path / "one")
    options = ("--device", "cpu", "--out", "two", "--json", "--processes", "2")
    shared = cli("eval", str(run), "--backend", "mlx", "--torch-episodes", "2", *options, folder=tmp_path)
    assert shared.returncode == 0, shared.stderr
    for name in ("eval.json", "episodes.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert json.loads(shared.stdout) == json.loads(json.dumps(whole.results))
    refused = cli("eval", str(run), *options, folder=tmp_path)
    assert refused.returncode == 2
    assert "add --backend mlx" in refused.stderr


def test_completions_of_another_adapter_are_not_used(run: Path, tmp_path: Path):
    copied = shutil.copytree(run, tmp_path / "copied")

    weights = mx.load(str(run / "warm_start" / "adapters.safetensors"))
    for name in ("warm_start", "adapter"):
        changed = {key: value * (2 if name == "adapter" else 1) for key, value in weights.items()}
        mx.save_safetensors(str(copied / name / "adapters.safetensors"), changed)

    def unplug(model: str, done: int, total: int) -> None:
        if model == "trained":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(copied, "mlx", progress=unplug)
    shutil.copyfile(run / "warm_start" / "adapters.safetensors", copied / "adapter" / "adapters.safetensors")
    episodes = evaluate(copied, "mlx").episodes
    assert episodes["trained"] == episodes["warm start"]


def test_models_with_the_same_weights_are_completed_once(run: Path, tmp_path: Path):
    copied = shutil.copytree(run, tmp_path / "copied")
    for name in ("adapters.safetensors", "adapter_config.json"):
        shutil.copyfile(run / "warm_start" / name, copied / "adapter" / name)
    completed = []
    episodes = evaluate(copied, "mlx", progress=lambda model, *_: completed.append(model)).episodes
    assert set(completed) == {"baseline", "warm start"}
    assert episodes["trained"] == episodes["warm start"]
