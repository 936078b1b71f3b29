"""How much faster sharing is, a step beside TRL's, one process beside two, and prompts copied for their rows.

`python -m support.speed [--short | --processes | --copies] MODEL`, run in `tests/`, writes docs/results/speed.json.
Sharing is measured in turns in one run, TRL's step after ours in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx

from mlx_grpo.cli.bench_processes import bench_counts
from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import batched, make_supervised_batch, take_rows
from mlx_grpo.data.dataset import dataset_files, load_prompts
from mlx_grpo.data.types import Batch, Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.generation import decoding
from mlx_grpo.generation.nodes import Node, Nodes
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.policy import load_policy, model_name
from mlx_grpo.models.prefix import Chain
from mlx_grpo.models.tree import TokenIds, common_start, token_tree
from mlx_grpo.planning.flops import Shape, matrix_speed, timed
from mlx_grpo.rewards import load_reward
from mlx_grpo.training.accumulate import accumulate
from mlx_grpo.training.bench import batch_of, prompts_of, time_gradient, time_step
from mlx_grpo.training.state import TrainState, grpo_optimizer

TESTS = Path(__file__).parents[1]
FILE = TESTS.parent / "docs" / "results" / "speed.json"
TREES = {"110/70x8x64": 8, "500/250x8x96": 4, "2000/250x4x96": 8}
"""Shapes with the number of prompts, all of one job."""
STEPS = ("256x8x48", "750x8x96")
"""Shapes of one prompt, beside TRL."""
SHORT_TREE, SHORT_STEP = Shape.parse("500/250x4x16", 4), Shape.parse("256x4x16")
"""Shapes that are quick enough for a test."""
GROUPS = (19, 32, 64, 128, 256)
"""Tokens of the prompt that eight rows continue."""
POSITIONS = 48
"""Positions that rows decode, of prompts shared and copied."""
ROWS = 4
"""Completions of a micro-batch in the warm start's comparison, so that plain rows fit 16 GB."""


def config_of(model: str) -> Config:
    return validate({"model": model, "dtype": "float32", "data": {"train": "shortlist"}, "lora": {"rank": 16}})


def state_of(config: Config) -> TrainState:
    return TrainState(load_policy(config), config, load_reward(config.reward), grpo_optimizer(config), None, Ranks())


def load_row(state: TrainState) -> Prompt:
    """Return the first training row."""
    return load_prompts(dataset_files(state.config.data)[0], state.policy.tokenizer)[0]


def rollouts_of(state: TrainState, shape: Shape) -> list[Rollout]:
    """Return completions of a shape's prompts that begin with different tokens."""
    row = load_row(state)
    completion = row.token_ids[: shape.completion_tokens]
    return [
        Rollout(prompt, (n, *completion[1:]), "", "length")
        for prompt in prompts_of(row, shape)
        for n in range(shape.num_generations)
    ]


