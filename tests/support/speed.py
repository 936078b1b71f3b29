"""How much faster sharing is, and a step beside TRL's: `python -m support.speed MODEL`, run in `tests/`.

It writes docs/results/speed.json. Every ratio is of times measured in turns, in one run. `--short` measures the two
shapes that tests/long/test_speed.py checks.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx

from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import make_supervised_batch
from mlx_grpo.data.dataset import dataset_files, load_prompts
from mlx_grpo.data.types import Batch, Prompt
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.policy import load_policy
from mlx_grpo.models.prefix import Chain
from mlx_grpo.models.tree import common_start, token_tree
from mlx_grpo.planning.flops import Shape, matrix_speed, timed
from mlx_grpo.rewards import load_reward
from mlx_grpo.training.accumulate import accumulate
from mlx_grpo.training.bench import prompts_of, time_step
from mlx_grpo.training.state import TrainState, grpo_optimizer

FILE = Path(__file__).parents[2] / "docs" / "results" / "speed.json"
TREES = {"110/70x8x64": 8, "500/250x8x96": 4, "2000/250x4x96": 8}
"""Shapes with the number of prompts, all of one job."""
STEPS = ("256x8x48", "750x8x96")
"""Shapes of one prompt, beside TRL."""
ROWS = 4
"""Completions of a micro-batch in the warm start's comparison, so that plain rows fit 16 GB."""
SHORT_TREE, SHORT_STEP = {"500/250x4x32": 4}, "256x8x48"


def config_of(model: str) -> Config:
    return validate({"model": model, "dtype": "float32", "data": {"train": "shortlist"}, "lora": {"rank": 16}})


def state_of(config: Config) -> TrainState:
    return TrainState(load_policy(config), config, load_reward(config.reward), grpo_optimizer(config), None, Ranks())


def load_row(state: TrainState) -> Prompt:
    """Return the first training row."""
    return load_prompts(dataset_files(state.config.data)[0], state.policy.tokenizer)[0]


def medians(measure: Callable[[], dict[str, float]], repeats: int) -> dict[str, float]:
    """Return the medians of some measurements, after a first one that warms up."""
    measured = [measure() for _ in range(repeats + 1)][1:]
    return {name: round(median(own[name] for own in measured), 3) for name in measured[0]}


def time_tree(state: TrainState, shape: Shape, repeats: int) -> dict[str, float]:
    """Return seconds of a step's parts, and of its training half by the tree and group by group."""
    row = load_row(state)
    prompts = prompts_of(row, shape)
    times = medians(lambda: time_step(state, prompts, shape, shape.prompts > 1), repeats)
    if shape.prompts > 1:
        times["tree_over_groups"] = round(times["train_groups"] / times["train"], 3)
    return times


def time_warm_start(state: TrainState, repeats: int, jobs: int = 4, each: int = 4) -> dict[str, float]:
    """Return seconds of a supervised gradient of jobs x examples in mixed order, by the tree and by one beginning.

    A job has 110 tokens, a candidate 70, a completion 76; all prompts begin with 10 tokens in common.
    """
    row = load_row(state)
    ids = row.token_ids * 4
    own = [
        (*ids[:10], job, *ids[10:109], 50 + person, *ids[110 + person : 179 + person])
        for person in range(each)
        for job in range(jobs)
    ]
    prompts = [Prompt(str(n), "", prompt) for n, prompt in enumerate(own)]
    completions = [ids[n : n + 76] for n in range(len(prompts))]
    tree = make_supervised_batch(prompts, completions)
    shared = common_start([prompt.token_ids for prompt in prompts])
    assert shared == 0, "the jobs have nothing in common that is worth a node"
    return medians(lambda: {"tree": gradient(state, tree, True), "plain": gradient(state, tree, False)}, repeats)


def gradient(state: TrainState, batch: Batch, share: bool) -> float:
    """Return the seconds of one gradient."""
    model = state.policy.model

    def loss(part: Batch, chain: Chain = ()) -> tuple[mx.array, ...]:
        return (-score_tokens(model, part, chain=chain).logps.sum(),)

    return timed(lambda: mx.eval(accumulate(model, loss, token_tree(batch, ROWS, share=share))[1]))[0]


def beside_trl(state: TrainState, folder: Path, shape: Shape, repeats: int) -> dict[str, float]:
    """Return the seconds of a step here and of TRL's, measured one after the other."""
    from support.trl_speed import step_seconds

    times = time_tree(state, shape, repeats)
    mx.clear_cache()
    trl = median(step_seconds(folder, shape, repeats))
    return {**times, "trl": round(trl, 3), "trl_over_step": round(trl / times["step"], 3)}


def measure(model: str, short: bool) -> dict[str, Any]:
    """Return all figures for a model."""
    state = state_of(config_of(model))
    repeats = 2 if short else 3
    trees = SHORT_TREE if short else TREES
    steps = (SHORT_STEP,) if short else STEPS
    result: dict[str, Any] = {
        "made_by": f"python -m support.speed MODEL{' --short' if short else ''}, run in tests/",
        "matrix_gflops": round(matrix_speed(mx.float32) / 1e9),
        "versions": {name: version(name) for name in ("mlx", "mlx-lm", "trl", "torch")},
        "date": time.strftime("%Y-%m-%d"),
        "trees": {},
        "steps": {},
    }
    for text, prompts in trees.items():
        result["trees"][f"{prompts} x {text}"] = time_tree(state, Shape.parse(text, prompts), repeats)
        print(text, result["trees"][f"{prompts} x {text}"], flush=True)
    if not short:
        result["warm_start"] = time_warm_start(state, repeats)
        print("warm start", result["warm_start"], flush=True)
    for text in steps:
        result["steps"][text] = beside_trl(state, Path(model), Shape.parse(text), repeats)
        print(text, result["steps"][text], flush=True)
    return result


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--short"]
    figures = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    kind = "short" if "--short" in sys.argv else "full"
    FILE.write_text(json.dumps({**figures, kind: measure(arguments[0], kind == "short")}, indent=1) + "\n")
