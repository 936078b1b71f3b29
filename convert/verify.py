"""Prove that an export computes what the trained MLX policy computes: load it again, compare on fixed prompts.

The export is held against the policy as its format stores it (fused by mlx-lm, rounded, quantized), which leaves no
room for a mistake to pass as rounding; how far that storing moved it from the policy is measured, not judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx_grpo.backend.openblas  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear
from mlx_lm.utils import dequantize_model, load

from convert.folder import nested_rope_theta, read_json
from convert.quantize import quantize
from convert.torch_eval import layer_outputs
from mlx_grpo.errors import UserError

PROMPTS = (
    "The capital of France is Paris. The capital of Italy is",
    'Answer with JSON only.\n{"decision": "shortlist", "score": 87, "reasons": ["5 years of Python", "led 4 people"]}',
    "def area(radius: float) -> float:\n    return 3.14159 * radius**2\n",
)
TOLERANCE = 1e-4
"""Relative error of a position's values; the order of sums makes 3e-6 on SmolLM2-135M, 30 layers."""
QUANTIZED_TOLERANCE = 1e-2
"""Where a sum in another order puts a weight on the other side of a step between two quantized values."""

Trace = list[mx.array]
"""Each layer's hidden states and last the logits, fp32 [positions of all prompts, width]."""


@dataclass(frozen=True, slots=True)
class Verification:
    """How far an export is from the policy; relative errors are the worst over positions of |a - b| / |b|."""

    error: float
    """Of the logits, relative: what rounding or quantizing changed."""
    max_logit_difference: float
    same_top_token: float
    """The share of positions whose most likely token is the same."""
    adapter_effect: float | None
    """How far the policy is from the base, relative: an `error` near it means that rounding has eaten the training."""
    kept: float | None
    """The share of that effect by which the export differs from the base stored alike, along its direction."""
    storing_error: float
    """Of any layer, relative to the policy as the export stores it: what the check judges."""
    tolerance: float
    checked_in: tuple[str, ...]
    """The frameworks that loaded the export."""


def verify_export(base: Path, out: Path, *, adapter: Path | None = None) -> Verification:
    """Compare the Hugging Face or MLX folder `out` with the policy `base` + `adapter`, in fp32.

    PyTorch loads the folder too where it is installed, unless the folder is quantized. UserError where the tokenizers
    differ or a layer does, naming the first that does.
    """
    config = read_json(out / "config.json")
    quantized = "quantization" in config
    tolerance = QUANTIZED_TOLERANCE if quantized else TOLERANCE
    exported, tokens = _trace(out)
    policy, policy_tokens = _trace(base, adapter)
    if tokens != policy_tokens:
        raise UserError(f"the export's tokenizer splits the check's prompts otherwise than the one in {base}")
    stored, _ = _trace(base, adapter, stored_as=config)
    worst = _compare(exported, stored, tolerance, "MLX")
    checked_in = ["MLX"]
    if not quantized and find_spec("torch"):
        worst = max(worst, _compare(_in_torch(out, tokens), stored, tolerance, "PyTorch"))
        checked_in.append("PyTorch")
    return _measure(base, exported, policy, adapter, worst, tolerance, tuple(checked_in), stored_as=config)


def verify_peft(base: Path, out: Path, *, adapter: Path) -> Verification:
    """Compare the PEFT adapter `out` on `base` in PyTorch with the policy `base` + `adapter` in MLX, in fp32.

    UserError as for `verify_export`, and where torch or peft is missing.
    """
    policy, tokens = _trace(base, adapter)
    exported = _in_torch(base, tokens, out)
    worst = _compare(exported, policy, TOLERANCE, "PyTorch")
    return _measure(base, exported, policy, adapter, worst, TOLERANCE, ("PyTorch",))


