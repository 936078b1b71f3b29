"""A supervised run comes back after an abort, and only then."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.tiny_models import tiny_config

from mlx_grpo.cli.main import main
from mlx_grpo.config.files import load_config, save_config
from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import with_full_paths
from mlx_grpo.errors import Stopped
from mlx_grpo.runs import CONFIG, LOCK, METRICS, Run
from mlx_grpo.training import supervise as module
from mlx_grpo.training.supervise import Attempt, find_abort, find_run, resuming_attempt, supervise

METAL = "libc++abi: terminating: [METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPU...)"
# Writes the arguments of each child down, and ends as the n-th of its endings.
CHILD = """
import os, sys
with open("children", "a") as file:
    print(*sys.argv[2:], file=file)
endings = sys.argv[1].split(",")
ending = endings[min(len(open("children").readlines()), len(endings)) - 1]
if ending.startswith("exit"):
    sys.exit(int(ending[4:]))
os.kill(os.getpid(), int(ending))
"""


def supervised(endings: str, run: Run | None = None) -> tuple[int, list[str], list[str]]:
    """Supervise children that end as given; return the exit code, each child's arguments, and what was reported."""
    notes: list[str] = []
    command = [sys.executable, "-c", CHILD, endings]
    code = supervise(Attempt("c.yaml", ("seed=1",), ("--force",), run), Config(model="m"), notes.append, command)
    return code, Path("children").read_text().splitlines(), notes


@pytest.mark.parametrize(
    ("code", "stderr", "cause", "too_large"),
    [
        (-signal.SIGABRT, METAL, "Metal (Insufficient Memory)", True),
        (-signal.SIGABRT, "[METAL] kIOGPUCommandBufferCallbackErrorTimeout", "Metal (kIOGPU", True),
        (1, f"Traceback ...\nRuntimeError: {METAL}", "Metal (Insufficient Memory)", True),
        (1, "RuntimeError: [metal::malloc] Resource limit (499000) exceeded.", "Metal ([metal::malloc])", True),
        (-signal.SIGABRT, "std::runtime_error: [malloc_or_wait] Unable to allocate 8 bytes.", "Metal (Unable", True),
        (-signal.SIGKILL, "", "SIGKILL, most likely for lack of memory", True),
        (-signal.SIGABRT, "assertion failed", "SIGABRT", False),
    ],
)
def test_abort_is_found_by_exit_code_and_stderr(code: int, stderr: str, cause: str, too_large: bool):
    abort = find_abort(code, stderr)
    assert abort is not None
    assert abort.cause.startswith(cause)
    assert abort.too_large is too_large


@pytest.mark.parametrize("code", [0, 1, 2, -signal.SIGTERM, -signal.SIGINT])
def test_other_ends_are_no_abort(code: int):
    assert find_abort(code, "") is None
    assert find_abort(2, METAL) is None


@pytest.mark.parametrize(("ending", "code"), [("exit2", 2), ("exit0", 0), ("exit1", 1), ("15", 143)])
def test_child_that_was_not_aborted_is_not_restarted(workdir: Path, ending: str, code: int):
    assert supervised(ending) == (code, ["c.yaml seed=1 --force"], [])


def test_child_killed_before_its_run_began_starts_anew_with_smaller_micro_batches(workdir: Path):
    code, children, notes = supervised("9,exit0")
    assert code == 0
    assert children == ["c.yaml seed=1 --force", "c.yaml seed=1 micro_batch_size=4 --force"]
    assert "beginning anew, it had no checkpoint yet (restart 1 of at most 5 without a new checkpoint)" in notes[0]


def test_micro_batches_are_halved_down_to_one_row(workdir: Path):
    _, children, _ = supervised("9,9,9,9,exit0")
    assert [child.split()[-2] for child in children[1:]] == [f"micro_batch_size={n}" for n in (4, 2, 1, 1)]


def test_sixth_abort_without_a_new_checkpoint_ends_the_run(workdir: Path):
    with pytest.raises(Stopped, match="6 times without a new checkpoint") as stopped:
        supervised("6")
    assert stopped.value.exit_code == 134
    assert len(Path("children").read_text().splitlines()) == 6


