"""What a model is made of, counted from its config.json: no weight is read, no memory taken."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_grpo.config.schema import Config
from mlx_grpo.models.checks import read_settings
from mlx_grpo.models.policy import compute_dtype, outline
from mlx_grpo.models.prefix import shares_prompt

READERS = {
    "first_norm": {"q_proj", "k_proj", "v_proj", "qkv_proj"},
    "attention": {"o_proj"},
    "second_norm": {"gate_proj", "up_proj", "gate_up_proj"},
    "gated": {"down_proj"},
}
"""The linear layers of a block by what they read."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a model in training; bytes are those of the dtypes it is trained in."""

    layers: int
    learning_layers: int
    """Those behind the first trainable one: the others keep nothing for a backward pass."""
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    qk_norm: bool
    shares_prompt: bool
    parameters: int
    """Of the base model."""
    checkpoint_bytes: int
    """Of the base weights as config.json says they are stored."""
    base_bytes: int
    """Of the frozen weights in memory."""
    trainable: int
    """Trainable parameters, fp32."""
    largest_trainable: int
    """Parameters of the largest trainable array."""
    largest_in_layer: int
    """The same within a layer."""
    inputs: Counter[str]
    """How many trainable linear layers of a block read each of `READERS`."""
    ranks: int
    """Sum of a block's LoRA ranks."""
    itemsize: int
    """Bytes of an activation."""

    @property
    def keys_values(self) -> int:
        """Bytes that a layer's cache takes for a token."""
        return 2 * self.kv_heads * self.head_dim * self.itemsize

    @property
    def full(self) -> bool:
        """Whether the base weights themselves are trained."""
        return self.base_bytes == 0


def count(path: Path, config: Config, bits: int | None = None, packed: bool = True) -> tuple[Architecture, nn.Module]:
    """The sizes of the model in a folder that holds at least config.json, and the model's outline.

    `bits` supposes base weights quantized to so many, and `packed` a device that computes on them as they are.
    """
    model = outline(path, config, bits, packed)
    args = model.args
    trainable = dict(tree_flatten(model.trainable_parameters()))
    learning = [bool(tree_flatten(layer.trainable_parameters())) for layer in model.layers]
    block = dict(tree_flatten(model.layers[-1].trainable_parameters()))
    matrices = {name for name, w in block.items() if w.ndim == 2}
    linears = {name.split(".")[-2] for name in matrices}
    base = base_parameters(model)
    stored = {"float32": 4}.get(read_settings(path).get("torch_dtype", "bfloat16"), 2)
    frozen = sum(w.nbytes for name, w in base.items() if name not in trainable)
    full = config.fine_tune_type == "full"
    return (
        Architecture(
            layers=len(model.layers),
            learning_layers=len(learning) - (learning.index(True) if any(learning) else len(learning)),
            hidden=args.hidden_size,
            heads=args.num_attention_heads,
            kv_heads=args.num_key_value_heads or args.num_attention_heads,
            head_dim=head_size(model),
            intermediate=args.intermediate_size,
            vocabulary=args.vocab_size,
            qk_norm=any("q_norm" in name for name, _ in tree_flatten(model.layers[0].parameters())),
            shares_prompt=shares_prompt(model),
            parameters=sum(w.size for w in base_parameters(outline(path, config)).values()),
            checkpoint_bytes=frozen if bits else stored * sum(w.size for w in base.values()),
            base_bytes=frozen,
            trainable=sum(w.size for w in trainable.values()),
            largest_trainable=max(w.size for w in trainable.values()),
            largest_in_layer=max((w.size for w in block.values()), default=0),
            inputs=Counter(kind for kind, names in READERS.items() for name in names & linears),
            ranks=0 if full else sum(w.shape[1] for name, w in block.items() if name.endswith("lora_a")),
            itemsize=(mx.float32 if full else compute_dtype(config.dtype)).size,
        ),
        model,
    )


def base_parameters(model: nn.Module) -> dict[str, mx.array]:
    """The parameters that are not an adapter's, by name."""
    return {name: w for name, w in tree_flatten(model.parameters()) if not name.endswith(("lora_a", "lora_b"))}


def head_size(model: nn.Module) -> int:
    """Width of an attention head, which some config.json leave out."""
    return vars(model.args).get("head_dim") or model.args.hidden_size // model.args.num_attention_heads
