"""Checkpoints: all that a run needs to continue as if it had never stopped.

A checkpoint holds what can't be computed again: the trained parameters, the optimizer's moments, the best adapter so
far, the run's position, and the lengths of its files. Random state and sampler position are not in it: what a step
draws is a function of the seed and the step's number alone (`data.sampling.sample_prompts`, `sampling.row_keys`,
`sampling.seed_step`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from mlx_grpo import runs
from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config
from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load_adapter, save_adapter
from mlx_grpo.training.state import TrainState, begin_grpo
from mlx_grpo.training.validation import Best

FOLDER = "checkpoints"
OPTIMIZER = "optimizer.safetensors"
BEST = "best.safetensors"
STATE = "state.json"
SET_ASIDE = "before-"
"""Prefix of the metrics and samples of a run that starts over."""

Phase = Literal["warm_start", "grpo"]
PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(slots=True)
class RunPosition:
    """How far a run is: its phase, the phase's finished steps, and counts over the run."""

    phase: Phase
    steps: int = 0
    tokens_seen: float = 0.0
    skipped: int = 0
    """Number of updates skipped in a row because loss or gradient was not finite."""
    best: Best = field(default_factory=Best)


class Resumed(NamedTuple):
    """What a run resumes with, beside its state."""

    position: RunPosition
    changes: dict[str, Any]
    """Settings that round differently from the steps before; the metrics of the next step have them."""


