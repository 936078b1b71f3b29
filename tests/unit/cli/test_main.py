"""The command line as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.command import cli
from support.paths import ROOT, SHARED
from support.tiny_runs import rows_file

from mlx_grpo.cli.main import main
from mlx_grpo.models.policy import token_counter
from mlx_grpo.runs import Run


def test_train_and_export_and_eval_from_a_config_file(tiny_qwen3: Path, tmp_path: Path):
    (tmp_path / "my_rewards.py").write_text(
        "def f(completions, **columns):\n    return [len(c) for c in completions]\n"
    )
    rows_file(tmp_path)
    (tmp_path / "c.yaml").write_text(
        f"model: {tiny_qwen3}\ndtype: float32\nmax_completion_length: 8\nnum_generations: 2\nprompts_per_step: 1\n"
        "data: {train: rows.jsonl, heldout: rows.jsonl}\nreward: {rubric: null, functions: ['my_rewards:f']}\n"
        "eval: {episodes: 2, max_new_tokens: 4}\n"
    )
    trained = cli("train", "c.yaml", "max_steps=2", "--json", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["metrics"]["step"] == 1
    exported = cli("export", "--hf", "--json", folder=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert "model.safetensors" in json.loads(exported.stdout)["files"]
    evaluated = cli("eval", "--backend", "mlx", "--json", folder=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["n_episodes"] == 2
    assert evaluated.stderr == ""
    more = cli("eval", "--backend", "mlx", "--episodes", "500", folder=tmp_path)
    run = Run.find(tmp_path / "runs" / "latest")
    results = run.results()
    assert results["n_episodes"] < 500
    assert more.stderr == f"{results['n_episodes']} held-out prompts are left to evaluate on, not 500\n"
    for file in ("eval.json", "episodes.jsonl", "plots/reward_components.png", "hf/README.md"):
        assert f"{(run.folder / file).relative_to(tmp_path)}\n" in more.stdout
    assert f"{results['n_episodes']} held-out prompts, greedy" in (run.folder / "hf" / "README.md").read_text()
    reported = cli("report", "--out", "page.html", "--json", folder=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert json.loads(reported.stdout)["size"] == (tmp_path / "page.html").stat().st_size


def test_a_log_file_gets_lines_and_no_progress_bar(tiny_qwen3: Path, tmp_path: Path):
    rows_file(tmp_path)
    (tmp_path / "c.yaml").write_text(
        f"model: {tiny_qwen3}\nmax_completion_length: 4\nnum_generations: 2\nprompts_per_step: 1\nmax_steps: 2\n"
        "data: {train: rows.jsonl}\nreward: {rubric: null, functions: ['toy:f']}\n"
    )
    (tmp_path / "toy.py").write_text("def f(completions, **columns):\n    return [len(c) for c in completions]\n")
    printed = cli("train", "c.yaml", folder=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert "\x1b" not in printed.stdout
    assert "━" not in printed.stdout
    steps = [line for line in printed.stdout.splitlines() if line.startswith("  ")]
    assert len(steps) == 2
    assert all(len(line) <= 80 for line in steps)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "absent.yaml"], "no such config file"),
        (["train", "qwen3", "lr=1"], "lr: 1: unknown key"),
        (["train", "qwen3", "max_steps"], "not an override"),
        (["train", "qwen3", "model=/nowhere/at/all"], "give a local folder"),
        (["export", "--hf"], "no run here yet"),
        (["export"], "name one format"),
        (["eval"], "no run here yet"),
        (["eval", "."], "not a run folder"),
        (["chat"], "no run here yet"),
        (["report"], "no run here yet"),
        (["score", "absent.jsonl"], "no such file"),
        (
            ["data", "build", "--jd", "a", "--candidates", "b", "--out", "c", "--tokenizer", "/x/y/z"],
            "--tokenizer: '/x/y/z'",
        ),
    ],
)
def test_a_users_mistake_exits_with_2_and_says_what_to_do(arguments: list[str], told: str, tmp_path: Path):
    failed = cli(*arguments, folder=tmp_path)
    assert failed.returncode == 2
    assert told in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real job and candidates, which a bare clone lacks")
def test_data_build_on_a_real_job_and_fifty_candidates_gives_rows_that_train(tmp_path: Path):
    redrob, tokenizer = SHARED / "redrob", SHARED / "models" / "qwen3-0.6b"
    files = ["--jd", str(redrob / "job_description.txt"), "--candidates", str(redrob / "sample_candidates.json")]
    built = cli(
        "data", "build", *files, "--out", "mine", "--form", "full", "--tokenizer", str(tokenizer), folder=tmp_path
    )
    assert built.returncode == 0, built.stderr
    rows = [
        json.loads(line) for split in ("train", "heldout") for line in (tmp_path / "mine" / f"{split}.jsonl").open()
    ]
    assert len({row["candidate_id"] for row in rows}) == 50
    count = token_counter(str(tokenizer))
    assert all(count(row["prompt"][-1]["content"]) <= 1000 for row in rows)
    assert "mine/train.jsonl" in built.stdout


@pytest.mark.parametrize(
    "command",
    [["train"], ["export"], ["eval"], ["chat"], ["report"], ["rank"], ["score"], ["data", "build"], ["data", "job"]],
)
def test_every_command_has_help_with_an_example(command: list[str], tmp_path: Path):
    shown = cli(*command, "--help", folder=tmp_path)
    assert shown.returncode == 0
    assert f"mlx-grpo {' '.join(command)}" in shown.stdout
    assert "\\b" not in shown.stdout  # click's mark for lines that keep their breaks


def test_help_lists_every_command_in_the_order_of_use_with_a_complete_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    listed = CliRunner().invoke(main, ["--help"]).output.split("Commands:\n")[1].splitlines()
    order = ["doctor", "plan", "train", "export", "eval", "chat", "score", "report", "rank", "data", "bench"]
    assert [line.split()[0] for line in listed] == order
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


def test_the_version_is_the_packages():
    import mlx_grpo

    assert mlx_grpo.__version__ in cli("--version", folder=ROOT).stdout
