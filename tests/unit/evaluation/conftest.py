"""A short run with a warm start, runs beside it, and their evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.paths import BUNDLED_ROWS
from support.tiny_models import tiny_config
from support.tiny_runs import evaluate

from mlx_grpo.config.files import validate
from mlx_grpo.data.dataset import read_rows
from mlx_grpo.evaluation.eval import Evaluation
from mlx_grpo.runs import Run
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.trainer import train


@pytest.fixture(scope="session")
def run(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with a warm start, on three rows of the bundled data."""
    folder = tmp_path_factory.mktemp("run")
    for split in ("train", "heldout"):
        rows = read_rows(BUNDLED_ROWS / f"{split}.jsonl.gz")[:3]
        for row in rows:
            row["prompt"] = [{"role": "user", "content": row["prompt"][-1]["content"][:60]}]
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = tiny_config(
        tiny_qwen3,
        data={"train": str(folder)},
        warm_start={"steps": 2, "batch_size": 2},
        output_dir=str(folder / "runs"),
        eval={"episodes": 3, "max_new_tokens": 12, "batch_size": 2},
        max_completion_length=12,
    )
    return train(config, SilentReporter()).folder


@pytest.fixture(scope="session")
def others(run: Path) -> list[Path]:
    """Runs that differ from the first in their seed, and in having had no warm start."""
    folders = []
    for number, changes in enumerate(({"seed": 1}, {"warm_start": {"steps": 0}, "reward": {"shuffle": True}})):
        output_dir = str(run.parents[1] / f"others{number}")
        changed = validate({**Run(run).config.model_dump(), **changes, "output_dir": output_dir})
        folders.append(train(changed, SilentReporter()).folder)
    return folders


@pytest.fixture(scope="session")
def evaluations(run: Path, others: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Evaluation]:
    """The first run evaluated alone (False) and beside the others (True), in a folder of its own."""
    folder = tmp_path_factory.mktemp("out")
    return {
        several: evaluate(run, "mlx", others=[str(path) for path in others if several], out=folder / str(several))
        for several in (False, True)
    }
