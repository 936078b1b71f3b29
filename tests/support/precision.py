"""LoRA gradients and five GRPO steps in half precision beside float32: `python -m support.precision MODEL`.

Run in `tests/`. It writes docs/results/precision.json. Half precision is emulated on CPUs, so it takes an hour for a
model of half a billion parameters.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import make_batch
from mlx_grpo.data.dataset import load_prompts
from mlx_grpo.data.types import Batch, Rollout
from mlx_grpo.json_files import read_jsonl
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.policy import Policy, load_policy, model_name
from mlx_grpo.models.prefix import Chain
from mlx_grpo.models.tree import token_tree
from mlx_grpo.runs import METRICS
from mlx_grpo.tasks.lookup import BUNDLED
from mlx_grpo.training.accumulate import accumulate
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.trainer import train

FILE = Path(__file__).parents[2] / "docs" / "results" / "precision.json"
ROWS, TOKENS, PROMPT_TOKENS = 4, 32, 64
PROMPTS = [f"In one sentence: what is {thing}?" for thing in ("a river", "a bridge", "a clock", "a poem", "a seed")]
LAYER = re.compile(r"layers\.(\d+)\.")


def vowels(completions: list[str], **_: Any) -> list[float]:
    """Return the share of vowels in each completion: a reward that differs within every group."""
    return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in completions]


def config_of(model: str, dtype: str, folder: str) -> Config:
    """Return a run of five steps of 2 x 2 x 32 on short prompts, which half precision on a CPU can afford."""
    rows = Path(folder) / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": text, "prompt": text}) + "\n" for text in PROMPTS), encoding="utf-8")
    return validate(
        {
            "model": model,
            "dtype": dtype,
            "data": {"train": str(rows)},
            "reward": {"rubric": None, "functions": ["support.precision:vowels"]},
            "lora": {"rank": 16, "scale": 2.0},
            "max_steps": 5,
            "prompts_per_step": 2,
            "num_generations": 2,
            "max_completion_length": TOKENS,
            "learning_rate": 2.0e-4,
            "output_dir": folder,
        }
    )


def batch_of(policy: Policy) -> Batch:
    """Return rows of gold tokens after the ends of their prompts, with advantages of both signs."""
    rollouts = []
    for prompt in load_prompts(BUNDLED["shortlist"][0], policy.tokenizer)[:ROWS]:
        short = replace(prompt, token_ids=prompt.token_ids[-PROMPT_TOKENS:])
        ids = policy.tokenizer.encode(prompt.columns["completion"], add_special_tokens=False)[:TOKENS]
        rollouts.append(Rollout(short, tuple(ids), "", "length"))
    return make_batch(rollouts, mx.array([[1.0], [-1.0]] * (ROWS // 2)))


def gradients_of(policy: Policy) -> dict[str, np.ndarray]:
    """Return the gradient by LoRA matrix; LoRA's B is not zero, as after some steps."""
    mx.random.seed(0)
    matrices = tree_flatten(policy.model.trainable_parameters())
    policy.model.load_weights(
        [(name, 0.01 * mx.random.normal(w.shape)) for name, w in matrices if name.endswith("lora_b")], strict=False
    )

    def loss(part: Batch, chain: Chain = ()) -> tuple[mx.array, ...]:
        return (
            -(score_tokens(policy.model, part, 1.0, chain).logps * part.advantages[:, None]).sum() / (ROWS * TOKENS),
        )

    _, gradients = accumulate(policy.model, loss, token_tree(batch_of(policy)))
    return {name: np.array(own.astype(mx.float32)) for name, own in tree_flatten(gradients)}


def compare(exact: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return for each layer the cosine to the exact gradient, the ratio of norms, and the share of zeros."""
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for name, gradient in exact.items():
        found = LAYER.search(name)
        pairs[found[1] if found else "other"].append((gradient.ravel(), own[name].ravel()))
    result = {}
    for layer, members in pairs.items():
        left, right = (np.concatenate(side).astype(np.float64) for side in zip(*members, strict=True))
        norms = np.linalg.norm(left), np.linalg.norm(right)
        result[layer] = {
            "cosine": round(float(left @ right / (norms[0] * norms[1])), 5),
            "norm": round(float(norms[1] / norms[0]), 5),
            "zeros": round(float((right == 0).mean()), 5),
        }
    return result


def five_steps(model: str, dtype: str) -> list[dict[str, float]]:
    """Return the reward, the gradient's norm and the steps that were skipped of each of five steps."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(config_of(model, dtype, folder), SilentReporter())
        keys = ("reward", "loss", "grad_norm", "entropy", "update_skipped")
        return [{key: round(float(record[key]), 5) for key in keys} for record in read_jsonl(run.folder / METRICS)]


def loaded(model: str, dtype: str) -> Policy:
    """Return the policy with its weights in `dtype`."""
    with tempfile.TemporaryDirectory() as folder:
        return load_policy(config_of(model, dtype, folder))


def study(model: str) -> dict[str, Any]:
    """Return the comparison of both half precisions with float32."""
    exact = gradients_of(loaded(model, "float32"))
    result: dict[str, Any] = {"float32": {"steps": five_steps(model, "float32")}}
    for dtype in ("float16", "bfloat16"):
        layers = compare(exact, gradients_of(loaded(model, dtype)))
        result[dtype] = {"layers": layers, "steps": five_steps(model, dtype)}
        print(model_name(model), dtype, json.dumps(result[dtype]), flush=True)
    return result


if __name__ == "__main__":
    FILE.write_text(
        json.dumps(
            {
                "made_by": "python -m support.precision MODEL, run in tests/",
                "rows": ROWS,
                "tokens": TOKENS,
                "prompt_tokens": PROMPT_TOKENS,
                "models": {model_name(model): study(model) for model in sys.argv[1:]},
            },
            indent=1,
        )
        + "\n",
        encoding="utf-8",
    )
