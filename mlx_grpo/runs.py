"""Run folders: where a run keeps its config, metrics, samples, adapter, export and pictures."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from mlx_grpo.config.files import flat, load_config, save_config
from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import with_full_paths
from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import ADAPTER_WEIGHTS

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
ADAPTER = "adapter"
WARM_START = "warm_start"
LATEST = "latest"
RESULTS = "eval.json"
LOCK = ".lock"
# What a run may be given anew when it goes on; everything else would make it another run.
FREE_KEYS = ("max_steps", "logging_steps", "save_steps", "save_total_limit", "output_dir")


def create_run(config: Config) -> Path:
    """A new folder under `output_dir`, named by time and model, with the config in it and `latest` pointing to it."""
    root = Path(config.output_dir)
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{Path(config.model).name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = len(list(root.glob(f"{name}*")))  # runs started within one second
        run = root / (f"{name}-{taken + 1}" if taken else name)
        run.mkdir()
        save_config(with_full_paths(config), run / CONFIG)
        latest = root / LATEST
        latest.unlink(missing_ok=True)
        latest.symlink_to(run.name)
    except OSError as error:
        raise UserError(f"output_dir: {root} can't be written ({error.strerror}); choose another folder") from None
    return run


def find_resumable(name: str, overrides: Sequence[str]) -> tuple[Config, Path]:
    """The configuration and the folder of a run to go on with: a run folder, or a config whose latest run it is.

    Raises UserError where there is no run, or naming every key that would make it another run.
    """
    given = Path(name)
    own = (given / CONFIG).is_file()
    config = load_config(str(given / CONFIG) if own else name, overrides)
    run = (given if own else Path(config.output_dir) / LATEST).resolve()
    if not (run / CONFIG).is_file():
        raise UserError(f"--resume: {config.output_dir} holds no run yet; leave --resume out, or give a run folder")
    changed = {key: pair for key, pair in changed_keys(run, config).items() if key not in FREE_KEYS}
    if changed:
        raise UserError(
            *(
                f"--resume: {k}: {was!r} in {run.name}, {now!r} now; it can't change"
                for k, (was, now) in changed.items()
            ),
            f"--resume: {', '.join(FREE_KEYS)} can; for anything else start a new run, without --resume",
        )
    return config, run


def changed_keys(run: Path, config: Config) -> dict[str, tuple[Any, Any]]:
    """The keys that a configuration gives other values than a run has: its value there and here, None for no key."""
    was, now = (flat(c.model_dump()) for c in (read_config(run), with_full_paths(config)))
    empty = (None, {})  # an open section without keys
    return {
        key: (was.get(key), now.get(key))
        for key in {**was, **now}
        if was.get(key) != now.get(key) and not (was.get(key) in empty and now.get(key) in empty)
    }


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep every other process from training in this folder; raises UserError where one does already."""
    with (run / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{run}: process {file.read().strip()} is training there; wait for it, or start a run without --resume"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def update_config(run: Path, config: Config) -> None:
    """Have a run's folder say what it goes on with."""
    new = run / f".{CONFIG}"
    save_config(config, new)
    new.replace(run / CONFIG)


def find_run(name: str | None) -> Path:
    """A run folder by path, or the latest one under ./runs."""
    run = Path(name) if name else Path("runs") / LATEST
    if not (run / CONFIG).is_file():
        if name is None:
            raise UserError("runs/latest: no run here yet; start one with `mlx-grpo train CONFIG`, or name a run")
        raise UserError(f"{run}: not a run folder (no {CONFIG}); give a folder that `mlx-grpo train` made")
    return run.resolve()


def require_adapter(run: Path, name: str = ADAPTER) -> Path:
    """A run's adapter; UserError where training has not written one yet."""
    if not (run / name / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{run}: has no {name} yet; let `mlx-grpo train` finish first")
    return run / name


def read_config(run: Path) -> Config:
    """The configuration that a run was started with."""
    return load_config(str(run / CONFIG))


def append_jsonl(path: Path, *records: dict[str, Any]) -> None:
    """Add records to a JSONL file, each on a line of its own."""
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(without_nan(record), ensure_ascii=False) + "\n")


def without_nan(record: dict[str, Any]) -> dict[str, Any]:
    """A record as JSON can hold it, which knows neither NaN nor infinity: None in their place."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file that a run wrote; none where it has written none. UserError where it is damaged."""
    if not path.is_file() and path.parent.is_dir():
        return []
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


def write_results(results: dict[str, Any], folder: Path) -> None:
    """Write what `mlx-grpo eval` found."""
    (folder / RESULTS).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_results(run: Path) -> dict[str, Any] | None:
    """What `mlx-grpo eval` found; None where it has not been run. UserError where it is not of this version."""
    path = run / RESULTS
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        complete = {"resampled_by", "differences", "means"} <= results.keys() and "baseline" in results["models"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise UserError(f"{path}: is not what this version's `mlx-grpo eval` writes; run it again")
    return results


def kept_step(run: Path) -> int | None:
    """How many GRPO steps are behind the adapter, where it was chosen by its reward on other held-out prompts."""
    steps = [record["eval/best_step"] for record in read_jsonl(run / METRICS) if "eval/best_step" in record]
    if steps:
        return int(steps[-1])
    return 0 if read_config(run).eval_steps else None  # the look before the first step chose it