def in_turns(ways: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each way, measured in turns after a first round that warms up."""
    measured = [{name: way() for name, way in ways.items()} for _ in range(repeats + 1)][1:]
    return {name: round(median(each[name] for each in measured), 3) for name in ways}


def time_tree(state: TrainState, shape: Shape, repeats: int) -> dict[str, float]:
    """Return seconds and peak GiB of the training half by the tree and group by group, and the ratio of the seconds."""
    rollouts = rollouts_of(state, shape)
    batch = batch_of(rollouts, shape.prompts)
    groups = [take_rows(batch, rows) for rows in batched(range(len(rollouts)), shape.num_generations)]
    peaks = {}

    def way(name: str, batches: list[Batch]) -> Callable[[], float]:
        def run() -> float:
            seconds, _, peaks[name] = time_gradient(state, batches, True)
            return seconds

        return run

    times = in_turns({"tree": way("tree", [batch]), "groups": way("groups", groups)}, repeats)
    return {
        **times,
        **{f"{name}_gb": round(peak, 3) for name, peak in peaks.items()},
        "ratio": round(times["groups"] / times["tree"], 3),
    }


def time_warm_start(state: TrainState, repeats: int, jobs: int = 4, each: int = 4) -> dict[str, float]:
    """Return seconds of a supervised gradient of jobs x examples in mixed order, by the tree and by plain rows.

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
    batch = make_supervised_batch(prompts, [ids[n : n + 76] for n in range(len(prompts))])
    assert common_start([prompt.token_ids for prompt in prompts]) == 0, "the jobs share a node"
    times = in_turns(
        {"tree": lambda: supervised(state, batch, True), "rows": lambda: supervised(state, batch, False)}, repeats
    )
    return {**times, "ratio": round(times["rows"] / times["tree"], 3)}


def supervised(state: TrainState, batch: Batch, share: bool) -> float:
    """Return the seconds of one supervised gradient."""
    model = state.policy.model

    def loss(part: Batch, chain: Chain = ()) -> tuple[mx.array, ...]:
        return (-score_tokens(model, part, chain=chain).logps.sum(),)

    return timed(lambda: mx.eval(accumulate(model, loss, token_tree(batch, ROWS, share=share))[1]))[0]


def beside_trl(state: TrainState, folder: str, shape: Shape, repeats: int) -> dict[str, float]:
    """Return the seconds of a step's parts here, of the step, and of TRL's step after it."""
    prompts = prompts_of(load_row(state), shape)
    steps = [time_step(state, prompts, shape, False) for _ in range(repeats + 1)][1:]
    times = {name: round(median(step[name] for step in steps), 3) for name in ("prefill", "decode", "train", "step")}
    mx.clear_cache()
    trl = median(trl_seconds(folder, shape, repeats))
    return {**times, "trl": round(trl, 3), "ratio": round(trl / times["step"], 3)}


def trl_seconds(folder: str, shape: Shape, steps: int) -> list[float]:
    """Return the seconds of TRL's steps, from a process of its own."""
    sizes = (shape.prompt_tokens, shape.num_generations, shape.completion_tokens, steps)
    command = [sys.executable, "-m", "support.trl_speed", folder, *map(str, sizes)]
    done = subprocess.run(command, cwd=TESTS, stdout=subprocess.PIPE, check=True, text=True)
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def measure(model: str) -> dict[str, Any]:
    """Return the figures of trees, of the warm start and of steps beside TRL."""
    state = state_of(config_of(model))
    result: dict[str, Any] = {
        "matrix_gflops": round(matrix_speed(mx.float32) / 1e9),
        "versions": {name: version(name) for name in ("mlx", "mlx-lm", "trl", "torch")},
        "date": time.strftime("%Y-%m-%d"),
        "trees": {},
        "steps": {},
    }
    for text, prompts in TREES.items():
        result["trees"][f"{prompts} x {text}"] = time_tree(state, Shape.parse(text, prompts), 2)
        print(text, result["trees"][f"{prompts} x {text}"], flush=True)
    result["warm_start"] = time_warm_start(state, 3)
    print("warm start", result["warm_start"], flush=True)
    for text in STEPS:
        result["steps"][text] = beside_trl(state, model, Shape.parse(text), 2)
        print(text, result["steps"][text], flush=True)
    return result


def measure_short(model: str) -> dict[str, Any]:
    """Return the ratios that `make test-long` checks, each of times measured in this run."""
    state = state_of(config_of(model))
    batch = batch_of(rollouts_of(state, SHORT_STEP))
    once = in_turns(
        {
            "shared": lambda: time_gradient(state, [batch], True)[0],
            "plain": lambda: time_gradient(state, [batch], False)[0],
        },
        1,
    )
    return {
        "shared_over_plain": round(once["plain"] / once["shared"], 3),
        "tree_over_groups": time_tree(state, SHORT_TREE, 1)["ratio"],
        "trl_over_step": beside_trl(state, model, SHORT_STEP, 1)["ratio"],
    }


def time_copies(model: str) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a position of 8 rows whose prompts are shared, and of 8 that have copies of them."""
    state = state_of(config_of(model))
    ids = load_row(state).token_ids * 2
    prompts = {f"8 rows after {length} tokens": [ids[: length + 1]] * 8 for length in GROUPS}
    prompts["8 candidates of 70 tokens after 110"] = [(*ids[:110], n, *ids[110:180]) for n in range(8)]
    prompts["8 different prompts of 180 tokens"] = [(n, *ids[:180]) for n in range(8)]
    return {name: time_rows(state, rows) for name, rows in prompts.items()}


def time_rows(state: TrainState, prompts: Sequence[TokenIds]) -> dict[str, float]:
    """Return the milliseconds of a position in both ways, and their ratio."""

    def none(chains: Sequence[Nodes], known: Collection[Node]) -> list[Node | None]:
        return [None] * len(chains)

    def last(chains: Sequence[Nodes], known: Collection[Node]) -> list[Node | None]:
        return [chain[-1] for chain in chains]

    ways = {"shared": lambda: position_ms(state, prompts, none), "copied": lambda: position_ms(state, prompts, last)}
    times = in_turns(ways, 4)
    return {**times, "ratio": round(times["shared"] / times["copied"], 3)}


def position_ms(state: TrainState, prompts: Sequence[TokenIds], copied: Callable) -> float:
    """Return the median milliseconds of a position of rows whose nodes are copied as `copied` says."""
    model = state.policy.model
    with patch.object(decoding, "_copied", copied):
        rows = decoding.decoding_rows(model, POSITIONS)
        rows.add(prompts)
    tokens = mx.array([[ids[-1]] for ids in prompts])
    seconds = [timed(lambda: mx.eval(model(tokens, cache=rows.caches)))[0] for _ in range(POSITIONS)]
    return 1000 * median(seconds[1:])


def time_processes(model: str) -> dict[str, dict[str, float]]:
    """Return the seconds of a step of two prompts of 256 x 8 x 48 and the GB of all processes, by their count."""
    arguments = ["bench", "smollm2", f"model={model}", "--shapes", "256x8x48", "--repeats", "2"]
    found = {}
    for result in bench_counts(arguments, (1, 2), 1):
        count, r = result["processes"], result["shapes"][0]
        times = {name: round(r[name], 2) for name in ("decode", "train", "step")}
        found[str(count)] = {**times, "gb": round(count * r["peak_gb"], 2)}
    return found


def main(kind: str, model: str) -> None:
    """Measure one kind of figures and add them to the file."""
    figures = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    if kind == "--processes":
        figures.setdefault("processes", {})[model_name(model)] = time_processes(model)
    elif kind == "--copies":
        figures["copies"] = time_copies(model)
    elif kind == "--short":
        figures["short"] = measure_short(model)
    else:
        figures["full"] = measure(model)
    FILE.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(["", *sys.argv[1:]][-2:]))