def _compare(exported: Trace, expected: Trace, tolerance: float, framework: str) -> float:
    """The worst layer's error; UserError naming the first layer beyond `tolerance`."""
    errors = [_error(ours, theirs) for ours, theirs in zip(exported, expected, strict=True)]
    wrong = next((i for i, error in enumerate(errors) if error > tolerance), None)
    if wrong is not None:
        where = f"model.layers.{wrong}" if wrong < len(errors) - 1 else "the final norm or the head"
        raise UserError(
            f"the export, loaded in {framework}, differs from the policy, first at {where}: {errors[wrong]:.2g} "
            f"relative, allowed {tolerance:g}; nothing was written. Please report it with the run's config.yaml"
        )
    return max(errors)


def _measure(
    base: Path,
    exported: Trace,
    policy: Trace,
    adapter: Path | None,
    storing_error: float,
    tolerance: float,
    checked_in: tuple[str, ...],
    stored_as: dict[str, Any] | None = None,
) -> Verification:
    ours, theirs = exported[-1], policy[-1]
    effect = kept = None
    if adapter is not None:
        start = _trace(base)[0][-1]
        effect, learned = _error(start, theirs), theirs - start
        had = ours - (_trace(base, stored_as=stored_as)[0][-1] if stored_as else start)
        kept = (had * learned).sum().item() / (learned * learned).sum().item() if effect else 1.0
    return Verification(
        error=_error(ours, theirs),
        max_logit_difference=mx.abs(ours - theirs).max().item(),
        same_top_token=(ours.argmax(-1) == theirs.argmax(-1)).mean().item(),
        adapter_effect=effect,
        kept=kept,
        storing_error=storing_error,
        tolerance=tolerance,
        checked_in=checked_in,
    )


def _error(ours: mx.array, theirs: mx.array) -> float:
    """The worst relative distance over positions, of [positions, width] arrays; NaN counts as infinite."""
    error = (mx.linalg.norm(ours - theirs, axis=-1) / mx.linalg.norm(theirs, axis=-1)).max().item()
    return error if error == error else float("inf")


def _trace(
    folder: Path, adapter: Path | None = None, stored_as: dict[str, Any] | None = None
) -> tuple[Trace, list[list[int]]]:
    """What a model computes on the prompts, and their ids; as an export with the config `stored_as` would hold it."""
    model, tokenizer = load(
        str(folder),
        tokenizer_config={"trust_remote_code": False},
        model_config=nested_rope_theta(read_json(folder / "config.json")),
        adapter_path=str(adapter) if adapter else None,
    )
    with mx.stream(mx.cpu):  # GPUs may multiply fp32 in TF32
        # In fp32, so that the weights are compared and not the rounding of activations.
        model.set_dtype(mx.float32)
        if stored_as is not None:
            _store(model, stored_as)
        states: Trace = []
        for layer in model.layers:
            _record(layer, states)
        tokens = [tokenizer.encode(prompt) for prompt in PROMPTS]
        passes = []
        for ids in tokens:
            states.clear()
            logits = model(mx.array([ids]))  # [1, positions, vocab]
            passes.append([state[0] for state in (*states, logits)])
        traces = [mx.concatenate(parts) for parts in zip(*passes, strict=True)]
        mx.eval(traces)
    return traces, tokens


def _store(model: nn.Module, config: dict[str, Any]) -> None:
    """Put an export's rounding on a policy: LoRA fused by mlx-lm, in the export's dtype and quantization."""
    lora = [(name, module) for name, module in model.named_modules() if isinstance(module, LoRALinear | LoRAEmbedding)]
    model.update_modules(tree_unflatten([(name, module.fuse(dequantize=True)) for name, module in lora]))
    dequantize_model(model)
    model.set_dtype({"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}[config["dtype"]])
    if "quantization" in config:
        quantize(model, config["quantization"]["bits"])
    model.set_dtype(mx.float32)


def _record(layer: nn.Module, states: Trace) -> None:
    """Have `layer` append its output to `states`; a subclass, so that the model still finds the layer's attributes."""
    kind = type(layer)

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> mx.array:
        states.append(kind.__call__(self, *args, **kwargs))
        return states[-1]

    layer.__class__ = type(kind.__name__, (kind,), {"__call__": call})


def _in_torch(folder: Path, tokens: list[list[int]], peft: Path | None = None) -> Trace:
    return [mx.array(state) for state in layer_outputs(folder, tokens, peft)]
