"""Trackers have every metric of a run, in one run when it is resumed, and can't end it."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.tiny_models import tiny_config
from support.tiny_runs import NoteReporter, reward_by, rows_file
from support.tracked import Series, files_with, in_tensorboard, in_trackio, in_wandb

from mlx_grpo.config.schema import Config
from mlx_grpo.distributed.signals import Stop
from mlx_grpo.errors import UserError
from mlx_grpo.runs import Run
from mlx_grpo.training import trackers
from mlx_grpo.training.checkpoint import RunPosition
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.run_logger import RunLogger
from mlx_grpo.training.trackers import Trackers, check_trackers
from mlx_grpo.training.trainer import train

SECRET = "0123456789abcdef" * 3
READERS = {"tensorboard": in_tensorboard, "wandb": in_wandb, "trackio": in_trackio}


def tracked_config(model: Path, folder: Path, *names: str) -> Config:
    """Return the configuration of a run with a warm start and evaluations."""
    rows = rows_file(folder, completion="aaaa")
    return tiny_config(
        model,
        output_dir=str(folder / "runs"),
        data={"train": rows, "heldout": rows},
        reward=reward_by("share_of_letters"),
        warm_start={"steps": 2, "batch_size": 2},
        eval={"episodes": 2, "validation": 2, "max_new_tokens": 4},
        eval_steps=1,
        max_steps=2,
        report_to=list(names),
    )


def written_metrics(run: Run, warm_start: int) -> Series:
    """Return the numbers of metrics.jsonl by the steps taken before them."""
    expected: Series = {}
    for record in run.metrics():
        before = 0 if record.get("phase") == "warm_start" else warm_start
        numbers = {k: v for k, v in record.items() if k not in ("step", "phase") and v is not None}
        expected[before + record["step"] + 1] = expected.get(before + record["step"] + 1, {}) | numbers
    return expected


@pytest.mark.parametrize("name", READERS)
def test_tracker_has_all_metrics_of_a_resumed_run_and_no_secret(
    name: str, tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    pytest.importorskip(name, reason=f"needs {name}: [dev] extra")
    for variable in ("WANDB_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(variable, SECRET)
    if name == "trackio":
        monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    config = tracked_config(tiny_qwen3, tmp_path, name)
    capfd.readouterr()
    run = train(config, SilentReporter(), until=1)
    train(config, SilentReporter(), resumed=run)
    assert capfd.readouterr().out == ""  # where `train --json` prints its result
    expected, tracked = written_metrics(run, 2), READERS[name](run)
    assert sorted(tracked) == [1, 2, 3, 4]
    assert tracked == {step: pytest.approx(metrics, rel=1e-6, abs=1e-9) for step, metrics in expected.items()}
    assert "rewards/share_of_letters/mean" in tracked[4] and "eval/reward" in tracked[2]
    assert files_with(tmp_path, SECRET) == []


def test_tensorboard_drops_what_a_killed_run_reported_after_its_checkpoint(tiny_qwen3: Path, tmp_path: Path):
    pytest.importorskip("tensorboard", reason="needs tensorboard: [dev] extra")
    run = Run(tmp_path)
    config = tracked_config(tiny_qwen3, tmp_path, "tensorboard")
    for start, values in ((0, [0.1, 0.2, 0.3]), (1, [0.5])):
        open_trackers = Trackers(print)
        open_trackers.start(run, config, start)
        for step, value in enumerate(values, start=start + 1):
            open_trackers.on_step({"reward": value, "step": step, "kl": math.nan, "phase": "grpo"}, step)
        open_trackers.on_end()
    assert in_tensorboard(run) == {1: {"reward": pytest.approx(0.1)}, 2: {"reward": pytest.approx(0.5)}}


class Failing:
    """A tracker whose library fails in one of its calls, and counts them."""

    command = "show"

    def __init__(self, at: str):
        self.at, self.calls = at, 0

    def __call__(self, run: Run, config: Config, start: int) -> Failing:
        return self._fail_at("start") or self

    def on_step(self, metrics: object, step: int) -> None:
        self._fail_at("on_step")

    def on_end(self) -> None:
        self._fail_at("on_end")

    def _fail_at(self, call: str) -> None:
        self.calls += 1
        if call == self.at:
            raise ConnectionError(f"no route to host, token hf_{SECRET}")


@pytest.mark.parametrize(("at", "calls"), [("start", 1), ("on_step", 2), ("on_end", 7)])
def test_failing_tracker_ends_no_run_and_is_warned_of_once(
    tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, calls: int
):
    failing, reporter = Failing(at), NoteReporter()
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", failing)
    monkeypatch.setattr(trackers, "is_installed", lambda name: True)
    run = train(tracked_config(tiny_qwen3, tmp_path, "tensorboard"), reporter)
    assert len(run.metrics()) == 5 and (run.folder / "adapter").is_dir()
    warnings = [line for line in reporter.lines if line.startswith("warning: tensorboard failed")]
    assert len(warnings) == 1 and "ConnectionError" in warnings[0] and SECRET not in warnings[0]
    assert failing.calls == calls


@pytest.mark.parametrize("leads", [True, False])
def test_only_the_leading_process_opens_a_tracker(leads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tracker = Failing("never")
    monkeypatch.setitem(trackers.TRACKERS, "wandb", tracker)
    config = tiny_config(tmp_path, report_to="wandb")
    state = SimpleNamespace(config=config, ranks=SimpleNamespace(leads=leads))
    position = RunPosition("warm_start")
    logger = RunLogger(Run(tmp_path), state, SilentReporter(), Stop(), position, [])
    with logger.tracking():
        assert list(logger.trackers.open) == (["wandb"] if leads else [])
    assert tracker.calls == (2 if leads else 0)


def test_missing_library_is_named_with_its_extra_before_a_run_folder_is_made(
    tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trackers, "is_installed", lambda name: False)
    with pytest.raises(UserError) as error:
        train(tracked_config(tiny_qwen3, tmp_path, "trackio", "wandb"), SilentReporter())
    assert error.value.problems == [
        "report_to: trackio, wandb: not installed; pip install 'mlx-grpo[trackio,wandb]', or set report_to=none"
    ]
    assert not (tmp_path / "runs").exists()


def test_folder_that_wandb_left_is_not_taken_for_wandb(workdir: Path, monkeypatch: pytest.MonkeyPatch):
    (workdir / "wandb").mkdir()
    monkeypatch.setattr("sys.path", [str(workdir)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UserError, match="wandb: not installed"):
        check_trackers(tiny_config(Path("m"), report_to="wandb"))


def test_unknown_wandb_mode_is_refused_with_the_modes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trackers, "is_installed", lambda name: True)
    monkeypatch.setenv("WANDB_MODE", "bogus")
    with pytest.raises(UserError, match="WANDB_MODE: 'bogus' is not accepted; set it to offline, online, disabled"):
        check_trackers(tiny_config(Path("m"), report_to="wandb"))
    check_trackers(tiny_config(Path("m"), report_to="tensorboard"))
    monkeypatch.setenv("WANDB_MODE", "")
    check_trackers(tiny_config(Path("m"), report_to="wandb"))


def test_wandb_without_a_key_asks_nothing_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wandb = pytest.importorskip("wandb", reason="needs wandb: [dev] extra")
    wandb.teardown()  # the key of earlier tests
    monkeypatch.setattr("wandb.errors.term._silent", False)
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "online")
    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(f"wandb.errors.term._sys_{stream}_isatty", lambda: True)
    monkeypatch.setattr("wandb.errors.term.click.prompt", lambda *a, **k: pytest.fail("wandb asked for something"))
    notes: list[str] = []
    open_trackers = Trackers(notes.append)
    open_trackers.start(Run(tmp_path), tiny_config(tmp_path, report_to="wandb"), 0)
    assert not open_trackers.open
    assert len(notes) == 1 and "wandb login" in notes[0]


@pytest.mark.parametrize(
    ("given", "names"),
    [("none", []), (None, []), (["none"], []), ("wandb", ["wandb"]), (["wandb", "trackio"], ["wandb", "trackio"])],
)
def test_report_to_takes_a_name_or_several_as_trl_does(given: object, names: list[str]):
    assert tiny_config(Path("m"), report_to=given).report_to == names
