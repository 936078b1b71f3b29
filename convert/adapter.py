"""An mlx-lm adapter folder, checked against the base model and applied weight by weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import mlx.core as mx

from convert.layout import hub_name, on_the_hub
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import read_json


@dataclass(frozen=True, slots=True)
class Adapter:
    """The weights that training changed: LoRA pairs or whole weights, by the name of the base's tensor."""

    kind: str
    """"none", "lora" or "full"."""
    pairs: Mapping[str, tuple[mx.array, mx.array, float]]
    """A [in, r], B [r, out] and the scale; for an embedding A is [vocab, r] and B [r, hidden]."""
    whole: Mapping[str, mx.array]

    @property
    def size(self) -> int:
        """The number of the base's tensors that it changes."""
        return len(self.pairs) + len(self.whole)

    def apply(self, name: str, weight: mx.array) -> mx.array:
        """Return `weight` [out, in] after training; in fp32 where the adapter changes it."""
        if name in self.whole:
            return self.whole[name]
        if name not in self.pairs:
            return weight
        return weight.astype(mx.float32) + _delta(name, *self.pairs[name])


def _delta(name: str, a: mx.array, b: mx.array, scale: float) -> mx.array:
    product = a.astype(mx.float32) @ b.astype(mx.float32)
    return scale * (product if is_embedding(name) else product.T)


def is_embedding(name: str) -> bool:
    """Return True if a tensor is the table of the tokens' embeddings, whose LoRA is laid out as the table is."""
    return name.endswith("embed_tokens.weight")


def load_adapter(folder: Path, base_shapes: Mapping[str, tuple[int, ...]]) -> Adapter:
    """Read `folder` (adapters.safetensors, adapter_config.json) and compare it with the shapes of the base's weights.

    Raises UserError listing every tensor that has no base tensor, no partner, or another shape.
    """
    config = read_json(folder / "adapter_config.json")
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "full"):
        raise UserError(f"{folder}: fine_tune_type {kind!r} cannot be exported; 'lora' and 'full' can")
    tensors = read_tensors(folder / "adapters.safetensors")
    if not tensors:
        raise UserError(f"{folder}: the adapter holds no tensors")
    if kind == "full":
        tensors = dict(pair for name, weight in tensors.items() for pair in on_the_hub(name, weight))
        problems, adapter = _full_problems(tensors, base_shapes), Adapter("full", {}, tensors)
    else:
        scale = config.get("lora_parameters", {}).get("scale")
        if not isinstance(scale, int | float):
            raise UserError(f"{folder}: adapter_config.json has no number at lora_parameters.scale")
        problems, adapter = _lora(tensors, base_shapes, float(scale))
    if problems:
        raise UserError(*(f"{folder}: {problem}" for problem in problems))
    return adapter


def read_tensors(path: Path) -> dict[str, mx.array]:
    """Return the arrays of a safetensors file; MLX reads each from it when the array is evaluated."""
    try:
        return cast(dict[str, mx.array], mx.load(str(path)))
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as safetensors: {error}") from error


def _full_problems(tensors: Mapping[str, mx.array], base_shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    problems = [f"{name}: the base has no such tensor" for name in tensors if name not in base_shapes]
    for name, tensor in tensors.items():
        if tensor.shape != base_shapes.get(name, tensor.shape):
            problems.append(f"{name}: has shape {tensor.shape}, the base {base_shapes[name]}")
    return problems


def _lora(
    tensors: Mapping[str, mx.array], base_shapes: Mapping[str, tuple[int, ...]], scale: float
) -> tuple[list[str], Adapter]:
    problems: list[str] = []
    pairs: dict[str, tuple[mx.array, mx.array, float]] = {}
    for tensor_name in tensors:
        module, _, leaf = tensor_name.rpartition(".")
        name = hub_name(f"{module}.weight")
        if leaf not in ("lora_a", "lora_b"):
            problems.append(f"{tensor_name}: is not part of a LoRA")
        elif name not in base_shapes:
            problems.append(f"{tensor_name}: the base has no {name}")
        elif f"{module}.lora_a" not in tensors or f"{module}.lora_b" not in tensors:
            problems.append(f"{tensor_name}: its partner is missing")
        elif leaf == "lora_a":
            a, b = tensors[tensor_name], tensors[f"{module}.lora_b"]
            pairs[name] = (a, b, scale)
            problems += _pair_problems(name, a.shape, b.shape, base_shapes[name])
    return problems, Adapter("lora", pairs, {})


def _pair_problems(name: str, a: tuple[int, ...], b: tuple[int, ...], base: tuple[int, ...]) -> list[str]:
    fits = len(a) == len(b) == len(base) == 2 and a[1] == b[0]
    fused = (a[0], b[1]) if is_embedding(name) else (b[-1], a[0])
    return [] if fits and fused == base else [f"{name}: lora_a {a} and lora_b {b} do not fit the base's {base}"]
