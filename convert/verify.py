"""Prove that an export computes what the trained MLX policy computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import mlx.nn as nn

from convert.folder import read_json
from mlx_grpo.errors import UserError

PROMPTS = (
    "The capital of France is Paris. The capital of Italy is",
    'Answer with JSON only.\n{"decision": "shortlist", "score": 87, "reasons": ["5 years of Python", "led 4 people"]}',
    "def area(radius: float) -> float:\n    return 3.14159 * radius**2\n",
)
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Relative error of a position's logits; on SmolLM2-135M, 30 layers, rounding makes 3e-6, 2e-3 and 2e-2."""


@dataclass(frozen=True, slots=True)
class Verification:
    """How far an export is from the policy; relative errors are the worst over positions of |a - b| / |b|."""

    error: float
    """Of the logits, relative."""
    max_logit_difference: float
    same_top_token: float
    """The share of positions whose most likely token is the same."""
    adapter_effect: float | None
    """How far the policy is from the base, relative: an `error` near it means that rounding has eaten the training."""
    tolerance: float


def verify_export(
    base: Path, out: Path, *, adapter: Path | None = None, tolerance: float | None = None
) -> Verification:
    """Compare the export `out` with the policy `base` + `adapter`, both loaded by mlx-lm, on fixed prompts in fp32.

    UserError where the tokenizers differ or the logits differ by more than `tolerance` (relative; by default what
    the export's dtype allows), naming the first layer that differs.
    """
    if tolerance is None:
        tolerance = TOLERANCES[read_json(out / "config.json")["dtype"]]
    exported, tokens = _trace_model(out, None)
    policy, policy_tokens = _trace_model(base, adapter)
    if tokens != policy_tokens:
        raise UserError(f"{out}: its tokenizer splits the check's prompts otherwise than the one in {base}")
    wrong = [i for i in range(len(policy)) if _error(exported[i], policy[i]) > tolerance]
    if wrong:
        where = f"model.layers.{wrong[0]}" if wrong[0] < len(policy) - 1 else "the final norm or the head"
        error = _error(exported[wrong[0]], policy[wrong[0]])
        raise UserError(
            f"{out}: differs from the policy, first at {where}: {error:.2g} relative, allowed {tolerance:g}"
        )
    effect = _error(_trace_model(base, None)[0][-1], policy[-1]) if adapter else None
    ours, theirs = exported[-1], policy[-1]
    return Verification(
        error=_error(ours, theirs),
        max_logit_difference=mx.abs(ours - theirs).max().item(),
        same_top_token=(ours.argmax(-1) == theirs.argmax(-1)).mean().item(),
        adapter_effect=effect,
        tolerance=tolerance,
    )


def _error(ours: mx.array, theirs: mx.array) -> float:
    """The worst relative distance over positions, of [positions, width] arrays; NaN counts as infinite."""
    error = (mx.linalg.norm(ours - theirs, axis=-1) / mx.linalg.norm(theirs, axis=-1)).max().item()
    return error if error == error else float("inf")


def _trace_model(folder: Path, adapter: Path | None) -> tuple[list[mx.array], list[list[int]]]:
    """Each layer's hidden states and last the logits, [positions, width] over all prompts; and the prompts' ids."""
    from mlx_lm import load

    model, tokenizer = load(
        str(folder), tokenizer_config={"trust_remote_code": False}, adapter_path=str(adapter) if adapter else None
    )
    # In fp32, so that the weights are compared and not the rounding of activations.
    model.set_dtype(mx.float32)
    states: list[mx.array] = []
    for layer in model.layers:
        _record(layer, states)
    tokens = [tokenizer.encode(prompt) for prompt in PROMPTS]
    passes = []
    for ids in tokens:
        states.clear()
        logits = model(mx.array([ids]))
        passes.append([state[0] for state in (*states, logits)])
    traces = [mx.concatenate(parts) for parts in zip(*passes, strict=True)]
    mx.eval(traces)
    return traces, tokens


def _record(layer: nn.Module, states: list[mx.array]) -> None:
    """Have `layer` append its output to `states`; a subclass, so that the model still finds the layer's attributes."""
    kind = type(layer)

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> mx.array:
        states.append(kind.__call__(self, *args, **kwargs))
        return states[-1]

    layer.__class__ = type(kind.__name__, (kind,), {"__call__": call})
