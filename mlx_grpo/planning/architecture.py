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
from mlx_grpo.models.head import text_model
from mlx_grpo.models.policy import compute_dtype
from mlx_grpo.models.prefix import shares_prompt

LINEARS_BY_INPUT = {
    "first_norm": {
        *("q_proj", "k_proj", "v_proj", "qkv_proj"),
        *("in_proj", "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b"),  # convolutions, gated delta
    },
    "attention": {"o_proj", "out_proj"},
    "second_norm": {"gate_proj", "up_proj", "gate_up_proj", "w1", "w3"},
    "gated": {"down_proj", "w2"},
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
    state_bytes: int = 0
    """Of a layer's recurrent state for one row; 0 for a model without such layers."""
    state_layers: int = 0
    """Layers with a recurrent state that a backward pass reaches."""

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
    args = text_model(model).args
    trainable = dict(tree_flatten(model.trainable_parameters()))
    blocks = [dict(tree_flatten(layer.trainable_parameters())) for layer in reversed(model.layers)]
    block = max(blocks, key=lambda weights: sum(w.size for w in weights.values()))
    base = base_parameters(model)
    frozen_bytes = sum(w.nbytes for name, w in base.items() if name not in trainable)
    full = config.fine_tune_type == "full"
    states = [state_bytes(layer) for layer in model.layers]
    backward = count_backward_layers(model)
    return Architecture(
        layers=len(model.layers),
        backward_layers=backward,
        hidden=args.hidden_size,
        heads=args.num_attention_heads,
        kv_heads=args.num_key_value_heads or args.num_attention_heads,
        head_dim=head_size(model),
        intermediate=mlp_width(model),
        vocabulary=args.vocab_size,
        qk_norm=any("q_norm" in name or "q_layernorm" in name for name in base),
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
        state_bytes=max(states),
        state_layers=sum(size > 0 for size in states[len(states) - backward :]),
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


def mlp_width(model: nn.Module) -> int:
    """Return the width of a layer's gated MLP; LFM2 makes it of the one in config.json."""
    layer, args = model.layers[0], text_model(model).args
    if "feed_forward" not in layer:
        return args.intermediate_size
    return max(map(weights_in, layer.feed_forward.modules())) // args.hidden_size


def state_bytes(layer: nn.Module) -> int:
    """Return the bytes of a layer's recurrent state for a row: of the gated delta rule, fp32; 0 for any other layer."""
    if "linear_attn" not in layer:
        return 0
    rule = layer.linear_attn
    return rule.num_v_heads * rule.head_v_dim * rule.head_k_dim * mx.float32.size


def norm_dtype(model: nn.Module) -> mx.Dtype:
    """Return the dtype of a model's norms, in which it computes."""
    weights = tree_flatten(model.model.parameters())
    return next(weight.dtype for name, weight in weights if name.endswith("norm.weight"))


def head_size(model: nn.Module) -> int:
    """Return the width of an attention head, which some config.json leave out."""
    args = text_model(model).args
    return vars(args).get("head_dim") or args.hidden_size // args.num_attention_heads
