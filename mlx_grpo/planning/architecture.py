"""Sizes of a model in training, counted from its arrays' shapes; an outline without weights serves as well."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_grpo.config.schema import Config
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.policy import compute_dtype
from mlx_grpo.models.prefix import shares_prompt

LINEARS_BY_INPUT = {
    "first_norm": {"q_proj", "k_proj", "v_proj", "qkv_proj"},
    "attention": {"o_proj"},
    "second_norm": {"gate_proj", "up_proj", "gate_up_proj"},
    "gated": {"down_proj"},
}
"""The linear layers of a block, by the array that they read."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a model in training; bytes are those of the dtypes it is trained in."""

    layers: int
    backward_layers: int
    """Layers from the first trainable one on; those below keep nothing for a backward pass."""
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    qk_norm: bool
    shares_prompt: bool
    parameters: int
    """Of the base model; packed weights count as the weights they stand for."""
    checkpoint_bytes: int
    """Of the base weights, stored in the dtype that config.json names."""
    base_bytes: int
    """Of the frozen weights in memory."""
    trainable: int
    """Trainable parameters, fp32."""
    largest_trainable: int
    """Parameters of the largest trainable array."""
    largest_in_layer: int
    """Parameters of the largest trainable array within a layer."""
    adapted_inputs: Counter[str]
    """Number of trainable linear layers of a block that read each array of `LINEARS_BY_INPUT`."""
    ranks: int
    """Sum of a block's LoRA ranks."""
    itemsize: int
    """Bytes of an activation."""

    @property
    def keys_values(self) -> int:
        """Return the bytes that a layer's cache takes for a token."""
        return 2 * self.kv_heads * self.head_dim * self.itemsize

    @property
    def full(self) -> bool:
        """Return True if the base weights themselves are trained."""
        return self.base_bytes == 0


def count(model: nn.Module, folder: ModelFolder, config: Config, bits: int | None = None) -> Architecture:
    """Count the sizes of a model in training: the loaded policy's, or an outline's.

    `folder` is its base. `bits` are those that the outline quantized a plain base to.
    """
    args = model.args
    trainable = dict(tree_flatten(model.trainable_parameters()))
    block = dict(tree_flatten(model.layers[-1].trainable_parameters()))
    base = base_parameters(model)
    frozen_bytes = sum(w.nbytes for name, w in base.items() if name not in trainable)
    full = config.fine_tune_type == "full"
    return Architecture(
        layers=len(model.layers),
        backward_layers=count_backward_layers(model),
        hidden=args.hidden_size,
        heads=args.num_attention_heads,
        kv_heads=args.num_key_value_heads or args.num_attention_heads,
        head_dim=head_size(model),
        intermediate=args.intermediate_size,
        vocabulary=args.vocab_size,
        qk_norm=any("q_norm" in name for name, _ in tree_flatten(model.layers[0].parameters())),
        shares_prompt=shares_prompt(model),
        parameters=count_parameters(model),
        checkpoint_bytes=frozen_bytes if bits else folder.stored_weight_bytes * sum(w.size for w in base.values()),
        base_bytes=frozen_bytes,
        trainable=sum(w.size for w in trainable.values()),
        largest_trainable=max(w.size for w in trainable.values()),
        largest_in_layer=max((w.size for w in block.values()), default=0),
        adapted_inputs=count_adapted_inputs(block),
        ranks=0 if full else sum(w.shape[1] for name, w in block.items() if name.endswith("lora_a")),
        itemsize=(mx.float32 if full else compute_dtype(config.dtype)).size,
    )


def base_parameters(model: nn.Module) -> dict[str, mx.array]:
    """Return the parameters that belong to no adapter, by name."""
    return {name: w for name, w in tree_flatten(model.parameters()) if not name.endswith(("lora_a", "lora_b"))}


def count_backward_layers(model: nn.Module) -> int:
    """Return how many layers a backward pass reaches: the first trainable one and all above it."""
    trains = [bool(tree_flatten(layer.trainable_parameters())) for layer in model.layers]
    return len(trains) - trains.index(True) if any(trains) else 0


def count_adapted_inputs(block: dict[str, Any]) -> Counter[str]:
    """Count the trainable linear layers in a block's trainable parameters by the array that they read."""
    matrices = [name for name, w in block.items() if w.ndim == 2]
    linears = {name.split(".")[-2] for name in matrices}
    return Counter(kind for kind, names in LINEARS_BY_INPUT.items() for _ in names & linears)


def count_parameters(model: nn.Module) -> int:
    """Return how many parameters the base model has; packed weights count as the weights they stand for."""
    total = sum(w.size for w in base_parameters(model).values())
    for module in model.modules():
        if is_packed(module):
            packing = [module.weight, module.scales, *([module.biases] if "biases" in module else [])]
            total += weights_in(module) - sum(w.size for w in packing)
    return total


def is_packed(module: nn.Module) -> bool:
    """Return True if a module's weights are packed integers."""
    return isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding)


def weights_in(module: nn.Module) -> int:
    """Return the number of weights in a linear layer or embedding, packed or not; 0 for any other module."""
    if is_packed(module):
        return module.weight.size * 32 // module.bits
    return module.weight.size if isinstance(module, nn.Linear | nn.Embedding) else 0


def head_size(model: nn.Module) -> int:
    """Return the width of an attention head, which some config.json leave out."""
    return vars(model.args).get("head_dim") or model.args.hidden_size // model.args.num_attention_heads
