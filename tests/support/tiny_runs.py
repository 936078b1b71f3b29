"""Runs of tiny models: their configuration and state, and short whole runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from support.paths import BUNDLED_ROWS
from support.tiny_models import tiny_config

from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import make_prompt, read_rows
from mlx_grpo.data.types import Prompt
from mlx_grpo.evaluation.eval import Evaluation, run_eval
from mlx_grpo.models.policy import load_policy
from mlx_grpo.rewards import load_reward
from mlx_grpo.training.progress import Reporter, SilentReporter
from mlx_grpo.training.state import TrainState, grpo_optimizer
from mlx_grpo.training.trainer import Step, grpo_steps, train


def rows_file(folder: Path, **columns: object) -> str:
    """Write a dataset of six prompts with these columns; return its path."""
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"id": str(i), "prompt": f"say {i}", **columns}) for i in range(6)))
    return str(path)


class NoteReporter(SilentReporter):
    """Keeps what is printed, and "step N" for each finished step."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, metrics: dict[str, float]) -> None:
        self.lines.append(f"step {metrics['step']}")

    def note(self, text: str) -> None:
        self.lines.append(text)


def reward_by(function: str) -> dict:
    """Return the `reward` section that names a function of support.toy_rewards."""
    return {"rubric": None, "functions": [f"support.toy_rewards:{function}"]}


def make_state(config: Config, reference: bool = False) -> TrainState:
    """Load a policy for GRPO steps; with `reference`, keep its parameters as the reference."""
    policy = load_policy(config)
    frozen = policy.model.trainable_parameters() if reference else None
    return TrainState(policy, config, load_reward(config.reward), grpo_optimizer(config), frozen)


def take_step(state: TrainState, prompts: Sequence[Prompt], step: int) -> Step:
    """Take one GRPO step."""
    return next(grpo_steps(state, prompts, [step]))


def rewards_over(model: Path, steps: int, function: str, **changes: object) -> list[float]:
    """Take GRPO steps with a reward function; return the mean share of letters of each step."""
    settings = {
        "max_steps": steps,
        "num_generations": 16,
        "learning_rate": 2e-2,
        "lr_scheduler_type": "constant",
        "reward": reward_by(function),
        **changes,
    }
    config = tiny_config(model, **settings)
    state = make_state(config, reference=config.beta > 0)
    prompts = [make_prompt({"id": str(i), "prompt": f"say {i}"}, state.policy.tokenizer) for i in range(4)]
    return [done.metrics["rewards/share_of_letters/mean"] for done in grpo_steps(state, prompts, range(steps))]


def evaluated_run(model: Path, folder: Path, reporter: Reporter | None = None) -> Path:
    """Train for two steps on rows of the bundled data, evaluate in MLX, and return the run's folder."""
    for split in ("train", "heldout"):
        rows = read_rows(BUNDLED_ROWS / f"{split}.jsonl.gz")[:5]
        for row in rows:
            row["prompt"] = [{"role": "user", "content": row["prompt"][-1]["content"][:60]}]
        (folder / "my-data").mkdir(exist_ok=True)
        (folder / "my-data" / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = tiny_config(
        model,
        data={"train": str(folder / "my-data")},
        output_dir=str(folder / "runs"),
        eval={"episodes": 3, "max_new_tokens": 8, "batch_size": 4, "validation": 2},
        eval_steps=1,
        learning_rate=0.0123,
    )
    run = train(config, reporter or SilentReporter()).folder
    run_eval(str(run), backend="mlx", device="auto", episodes=None, max_new_tokens=None, progress=lambda *a: None)
    return run


def evaluate(run: Path, backend: str, **options: object) -> Evaluation:
    """Evaluate a run as its config says, on the CPU."""
    settings = {"episodes": None, "max_new_tokens": None, "progress": lambda *a: None, **options}
    evaluation = run_eval(str(run), backend=backend, device="cpu", **settings)
    assert evaluation is not None
    return evaluation
