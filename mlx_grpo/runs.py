"""A run folder as one object: its configuration, metrics, samples, adapters and evaluation."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from mlx_grpo.config.files import flat, load_config, save_config
from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import with_full_paths
from mlx_grpo.data.inputs import Inputs, changed_inputs
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import Record, read_jsonl, without_nan, write_jsonl
from mlx_grpo.models.policy import ADAPTER_WEIGHTS

CONFIG = "config.yaml"
INPUTS = "inputs.json"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
ADAPTER = "adapter"
WARM_START = "warm_start"
LATEST = "latest"
RESULTS = "eval.json"
EPISODES = "episodes.jsonl"
LOCK = ".lock"
FREE_KEYS = (
    "max_steps",
    "micro_batch_size",
    "logging_steps",
    "save_steps",
    "save_total_limit",
    "report_to",
    "output_dir",
)
"""The keys that may change when a run is resumed; any other change would make it another run.

A change of `micro_batch_size` alone is one of rounding: the metrics of the first step with it have its value.
"""
REQUIRED_FIGURES = {"components", "means", "differences", "resampled_by"}
"""The keys of eval.json that every table needs."""

Episodes = dict[str, list[Record]]
"""An evaluation's episodes by the model's name, each with its prompt's id, completion and reward."""


class Run:
    """A run's folder, and what is in it; files are read when they are asked for."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def create(cls, config: Config, today: str | None = None) -> Self:
        """Make a folder under `output_dir`, named by time and model, and point `latest` to it.

        `today` is the date in its prompts, which its record keeps. Raises UserError where it can't be written, or the
        config's data can't be read.
        """
        inputs = Inputs.of(config, today)
        root = Path(config.output_dir)
        name = f"{datetime.now():%Y%m%d-%H%M%S}-{Path(config.model).name}"
        try:
            root.mkdir(parents=True, exist_ok=True)
            taken = len(list(root.glob(f"{name}*")))  # runs started within one second
            folder = root / (f"{name}-{taken + 1}" if taken else name)
            folder.mkdir()
            save_config(config, folder / CONFIG)
            inputs.write(folder / INPUTS)
            latest = root / LATEST
            latest.unlink(missing_ok=True)
            latest.symlink_to(folder.name)
        except OSError as error:
            raise UserError(f"output_dir: {root} can't be written ({error.strerror}); choose another folder") from None
        return cls(folder)

    @classmethod
    def find(cls, name: str | Path | None) -> Self:
        """Return the run in a folder, or the latest one under ./runs; raises UserError where there is none."""
        folder = Path(name) if name else Path("runs") / LATEST
        if not (folder / CONFIG).is_file():
            if name is None:
                raise UserError("runs/latest: no run here yet; start one with `mlx-grpo train CONFIG`, or name a run")
            raise UserError(f"{folder}: not a run folder (no {CONFIG}); give a folder that `mlx-grpo train` made")
        return cls(folder.resolve())

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def config(self) -> Config:
        """The configuration that the run was started or last resumed with."""
        return load_config(str(self.folder / CONFIG))

    @cached_property
    def inputs(self) -> Inputs | None:
        """The record of the run's rows and rubric, None where the run is older than such records."""
        return Inputs.read(self.folder / INPUTS)

    @property
    def today(self) -> str | None:
        """The date in the run's prompts, None where no record of the run has one."""
        return self.inputs.today if self.inputs else None

    def check_inputs(self, *names: str) -> None:
        """Raise UserError where an input that a command is about to use is not the one that the run began with.

        names: of "rubric", "train" and "heldout".
        """
        changed = changed_inputs(self.inputs, self.config, names)
        if changed:
            raise UserError(f"{self.folder}: {'; '.join(changed)}; start a new run, or use the version that began it")

    def update_config(self, config: Config) -> None:
        """Replace the configuration in the folder by the one that the run is resumed with."""
        new = self.folder / f".{CONFIG}"
        save_config(config, new)
        new.replace(self.folder / CONFIG)
        self.__dict__.pop("config", None)

    @property
    def metrics_file(self) -> Path:
        """One record a step."""
        return self.folder / METRICS

    @property
    def samples_file(self) -> Path:
        """One record a sampled completion."""
        return self.folder / SAMPLES

    def metrics(self) -> list[Record]:
        """Return the metrics of the steps so far."""
        return read_jsonl(self.metrics_file)

    def samples(self) -> list[Record]:
        """Return the completions sampled so far."""
        return read_jsonl(self.samples_file)

    def adapter(self, name: str = ADAPTER) -> Path:
        """Return the folder of an adapter; raises UserError where training has not written it yet."""
        if not (self.folder / name / ADAPTER_WEIGHTS).is_file():
            raise UserError(f"{self.folder}: has no {name} yet; let `mlx-grpo train` finish first")
        return self.folder / name

    def kept_step(self) -> int | None:
        """Return the number of GRPO steps behind an adapter that was chosen by held-out reward, None for any other."""
        steps = [record["eval/best_step"] for record in self.metrics() if "eval/best_step" in record]
        if steps:
            return int(steps[-1])
        return 0 if self.config.eval_steps else None  # the evaluation before the first step chose it

    def results(self) -> Record | None:
        """Return the evaluation's figures, None where `mlx-grpo eval` has not been run.

        Raises UserError where eval.json is damaged.
        """
        file = self.folder / RESULTS
        return read_results(file) if file.is_file() else None

    def episodes(self) -> Episodes:
        """Return the evaluation's episodes by model, none where `mlx-grpo eval` has not been run.

        Raises UserError where its files are damaged.
        """
        file = self.folder / RESULTS
        return read_episodes(file) if file.is_file() else {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in the folder; raises UserError where one does already."""
        with (self.folder / LOCK).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise UserError(
                    f"{self.folder}: process {file.read().strip()} is training there; wait for it, or start a run "
                    "without --resume"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield


def find_resumable(name: str, overrides: Sequence[str]) -> tuple[Config, Run]:
    """Return the configuration and the run to resume: that of a run folder, or the latest run of a config.

    Raises UserError where there is no run, or naming every key that would make it another run.
    """
    given = Path(name)
    own = (given / CONFIG).is_file()
    config = with_full_paths(load_config(str(given / CONFIG) if own else name, overrides))
    run = Run((given if own else Path(config.output_dir) / LATEST).resolve())
    if not (run.folder / CONFIG).is_file():
        raise UserError(f"--resume: {config.output_dir} holds no run yet; leave --resume out, or give a run folder")
    changed = {key: pair for key, pair in changed_keys(run.config, config).items() if key not in FREE_KEYS}
    if changed:
        raise UserError(
            *(
                f"--resume: {k}: {was!r} in {run.name}, {now!r} now; it can't change"
                for k, (was, now) in changed.items()
            ),
            f"--resume: {', '.join(FREE_KEYS)} can; for anything else start a new run, without --resume",
        )
    run.check_inputs("rubric", "train", "heldout")
    return config, run


def changed_keys(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """Return the keys whose values differ, each with both values; None stands for a key that is not there."""
    was, now = flat(before.model_dump()), flat(after.model_dump())
    empty: tuple[Any, ...] = (None, {})  # an open section without keys
    return {
        key: (was.get(key), now.get(key))
        for key in {**was, **now}
        if was.get(key) != now.get(key) and not (was.get(key) in empty and now.get(key) in empty)
    }


def write_results(folder: Path, results: Record, episodes: Episodes) -> list[Path]:
    """Write an evaluation's figures to eval.json, its episodes to episodes.jsonl, and return both paths."""
    rows = ({"model": name, **episode} for name, own in episodes.items() for episode in own)
    write_jsonl(folder / EPISODES, rows)
    text = json.dumps(without_nan(results), indent=1, ensure_ascii=False)
    (folder / RESULTS).write_text(text + "\n", encoding="utf-8")
    return [folder / RESULTS, folder / EPISODES]


def read_results(file: Path) -> Record:
    """Return the figures of an eval.json, without the episodes that 0.1 kept in the same file.

    Raises UserError where the file is not what `mlx-grpo eval` writes.
    """
    with _as_user_error(file):
        results = json.loads(file.read_text(encoding="utf-8"))
        models = results.pop("models", None)
        if models:
            results.setdefault("components", list(_first_episode(models)["components"]))
        if not results.keys() >= REQUIRED_FIGURES:
            raise ValueError("figures are missing")
    return results


def read_episodes(file: Path) -> Episodes:
    """Return the episodes of an evaluation by its eval.json; see `find_episodes`.

    Raises UserError where the files are not what `mlx-grpo eval` writes.
    """
    with _as_user_error(file):
        return find_episodes(json.loads(file.read_text(encoding="utf-8")), file)


def find_episodes(results: Record, file: Path) -> Episodes:
    """Return the episodes that belong to the contents of the eval.json `file`, none where only figures were kept.

    They are in episodes.jsonl beside the file, or in the file itself where 0.1 wrote it. Raises UserError where
    episodes.jsonl belongs to another evaluation, KeyError and the like where something is no evaluation at all.
    """
    if "models" in results:
        return results["models"]
    models = list(results["means"])
    beside = file.with_name(EPISODES)
    episodes: Episodes = {}
    for record in read_jsonl(beside):
        episodes.setdefault(record.pop("model"), []).append(record)
    if episodes and list(episodes) != models:
        raise UserError(f"{beside}: holds other models than {file.name}; run `mlx-grpo eval` again")
    return episodes


@contextmanager
def _as_user_error(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{file}: is not what this version's `mlx-grpo eval` writes; run it again") from None


def _first_episode(episodes: Episodes) -> Record:
    return next(iter(episodes.values()))[0]
