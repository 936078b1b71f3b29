"""Run folders: where a run keeps its config, metrics, samples, adapter, export and pictures."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

from mlx_grpo.config import Config, load_config, save_config
from mlx_grpo.errors import UserError

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
ADAPTER = "adapter"
WARM_START = "warm_start"
LATEST = "latest"
RESULTS = "eval.json"


def create_run(config: Config) -> Path:
    """A new folder under `output_dir`, named by time and model, with the config in it and `latest` pointing to it."""
    root = Path(config.output_dir)
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{Path(config.model).name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = len(list(root.glob(f"{name}*")))  # runs started within one second
        run = root / (f"{name}-{taken + 1}" if taken else name)
        run.mkdir()
        save_config(config, run / CONFIG)
        latest = root / LATEST
        latest.unlink(missing_ok=True)
        latest.symlink_to(run.name)
    except OSError as error:
        raise UserError(f"output_dir: {root} can't be written ({error.strerror}); choose another folder") from None
    return run


def find_run(name: str | None) -> Path:
    """A run folder by path, or the latest one under ./runs."""
    run = Path(name) if name else Path("runs") / LATEST
    if not (run / CONFIG).is_file():
        if name is None:
            raise UserError("runs/latest: no run here yet; start one with `mlx-grpo train CONFIG`, or name a run")
        raise UserError(f"{run}: not a run folder (no {CONFIG}); give a folder that `mlx-grpo train` made")
    return run.resolve()


def read_config(run: Path) -> Config:
    """The configuration that a run was started with."""
    return load_config(str(run / CONFIG))


def append_jsonl(path: Path, *records: dict[str, Any]) -> None:
    """Add records to a JSONL file, each on a line of its own."""
    with path.open("a", encoding="utf-8") as file:
        for record in records:  # JSON has no NaN
            values = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}
            file.write(json.dumps(values, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file that a run wrote; raises UserError where it is absent or damaged."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give the folder of a whole run") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records += [json.loads(line)] if line else []
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}); remove the line") from None
    return records
