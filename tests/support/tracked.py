"""The metrics that a tracker has of a run, read back from its files."""

from __future__ import annotations

import json
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_grpo.runs import Run

Series = dict[int, dict[str, float]]
"""The metrics by the number of steps taken before they were measured."""
BLOCK = 1 << 15


def in_tensorboard(run: Run) -> Series:
    """Return what TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    found: Series = defaultdict(dict)
    for name in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(name)]
        assert len(steps) == len(set(steps)), f"{name} has two values at a step"
        for event in events.Scalars(name):
            found[event.step][name] = event.value
    return dict(found)


def in_wandb(run: Run) -> Series:
    """Return what `wandb sync` would upload of a run, all of it to one id."""
    found: Series = defaultdict(dict)
    for file in sorted((run.folder / "wandb").glob("offline-run-*/*.wandb")):
        assert file.stem == f"run-{run.name}"
        for record in _finished_records(file):
            for item in record.history.item:
                name = item.key or ".".join(item.nested_key)
                if not name.startswith("_"):
                    found[record.history.step.num][name] = json.loads(item.value_json)
    return dict(found)


def _finished_records(file: Path) -> list[Any]:
    """Return a .wandb file's records once the last one is there: wandb's own process writes them."""
    from wandb.proto.wandb_internal_pb2 import Record

    records: list[Any] = []
    for _ in range(100):
        records = [Record.FromString(content) for content in _leveldb_records(file.read_bytes())]
        if records and records[-1].HasField("exit"):
            return records
        time.sleep(0.05)
    raise AssertionError(f"{file} has {len(records)} records and no end")


def in_trackio(run: Run) -> Series:
    """Return what `trackio show` has of a run."""
    from trackio.sqlite_storage import SQLiteStorage

    assert len(SQLiteStorage.get_run_records("mlx-grpo")) == 1
    found: Series = defaultdict(dict)
    for row in SQLiteStorage.get_logs("mlx-grpo", run.name):
        found[row.pop("step")] |= {name: value for name, value in row.items() if name != "timestamp"}
    return dict(found)


def _leveldb_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a .wandb file: LevelDB's log format after a header of 7 bytes."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def files_with(folder: Path, text: str) -> list[Path]:
    """Return the files below a folder that hold a text."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]