def test_new_checkpoint_makes_the_count_begin_again(workdir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "newest_sound", lambda run: f"grpo-{len(Path('children').read_text()):06d}")
    Path("children").touch()
    code, children, notes = supervised(",".join(["6"] * 9 + ["exit0"]), Run(workdir))
    assert code == 0
    assert len(children) == 10
    assert all("(restart 1 of" in note for note in notes)
    assert children[-1] == "c.yaml seed=1 --force --resume"


def test_first_halving_takes_fewer_rows_than_a_step_has(workdir: Path):
    config = Config(model="m", num_generations=4, prompts_per_step=2, micro_batch_size=64)
    supervise(Attempt("c", (), (), None), config, print, [sys.executable, "-c", CHILD, "9,exit0"])
    assert Path("children").read_text().splitlines()[1] == "c micro_batch_size=4"


def test_run_aborted_before_its_first_checkpoint_begins_anew(workdir: Path):
    (workdir / METRICS).write_text('{"step": 0}\n')
    (workdir / "checkpoints" / ".warm_start-000001").mkdir(parents=True)  # it was killed while it wrote this one
    code, children, notes = supervised("6,exit0", Run(workdir))
    assert (code, len(children)) == (0, 2)
    assert "beginning anew, it had no checkpoint yet" in notes[0]


def test_run_whose_checkpoints_are_damaged_is_not_begun_anew(workdir: Path):
    (workdir / "checkpoints" / "damaged-grpo-000020").mkdir(parents=True)
    with pytest.raises(Stopped, match=r"none of its checkpoints is whole.*continue with: mlx-grpo train .* --resume"):
        supervised("9", Run(workdir))
    assert len(Path("children").read_text().splitlines()) == 1


def test_resumed_run_is_named_by_its_folder_with_the_keys_that_change(tmp_path: Path):
    before = tiny_config(tmp_path)
    save_config(before, tmp_path / CONFIG)
    now = before.model_copy(update={"max_steps": 9, "micro_batch_size": None, "report_to": ["wandb"]})
    attempt = resuming_attempt(Run(tmp_path), now, ("--force",))
    assert attempt.words() == [str(tmp_path), "max_steps=9", 'report_to=["wandb"]', "--force", "--resume"]
    assert load_config(str(tmp_path / CONFIG), attempt.overrides) == now


def test_run_is_found_by_the_process_that_locked_it(tmp_path: Path):
    for name, pid in (("first", 1), ("second", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / LOCK).write_text(f"{pid}\n")
    found = find_run(tmp_path, 2, 0)
    assert found is not None and found.name == "second"
    assert find_run(tmp_path, 2, (tmp_path / "second" / LOCK).stat().st_mtime + 5) is None
    assert find_run(tmp_path / "none", 2, 0) is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_is_passed_on_and_no_restart_follows(workdir: Path, number: int, code: int):
    handler = signal.getsignal(number)
    child = f"import os, signal; os.kill(os.getppid(), {number}); signal.pause()"
    assert supervise(Attempt("c.yaml", (), (), None), Config(model="m"), print, [sys.executable, "-c", child]) == code
    assert signal.getsignal(number) is handler


def test_stderr_of_the_child_passes_through(workdir: Path, capfd: pytest.CaptureFixture[str]):
    child = "import os; print(1); os.write(2, b'two')"
    assert supervise(Attempt("c.yaml", (), (), None), Config(model="m"), print, [sys.executable, "-c", child]) == 0
    assert capfd.readouterr() == ("1\n", "two")


def test_supervise_hands_the_command_line_on(workdir: Path, tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch):
    given: list[list[str]] = []
    monkeypatch.setattr(module, "supervise", lambda first, config, note: given.append(first.words()) or 3)
    model, options = f"model={tiny_qwen3}", ["--until", "2", "--force", "--json"]
    done = CliRunner().invoke(main, ["train", "smollm2", model, *options, "--supervise"])
    assert done.exit_code == 3
    run = Run.create(with_full_paths(load_config("smollm2", [model])))
    done = CliRunner().invoke(main, ["train", "smollm2", model, "max_steps=9", "--resume", "--supervise"])
    assert done.exit_code == 3
    assert given == [
        ["smollm2", model, "--until=2", "--force", "--json"],
        [str(run.folder.resolve()), "max_steps=9", "--resume"],
    ]


def test_supervise_refuses_several_processes(workdir: Path):
    done = CliRunner().invoke(main, ["train", "smollm2", "--supervise", "--processes", "2"])
    assert done.exit_code == 2
    assert "--supervise: watches over one process, and this run has several" in done.stderr
