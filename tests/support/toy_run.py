"""A small run that rewards vowels: its configuration, its interruption, and its files."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from support import ring
from support.command import cli

# The second uses the random state of Python and numpy, as a user's own function may.
FUNCTIONS = """
import os
import random
import numpy as np
def vowels(completions, **columns):
    return [sum(c in 'aeiouAEIOU' for c in t) for t in completions]
def noisy_vowels(completions, **columns):
    return [sum(c in 'aeiouAEIOU' for c in t) + random.random() + np.random.rand() for t in completions]
"""
# Dropout, redrawing, branching, a KL and a random reward are on: a resumed run must repeat them all.
CONFIG = """
model: {model}
dtype: float32
output_dir: runs
data: {{train: rows.jsonl, heldout: rows.jsonl}}
reward: {{rubric: null, functions: ['toy:noisy_vowels']}}
lora: {{rank: 4, dropout: 0.1}}
warm_start: {{steps: 3, batch_size: 2, learning_rate: 0.003}}
prompts_per_step: 2
num_generations: 4
max_completion_length: 8
max_steps: 6
num_iterations: 2
beta: 0.1
dynamic_sampling: 1
branch_at: "\\ufffd"
learning_rate: 0.003
save_steps: 2
eval_steps: 2
eval: {{episodes: 2, validation: 4, max_new_tokens: 8}}
"""
RUN_FILES = ("metrics.jsonl", "samples.jsonl", "adapter/adapters.safetensors", "warm_start/adapters.safetensors")


def write_run(folder: Path, **configs: str) -> Path:
    """Write rows, `toy.py` with the reward functions, and a config file of each name; return the folder."""
    rows = [{"id": str(i), "prompt": f"say {i}" * (i % 3 + 1), "completion": "an answer"} for i in range(7)]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "toy.py").write_text(FUNCTIONS)
    for name, config in configs.items():
        (folder / f"{name}.yaml").write_text(config)
    return folder


def fail_on_process_1(folder: Path) -> None:
    """Make the reward `toy:vowels` raise ZeroDivisionError, but only in the second process of a run."""
    first = "def vowels(completions, **columns):\n"
    failing = FUNCTIONS.replace(first, first + "    if os.environ.get('MLX_RANK') == '1': 1 / 0\n")
    (folder / "toy.py").write_text(failing)


def abort_once(folder: Path, step: int, how: str) -> None:
    """Make the reward `toy:noisy_vowels` run a statement, such as `os.abort()`, the first time at a GRPO step."""
    first = "def noisy_vowels(completions, **columns):\n"
    lines = f"    if columns['trainer_state'].global_step == {step} and not os.path.exists('aborted'):\n"
    lines += f"        open('aborted', 'w').close()\n        {how}\n"
    (folder / "toy.py").write_text(FUNCTIONS.replace(first, first + lines))


def contents(run: Path) -> dict[str, object]:
    """Return a run's files and metrics, without time and memory."""
    files: dict[str, object] = {name: (run / name).read_bytes() for name in RUN_FILES[1:]}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    files["metrics"] = [{k: v for k, v in r.items() if k not in ("step_time", "peak_memory_gb")} for r in records]
    return files


def killed(folder: Path, moment: str, *arguments: str) -> int:
    """Run `mlx-grpo ARGUMENTS`, killed at MODULE:N (see killer.py) if that is reached; return the exit code."""
    command = ring.killed_at(folder, moment, *arguments)
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert finished.returncode in (0, -signal.SIGKILL), finished.stderr
    return finished.returncode


def run_whole(folder: Path, model: Path) -> tuple[dict[str, object], dict[str, int]]:
    """Train without interruption; return the run's contents, and the number of calls in each module."""
    write_run(folder, c=CONFIG.format(model=model))
    assert killed(folder, ":0", "train", "c.yaml") == 0
    whole = contents(folder / "runs" / "latest")
    assert any(record.get("groups/branched") for record in whole["metrics"])  # some groups branch
    return whole, json.loads((folder / "counts.json").read_text())


def resume_to_the_end(folder: Path) -> dict[str, object]:
    """Resume the latest run and return its contents at the end."""
    finished = cli("train", "c.yaml", "--resume", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return contents(folder / "runs" / "latest")
