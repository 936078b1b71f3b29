"""What a GGUF's metadata says about a llama model, checked, and the config.json that says the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convert.gguf_tokenizer import special_ids, stop_ids
from mlx_grpo.errors import UserError

if TYPE_CHECKING:
    from gguf import GGUFReader


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes in a GGUF's metadata that the weights must agree with."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int


def read_metadata(reader: GGUFReader) -> dict[str, Any]:
    """Every key with its value; UserError where one that is read here has another type than it must."""
    try:
        meta = {key: field.contents() for key, field in reader.fields.items()}
    except UnicodeDecodeError as error:
        raise UserError(f"the metadata is not valid UTF-8: {error}") from error
    wrong = [key for key, kind in _types(meta).items() if key in meta and not _is(meta[key], kind)]
    if wrong:
        raise UserError(f"the metadata has values of the wrong type at {', '.join(wrong)}")
    return meta


def _types(meta: Mapping[str, Any]) -> dict[str, Any]:
    whole_numbers = [
        key for key in meta if key.endswith(("_count", "_length", "_count_kv", "_token_id", "dimension_count"))
    ]
    return dict.fromkeys(whole_numbers, int) | {
        "llama.rope.freq_base": float,
        "llama.attention.layer_norm_rms_epsilon": float,
        "tokenizer.chat_template": str,
        "tokenizer.ggml.tokens": [str],
        "tokenizer.ggml.merges": [str],
        "tokenizer.ggml.token_type": [int],
    }


def _is(value: Any, kind: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list) and all(isinstance(item, kind[0]) for item in value)
    return isinstance(value, kind) and (kind is not float or math.isfinite(value))


def read_shape(meta: Mapping[str, Any]) -> Shape:
    """The sizes that the metadata states; UserError where they are missing or do not go together."""
    keys = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count", "context_length")
    missing = [key for key in (*(f"llama.{key}" for key in keys), "tokenizer.ggml.tokens") if key not in meta]
    if missing:
        raise UserError(f"the metadata lacks {', '.join(missing)}")
    if meta.get("llama.rope.scaling.type", "none") != "none":
        raise UserError(f"RoPE scaling {meta['llama.rope.scaling.type']!r} is not supported")
    layers, hidden, feed_forward, heads = (meta[f"llama.{key}"] for key in keys[:4])
    kv_heads = meta.get("llama.attention.head_count_kv", heads)
    if min(layers, heads, kv_heads) < 1 or heads % kv_heads:
        raise UserError(f"{layers} layers of {heads} heads over {kv_heads} key-value heads are not possible")
    rotary = meta.get("llama.rope.dimension_count", hidden // heads)
    head_dim = meta.get("llama.attention.key_length", rotary)
    if head_dim != rotary or head_dim % 2:
        raise UserError(
            f"RoPE over {rotary} of a head's {head_dim} dimensions is not supported; over all, an even number, is"
        )
    return Shape(layers, hidden, feed_forward, heads, kv_heads, head_dim, len(meta["tokenizer.ggml.tokens"]))


def token_id_settings(meta: Mapping[str, Any]) -> dict[str, int | list[int] | None]:
    """`bos_token_id`, `pad_token_id` and `eos_token_id` as config.json and generation_config.json hold them."""
    stops = stop_ids(meta)
    settings = {f"{role}_token_id": i for role, i in special_ids(meta).items() if role in ("bos", "pad")}
    return {**settings, "eos_token_id": stops if len(stops) > 1 else next(iter(stops), None)}


def hf_config(meta: Mapping[str, Any], shape: Shape, tied: bool, dtype: str) -> dict[str, Any]:
    """The config.json of a LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "dtype": dtype,
        "torch_dtype": dtype,
        **token_id_settings(meta),
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": meta["llama.context_length"],
        "mlp_bias": False,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": _decimal(meta.get("llama.attention.layer_norm_rms_epsilon", 1e-5)),
        "rope_scaling": None,
        "rope_theta": _decimal(meta.get("llama.rope.freq_base", 10000.0)),
        "tie_word_embeddings": tied,
        "vocab_size": shape.vocab,
    }


def _decimal(value: float) -> float:
    """The short decimal that was stored as fp32: 9.999999747378752e-06 -> 1e-05."""
    return float(str(np.float32(value)))
