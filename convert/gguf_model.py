"""The config, tokenizer and weights of a GGUF. transformers' own loader reads them, once they fit together."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig, PreTrainedConfig, PreTrainedTokenizerFast

from convert.gguf_splits import SPLITS
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import write_json

MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
SIZES = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
}
NEEDED = (*SIZES.values(), "attention.layer_norm_rms_epsilon", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type")
ROLES = {"bos": "bos", "eos": "eos", "eot": "eot", "unk": "unknown", "pad": "padding"}
"""Hugging Face's names of the special tokens -> those in `tokenizer.ggml.<name>_token_id`."""
ROUNDING = 0.25
"""Two quantizations of one matrix differ by less, relative to its norm: Q5_0 and Q8_0 by 0.04 (measured)."""


@dataclass(frozen=True, slots=True)
class Model:
    """All that a Hugging Face folder holds."""

    config: PreTrainedConfig
    tokenizer: Tokenizer
    tokenizer_config: dict[str, Any]
    weights: dict[str, torch.Tensor]
    """By their Hugging Face names, in fp32."""


def read_model(path: Path, metadata: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Model:
    """Read the GGUF at `path`, alone in its folder, whose header has `metadata` and tensors of `shapes`.

    UserError, or a library's own error, where it is damaged or of an unsupported kind.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in list(MODEL_TYPES):
        raise UserError(f"architecture {architecture!r} is not supported; {', '.join(MODEL_TYPES)} are")
    meta = metadata | {key.removeprefix(f"{architecture}."): value for key, value in metadata.items()}
    lacking = [key for key in NEEDED if key not in meta]
    if lacking:
        raise UserError(f"the metadata of the {architecture} model lack {', '.join(lacking)}")
    if meta["block_count"] > len(shapes):  # a config takes memory for each layer
        raise UserError(f"the metadata claim {meta['block_count']} layers and the file has {len(shapes)} tensors")
    ids = _token_ids(meta)
    config = _config(meta, ids, tied="output.weight" not in shapes)
    _check_shapes(config, architecture, shapes)
    return Model(config, _tokenizer(path, meta), _tokenizer_config(meta, ids), _weights(path, config))


def _token_ids(meta: dict[str, Any]) -> dict[str, int]:
    keys = {role: f"tokenizer.ggml.{name}_token_id" for role, name in ROLES.items()}
    ids = {role: meta[key] for role, key in keys.items() if key in meta}
    size = len(meta["tokenizer.ggml.tokens"])
    wrong = {role: i for role, i in ids.items() if type(i) is not int or not 0 <= i < size}
    if wrong:
        raise UserError(f"the vocabulary has {size} tokens and none for {wrong}")
    return ids


def _config(meta: dict[str, Any], ids: dict[str, int], tied: bool) -> PreTrainedConfig:
    sizes = {name: meta[key] for name, key in SIZES.items()}
    head_dim = meta.get("attention.key_length", sizes["hidden_size"] // sizes["num_attention_heads"])
    scaling = meta.get("rope.scaling.type", meta.get("rope.scaling.factor", "none"))
    rotary = meta.get("rope.dimension_count", head_dim)
    if scaling != "none" or rotary != head_dim:
        raise UserError(f"RoPE scaling {scaling!r} over {rotary} of a head's {head_dim} dimensions is not supported")
    if meta["general.architecture"] == "gemma3":
        # llama.cpp scales the scores like this too, except those of 27B, which has RoPE scaling.
        sizes |= {"query_pre_attn_scalar": head_dim, "sliding_window": meta["attention.sliding_window"]}
    stops = list(dict.fromkeys(ids[role] for role in ("eos", "eot") if role in ids))
    return AutoConfig.for_model(
        MODEL_TYPES[meta["general.architecture"]],
        **sizes,
        head_dim=head_dim,
        rms_norm_eps=_decimal(meta["attention.layer_norm_rms_epsilon"]),
        rope_theta=_decimal(meta.get("rope.freq_base", 10000.0)),
        vocab_size=len(meta["tokenizer.ggml.tokens"]),
        tie_word_embeddings=tied,
        bos_token_id=ids.get("bos"),
        pad_token_id=ids.get("pad"),
        eos_token_id=stops if len(stops) > 1 else next(iter(stops), None),
    )


def _decimal(value: float) -> float:
    """Return the short decimal that was stored as fp32: 9.999999747378752e-06 -> 1e-05."""
    return float(str(np.float32(value)))


def _check_shapes(config: PreTrainedConfig, architecture: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """Set the config's class; UserError where the tensors are not those of its model, which has no memory here."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    wanted = {names.get_name(name, (".weight", ".bias")): tuple(p.shape) for name, p in model.named_parameters()}
    wrong = [name for name in [*wanted, *sorted(shapes.keys() - wanted)] if shapes.get(name) != wanted.get(name)]
    if wrong:
        listed = (f"{name!r} is {shapes.get(name, 'missing')}, not {wanted.get(name, 'known')}" for name in wrong[:5])
        raise UserError(f"{len(wrong)} tensors do not make the model that the metadata describe: {', '.join(listed)}")


def _tokenizer(path: Path, meta: dict[str, Any]) -> Tokenizer:
    kind, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre")
    gemma = kind == "llama" and meta["general.architecture"] == "gemma3"
    if not gemma and (kind != "gpt2" or pre not in list(SPLITS)):
        supported = f"'gpt2' with one of {list(SPLITS)} is, and 'llama' for gemma3"
        raise UserError(f"tokenizer model {kind!r} with pre-tokenizer {pre!r} is not supported; {supported}")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer
    sizes = {tokenizer.get_vocab_size(), len(meta["tokenizer.ggml.tokens"]), len(meta["tokenizer.ggml.token_type"])}
    if len(sizes) > 1:
        raise UserError(f"the tokenizer's tokens, different tokens and types are not equally many: {sorted(sizes)}")
    if not gemma:
        tokenizer.normalizer, tokenizer.pre_tokenizer = SPLITS[str(pre)]
    return tokenizer


def _tokenizer_config(meta: dict[str, Any], ids: dict[str, int]) -> dict[str, Any]:
    config = {
        # transformers 5 replaces the pre-tokenizer of a GPT2Tokenizer by its own, without the digit splitter.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": meta["context_length"],
        **{f"{role}_token": meta["tokenizer.ggml.tokens"][i] for role, i in ids.items() if role != "eot"},
    }
    template = meta.get("tokenizer.chat_template", "")
    if not isinstance(template, str):
        raise UserError("the chat template is no text")
    return config | ({"chat_template": template} if template else {})


def _weights(path: Path, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Return the weights; a head that is the embedding, quantized once more, replaces it and `config` becomes tied."""
    model = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        config=config,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        device_map="cpu",  # else a Mac's GPU is chosen
    )
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    embedding, head = weights["model.embed_tokens.weight"], weights.get("lm_head.weight")
    if head is not None and (head - embedding).norm() < ROUNDING * head.norm():
        weights["model.embed_tokens.weight"] = weights.pop("lm_head.weight")  # llama.cpp keeps more bits of a head
        config.tie_word_embeddings = True
    return weights


def write_model(model: Model, folder: Path, dtype: str) -> int:
    """Write config, tokenizer and weights, these in `dtype`, into `folder`; return the number of parameters."""
    settings = {key: value for key, value in model.config.to_diff_dict().items() if not key.startswith("_")}
    rope = settings["rope_parameters"].get("full_attention", settings["rope_parameters"])
    # At the top for transformers before 5 and most of mlx-lm's models, which do not look into rope_parameters.
    settings |= {"dtype": dtype, "torch_dtype": dtype, "rope_theta": rope["rope_theta"]}
    write_json(folder / "config.json", settings)
    token_ids = {key: settings[key] for key in ("bos_token_id", "pad_token_id", "eos_token_id")}
    write_json(folder / "generation_config.json", token_ids)
    model.tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", model.tokenizer_config)
    stored = {name: weight.to(getattr(torch, dtype)).contiguous() for name, weight in model.weights.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors lets only the owner read
    return sum(weight.numel() for weight in stored.values())