def save_checkpoint(run: runs.Run, state: TrainState, position: RunPosition) -> None:
    """Write a checkpoint in full or not at all, then delete all but the last `save_total_limit`.

    Raises UserError where it can't be written; earlier checkpoints are kept then.
    """
    folder = run.folder / FOLDER / f"{position.phase}-{position.steps:06d}"
    if folder.is_dir() and find_fault(folder, run, state.config) is None:
        return
    temporary = folder.with_name(f".{folder.name}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(temporary, run, state, position)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        _sync(folder.parent)
        for old in list_checkpoints(run)[state.config.save_total_limit :]:
            shutil.rmtree(old.rename(old.with_name(f".{old.name}")))  # a half-deleted one must not be resumed
    except (OSError, RuntimeError) as error:  # MLX raises RuntimeError where a file can't be written
        shutil.rmtree(temporary, ignore_errors=True)
        kept = list_checkpoints(run)
        raise UserError(
            f"{folder}: can't be written ({error}); free space there or choose another output_dir, then continue with "
            f"--resume from {kept[0].name if kept else 'the start'}"
        ) from None


def load_checkpoint(run: runs.Run, state: TrainState, note: Callable[[str], None]) -> Resumed | None:
    """Load the newest usable checkpoint into the state, and cut the run's files back to it; None where there is none.

    Damaged ones are reported by `note`, renamed to `damaged-...`, and passed over.
    """
    ranks = state.ranks
    name = ranks.from_leader(lambda: newest_usable(run, state.config, note))
    if name is None:
        if ranks.leads:
            _set_aside(run)
            note(f"no checkpoint to continue from: starting over; what was written is kept as {SET_ASIDE}*")
        return None
    folder = run.folder / FOLDER / name
    if not (folder / STATE).is_file():
        raise UserError(f"{folder}: is not on this machine; keep output_dir on a disk that all of them see")
    record = json.loads((folder / STATE).read_text(encoding="utf-8"))
    position = read_position(record)
    if position.phase == "grpo":
        if state.config.warm_start.steps:
            load_adapter(state.policy, run.folder / runs.WARM_START)
        begin_grpo(state)
    load_adapter(state.policy, folder)
    state.optimizer.init(state.policy.model.trainable_parameters())
    moments = cast(dict[str, mx.array], mx.load(str(folder / OPTIMIZER)))
    state.optimizer.state = tree_unflatten(list(moments.items()))
    others = [f"{library} {was}" for library, was in record["versions"].items() if was != versions()[library]]
    if others:
        note(f"{name} was written with {', '.join(others)}; bits may differ from here on")
    if ranks.leads:
        _restore_files(run, folder, record["lengths"])
    return Resumed(position, _changes(record["config"], state.config, note))


def _changes(before: dict[str, Any], config: Config, note: Callable[[str], None]) -> dict[str, Any]:
    """Return the size of the micro-batches if it is another one than a checkpoint was written with, and report it."""
    old, default = before.get("micro_batch_size"), config.num_generations
    if old == config.micro_batch_size:
        return {}
    was, now = old or default, config.micro_batch_size or default
    note(f"micro_batch_size was {was}, is {now} from here on; bits differ from those of a run without the change")
    return {"micro_batch_size": now}


def _set_aside(run: runs.Run) -> None:
    """Rename the run's metrics and samples, so that it can start over."""
    for name in (runs.METRICS, runs.SAMPLES):
        if (run.folder / name).is_file():
            (run.folder / name).replace(run.folder / f"{SET_ASIDE}{name}")


def newest_usable(run: runs.Run, config: Config, note: Callable[[str], None]) -> str | None:
    """Return the name of the newest checkpoint that the run can be resumed from; rename damaged ones."""
    for folder in list_checkpoints(run):
        fault = find_fault(folder, run, config)
        if fault is None:
            return folder.name
        note(f"{folder.name}: {fault}; going back to the checkpoint before it")
        aside = folder.with_name(f"damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    return None


def newest_sound(run: runs.Run) -> str | None:
    """Return the name of the newest checkpoint that the run can be resumed from, and change nothing."""
    sound = (folder.name for folder in list_checkpoints(run) if find_fault(folder, run, run.config) is None)
    return next(sound, None)


def list_checkpoints(run: runs.Run) -> list[Path]:
    """Return a run's finished checkpoints, newest first."""
    by_phase = ((run.folder / FOLDER).glob(f"{phase}-*") for phase in reversed(PHASES))
    return [folder for folders in by_phase for folder in sorted(folders, reverse=True)]


def find_fault(folder: Path, run: runs.Run, config: Config) -> str | None:
    """Return the reason why a checkpoint can't be used; None where it can."""
    try:
        record = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if fixed_keys(validate(record["config"])) != fixed_keys(config):  # new keys have their defaults
            return "made with another configuration"
        for name, digest in record["files"].items():
            if _sha256(folder / name) != digest:
                return f"{name} is damaged"
        read_position(record)
        for name, length in record["lengths"].items():
            if length and (run.folder / name).stat().st_size < length:
                return f"the run's {name} is shorter than it was"
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        return f"not readable ({type(error).__name__}: {error})"
    return None


def read_position(record: dict[str, Any]) -> RunPosition:
    """Return a checkpoint's position; raises TypeError or KeyError where another version wrote another layout."""
    return RunPosition(**{**record["position"], "best": Best(**record["position"]["best"])})


def fixed_keys(config: Config) -> dict[str, Any]:
    """Return the keys that can't change when a run is resumed, with their values."""
    return {key: value for key, value in config.model_dump().items() if key not in runs.FREE_KEYS}


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a run's bits depend on."""
    return {name: version(name) for name in ("mlx-grpo", "mlx", "mlx-lm")}


def _write(folder: Path, run: runs.Run, state: TrainState, position: RunPosition) -> None:
    """Write a checkpoint's files and flush them to the disk."""
    save_adapter(state.policy, state.config, folder)
    mx.save_safetensors(str(folder / OPTIMIZER), dict(tree_flatten(state.optimizer.state)))
    best = run.folder / runs.ADAPTER / ADAPTER_WEIGHTS
    if best.is_file():
        _link(best, folder / BEST)
    lengths = {name: _flushed_length(run.folder / name) for name in (runs.METRICS, runs.SAMPLES)}
    record = {
        "position": asdict(position),
        "lengths": lengths,
        "files": {path.name: _sha256(path) for path in sorted(folder.iterdir())},
        "config": state.config.model_dump(),
        "versions": versions(),
    }
    (folder / STATE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for path in [*folder.iterdir(), folder]:
        _sync(path)


def _restore_files(run: runs.Run, folder: Path, lengths: dict[str, int]) -> None:
    """Cut the run's files to their lengths at a checkpoint, and restore the best adapter of that time."""
    for name, length in lengths.items():
        if (run.folder / name).is_file():
            os.truncate(run.folder / name, length)
    if (folder / BEST).is_file():
        adapter = run.folder / runs.ADAPTER
        adapter.mkdir(exist_ok=True)
        shutil.copyfile(folder / ADAPTER_CONFIG, adapter / ADAPTER_CONFIG)
        (adapter / ADAPTER_WEIGHTS).unlink(missing_ok=True)
        _link(folder / BEST, adapter / ADAPTER_WEIGHTS)


def _link(source: Path, target: Path) -> None:
    """Hard-link a file to a second name; copy it where the file system has no hard links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _flushed_length(path: Path) -> int:
    """Flush a file to the disk and return its length; 0 where there is none."""
    if not path.is_file():
        return 0
    _sync(path)
    return path.stat().st_size


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
