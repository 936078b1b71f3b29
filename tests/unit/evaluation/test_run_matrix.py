"""Models of several runs: named by the settings that differ, and only where they can be compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.paths import ROOT

from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.run_matrix import build_run_matrix
from mlx_grpo.runs import Run

BASE = {"model": "m", "warm_start": {"steps": 80}}


def run_of(folder: Path, name: str, start: bytes | None = b"start", **changes: object) -> Path:
    """A run folder as build_run_matrix reads it: config and adapters."""
    run = folder / name
    for adapter, weights in (("adapter", name.encode()), ("warm_start", start)):
        if weights is not None:
            (run / adapter).mkdir(parents=True)
            (run / adapter / "adapters.safetensors").write_bytes(weights)
    (run / "config.yaml").write_text(yaml.safe_dump({**BASE, "output_dir": name, **changes}))
    return run


def test_one_run_gives_its_base_warm_start_and_trained_model(tmp_path: Path):
    run = run_of(tmp_path, "a")
    matrix = build_run_matrix([Run(run)])
    assert matrix.adapters == {"baseline": None, "warm start": run / "warm_start", "trained": run / "adapter"}
    assert matrix.warm_starts == {"trained": "warm start"}
    assert matrix.seeds == {}


def test_other_runs_are_named_by_the_settings_that_differ(tmp_path: Path):
    alone = {"steps": 0, "batch_size": 2}
    runs = [
        run_of(tmp_path, "a"),
        run_of(tmp_path, "b", b"other start", seed=1),
        run_of(tmp_path, "c", reward={"shuffle": True}),
        run_of(tmp_path, "d", None, warm_start=alone),
        run_of(tmp_path, "e", None, warm_start=alone, seed=1, lora={"rank": 4}),
        run_of(tmp_path, "f"),
    ]
    matrix = build_run_matrix([Run(run) for run in runs])
    assert list(matrix.adapters) == [
        "baseline",
        "warm start",
        "trained",
        "warm start, seed 1",
        "trained, seed 1",
        "trained, shuffled reward",
        "trained, no warm start",
        "trained, lora.rank=4, no warm start, seed 1",
        "trained, f",
    ]
    assert matrix.warm_starts == {
        "trained": "warm start",
        "trained, seed 1": "warm start, seed 1",
        "trained, shuffled reward": "warm start",  # the same weights need no row of their own
        "trained, f": "warm start",
    }
    assert matrix.runs["trained, seed 1"].folder == runs[1]
    assert matrix.seeds == {  # f repeats a's seed, and a repetition is no other seed
        "warm start, 2 seeds": ["warm start", "warm start, seed 1"],
        "trained, 2 seeds": ["trained", "trained, seed 1"],
    }
    assert list(build_run_matrix([Run(runs[3]), Run(runs[0])]).runs) == ["trained", "trained, warm_start.steps=80"]


def test_runs_that_share_a_warm_start_count_as_seeds(tmp_path: Path):
    first = run_of(tmp_path, "a")
    taken = {**BASE["warm_start"], "run": str(first)}
    matrix = build_run_matrix([Run(first), Run(run_of(tmp_path, "b", seed=1, warm_start=taken))])
    assert matrix.warm_starts == {"trained": "warm start", "trained, seed 1": "warm start"}
    assert matrix.seeds == {"trained, 2 seeds": ["trained", "trained, seed 1"]}


def test_runs_that_differ_in_the_seed_alone_are_grouped(tmp_path: Path):
    runs = [run_of(tmp_path, f"s{seed}", b"%d" % seed, seed=seed) for seed in range(3)]
    runs += [run_of(tmp_path, f"g{seed}", None, warm_start={"steps": 0}, seed=seed) for seed in range(2)]
    assert build_run_matrix([Run(run) for run in runs]).seeds == {
        "warm start, 3 seeds": ["warm start", "warm start, seed 1", "warm start, seed 2"],
        "trained, 3 seeds": ["trained", "trained, seed 1", "trained, seed 2"],
        "trained, no warm start, 2 seeds": ["trained, no warm start", "trained, no warm start, seed 1"],
    }


def test_held_out_files_are_compared_by_their_contents(tmp_path: Path):
    for name, row in (("a", "{}"), ("b", "{}"), ("c", "[]")):
        (tmp_path / f"{name}.jsonl").write_text(row)
    runs = [run_of(tmp_path, f"run-{n}", data={"train": n, "heldout": str(tmp_path / f"{n}.jsonl")}) for n in "abc"]
    assert list(build_run_matrix([Run(run) for run in runs[:2]]).runs) == ["trained", "trained, data.train=b"]
    with pytest.raises(UserError, match="held-out prompts"):
        build_run_matrix([Run(run) for run in runs])


def test_runs_that_cannot_be_compared_are_all_named(tmp_path: Path):
    runs = [
        run_of(tmp_path, "a"),
        run_of(tmp_path, "b", model="other"),
        run_of(tmp_path, "c", data={"train": "shortlist-full"}),
    ]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.yaml").write_text(yaml.safe_dump(BASE))
    with pytest.raises(UserError) as caught:
        build_run_matrix([Run(run) for run in (*runs, tmp_path / "d")])
    assert [problem.split(": ")[1].split(",")[0] for problem in caught.value.problems] == [
        "model other",
        f"held-out prompts {ROOT / 'mlx_grpo/tasks/data/heldout-full.jsonl.gz'}",
        "has no adapter yet; let `mlx-grpo train` finish first",
    ]
