"""Proof that an export computes what the trained MLX policy does: it is loaded again and compared on fixed prompts.

The export is compared with the policy as its format stores it (fused by mlx-lm, rounded, quantized). So no mistake
can pass as rounding. How far that storing moved it from the policy is measured, not judged.

Each model is loaded once: the base, to which the adapter is added later; the export in MLX; the export in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx_grpo.backend.openblas  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import dequantize_model, load

from convert.layout import is_shifted_norm
from convert.quantize import quantize
from convert.settings import config_changes, correct
from convert.torch_eval import layer_outputs
from mlx_grpo.backend.device import DTYPES
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import read_json

PROMPTS = (
    "The capital of France is Paris. The capital of Italy is",
    'Answer with JSON only.\n{"decision": "shortlist", "score": 87, "reasons": ["5 years of Python", "led 4 people"]}',
    "def area(radius: float) -> float:\n    return 3.14159 * radius**2\n",
)
TOLERANCE = 1e-4
"""The largest relative error of a position's values; the order of sums makes 3e-6 on SmolLM2-135M, 30 layers."""
QUANTIZED_TOLERANCE = 1e-2
"""The same where a sum in another order puts a weight on the other side of a step between two quantized values."""

Trace = list[mx.array]
"""Each layer's hidden states and last the logits, fp32 [positions of all prompts, width]."""


Store = Callable[[nn.Module], None]
"""Changes a policy into what a format keeps of it."""


@dataclass(frozen=True, slots=True)
class Verification:
    """An export's distance from the policy; relative errors are the worst over positions of |a - b| / |b|."""

    error: float
    """The relative error of the logits, which rounding or quantizing causes."""
    max_logit_difference: float
    same_top_token: float
    """The share of positions whose most likely token is the same."""
    adapter_effect: float | None
    """The policy's relative distance from the base; an `error` near it means that rounding undid the training."""
    kept: float | None
    """The share of that effect in the export: its distance from the base in the same format, along the effect."""
    storing_error: float
    """The worst layer's relative error against the policy as the export stores it, which the check judges."""
    tolerance: float
    checked_in: tuple[str, ...]
    """The frameworks that loaded the export."""


def verify_export(base: Path, out: Path, *, adapter: Path | None = None) -> Verification:
    """Compare the Hugging Face or MLX folder `out` with the policy `base` + `adapter`, in fp32.

    PyTorch loads the folder too where it is installed, unless the folder is quantized. Raises UserError where the
    tokenizers differ or a layer does, naming the first that does.
    """
    config = read_json(out / "config.json")
    quantized = "quantization" in config
    tolerance = QUANTIZED_TOLERANCE if quantized else TOLERANCE
    return _verify(base, out, adapter, partial(_store, config), tolerance, in_torch=not quantized)


def verify_gguf(base: Path, out: Path, quant: str, *, adapter: Path | None = None) -> Verification:
    """Compare `out`, the Hugging Face folder that transformers read from a GGUF, with the policy, in fp32.

    `quant` is F16 or Q8_0. Raises UserError as `verify_export` does.
    """
    tolerance = TOLERANCE if quant == "F16" else QUANTIZED_TOLERANCE
    return _verify(base, out, adapter, partial(_store_in_gguf, quant), tolerance, in_torch=True)


def _verify(
    base: Path, out: Path, adapter: Path | None, store: Store, tolerance: float, in_torch: bool
) -> Verification:
    model, tokenizer = _load(out)
    tokens = _encode(tokenizer)
    exported = _trace(model, tokens)
    model, tokenizer = _load(base)
    if tokens != _encode(tokenizer):
        raise UserError(f"the export's tokenizer splits the check's prompts otherwise than the one in {base}")
    policy = _trace_policy(model, adapter, tokens, store)
    worst = _compare(exported, policy.stored, tolerance, "MLX")
    checked_in: tuple[str, ...] = ("MLX",)
    if in_torch and find_spec("torch"):
        worst = max(worst, _compare(_in_torch(out, tokens), policy.stored, tolerance, "PyTorch"))
        checked_in = ("MLX", "PyTorch")
    return _measure(exported[-1], policy, worst, tolerance, checked_in)


def verify_peft(base: Path, out: Path, *, adapter: Path) -> Verification:
    """Compare the PEFT adapter `out` on `base` in PyTorch with the policy `base` + `adapter` in MLX, in fp32.

    Raises UserError as `verify_export` does, and where torch or peft is missing.
    """
    model, tokenizer = _load(base)
    tokens = _encode(tokenizer)
    policy = _trace_policy(model, adapter, tokens, None)
    exported = _in_torch(base, tokens, out)
    worst = _compare(exported, policy.stored, TOLERANCE, "PyTorch")
    return _measure(exported[-1], policy, worst, TOLERANCE, ("PyTorch",))


@dataclass(frozen=True, slots=True)
class _PolicyTraces:
    """The policy that an export is compared with; logits are fp32 [positions, vocab]."""

    logits: mx.array
    stored: Trace
    """Of the policy as the export stores it."""
    base_logits: tuple[mx.array, mx.array] | None
    """Of the base, and of the base as the export would store it; None without an adapter."""


def _trace_policy(
    model: nn.Module, adapter: Path | None, tokens: list[list[int]], store: Store | None
) -> _PolicyTraces:
    """Trace a base `model`, then add the adapter to it and trace the policy; the model is spent.

    A copy of a model shares its arrays, which are read from disk when the first copy needs them. Without `store` the
    export stores the adapter as it is.
    """
    base_logits = None
    if adapter is not None:
        base = _trace(deepcopy(model), tokens)[-1]
        base_logits = base, _trace(deepcopy(model), tokens, store)[-1] if store else base
        load_adapters(model, str(adapter))
        model.eval()  # LoRA's dropout is off
    policy = _trace(deepcopy(model), tokens)
    stored = _trace(model, tokens, store) if store else policy
    return _PolicyTraces(policy[-1], stored, base_logits)


def _compare(exported: Trace, expected: Trace, tolerance: float, framework: str) -> float:
    """Return the worst layer's error; raise UserError naming the first layer beyond `tolerance`."""
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
    exported: mx.array, policy: _PolicyTraces, storing_error: float, tolerance: float, checked_in: tuple[str, ...]
) -> Verification:
    """Measure how far the logits of an export are from the policy's."""
    effect = kept = None
    if policy.base_logits is not None:
        base, stored_base = policy.base_logits
        effect = _error(base, policy.logits)
        learned, present = policy.logits - base, exported - stored_base
        kept = _number((present * learned).sum()) / _number((learned * learned).sum()) if effect else 1.0
    return Verification(
        error=_error(exported, policy.logits),
        max_logit_difference=_number(mx.abs(exported - policy.logits).max()),
        same_top_token=_number((exported.argmax(-1) == policy.logits.argmax(-1)).mean()),
        adapter_effect=effect,
        kept=kept,
        storing_error=storing_error,
        tolerance=tolerance,
        checked_in=checked_in,
    )


def _error(ours: mx.array, theirs: mx.array) -> float:
    """Return the worst relative distance over positions, of [positions, width] arrays; NaN counts as infinite."""
    error = _number((mx.linalg.norm(ours - theirs, axis=-1) / mx.linalg.norm(theirs, axis=-1)).max())
    return error if error == error else float("inf")


def _number(scalar: mx.array) -> float:
    return float(np.array(scalar))


def _load(folder: Path) -> tuple[nn.Module, TokenizerWrapper]:
    """Load a model and its tokenizer; the weights are read when they are first used."""
    model, tokenizer = load(
        str(folder),
        tokenizer_config={"trust_remote_code": False},
        model_config=config_changes(read_json(folder / "config.json")),
        lazy=True,
    )
    correct(model, folder)
    return model, tokenizer


def _encode(tokenizer: TokenizerWrapper) -> list[list[int]]:
    return [tokenizer.encode(prompt) for prompt in PROMPTS]


def _trace(model: nn.Module, tokens: list[list[int]], store: Store | None = None) -> Trace:
    """Return what a model computes on prompts; as an export that stores it by `store` would.

    The model is converted in place.
    """
    with mx.stream(mx.cpu):  # GPUs may multiply fp32 in TF32
        # In fp32, so that the weights are compared and not the rounding of activations.
        model.set_dtype(mx.float32)
        if store is not None:
            store(model)
        states: Trace = []
        for layer in model.layers:
            _record(layer, states)
        passes = []
        for ids in tokens:
            states.clear()
            logits = model(mx.array([ids]))  # [1, positions, vocab]
            passes.append([state[0] for state in (*states, logits)])
        traces = [mx.concatenate(list(parts)) for parts in zip(*passes, strict=True)]
        mx.eval(traces)
    return traces


def _store(config: dict[str, Any], model: nn.Module) -> None:
    """Store a policy as an export does: LoRA fused by mlx-lm, in the export's dtype and quantization."""
    _fuse(model)
    dtype = DTYPES[config["dtype"]]
    norms = {name: w for name, w in tree_flatten(model.parameters()) if is_shifted_norm(name)}
    model.set_dtype(dtype)
    if "quantization" in config:
        quantize(model, config["quantization"]["bits"])
    model.set_dtype(mx.float32)
    added_in = dtype if "quantization" in config else mx.float32  # a folder for MLX holds the sums
    rounded = {name: (w - 1).astype(dtype).astype(added_in) + 1 for name, w in norms.items()}
    model.load_weights([(name, w.astype(mx.float32)) for name, w in rounded.items()], strict=False)


def _store_in_gguf(quant: str, model: nn.Module) -> None:
    """Store a policy as a GGUF does: matrices in fp16 or in blocks of 8 bits, by gguf's own functions."""
    from gguf import GGMLQuantizationType, quants

    _fuse(model)

    def stored(weight: mx.array) -> mx.array:
        if weight.ndim < 2:
            return weight
        kind = GGMLQuantizationType["Q8_0" if quant == "Q8_0" and weight.shape[-1] % 32 == 0 else "F16"]
        return mx.array(quants.dequantize(quants.quantize(np.array(weight), kind), kind))

    model.update(tree_map(stored, model.parameters()))


def _fuse(model: nn.Module) -> None:
    lora = [(name, module) for name, module in model.named_modules() if isinstance(module, LoRALinear | LoRAEmbedding)]
    model.update_modules(tree_unflatten([(name, module.fuse(dequantize=True)) for name, module in lora]))
    dequantize_model(model)


def _record(layer: nn.Module, states: Trace) -> None:
    """Have `layer` append its output to `states`; a subclass, so that the model still finds the layer's attributes."""
    kind = type(layer)

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> mx.array:
        states.append(kind.__call__(self, *args, **kwargs))
        return states[-1]

    layer.__class__ = type(kind.__name__, (kind,), {"__call__": call})


def _in_torch(folder: Path, tokens: list[list[int]], peft: Path | None = None) -> Trace:
    return [mx.array(state) for state in layer_outputs(folder, tokens, peft)]
