"""Tiny random models of several families with configs shaped like the published ones, as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_models import STOP, TEMPLATE, byte_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 40,  # no square: Gemma scales by its root
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
GATED_DELTA = {
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.25,
        "mrope_interleaved": True,
        "mrope_section": [1, 1, 0],
    },
}
VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": SIZES["hidden_size"],
    "num_position_embeddings": 16,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "granite": {
        "embedding_multiplier": 12.0,
        "logits_scaling": 8.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.1,
    },
    "gemma2": {
        "head_dim": 16,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 16,
    },
    "gemma3_text": {
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 16, "conv_L_cache": 3},
    "qwen3_5": GATED_DELTA,
}

TOP_ROPE = {"rope_theta": 1e6, "rope_scaling": None, "rope_parameters": ...}
PUBLISHED: dict[str, dict[str, Any]] = {
    "granite": {**TOP_ROPE, "rope_theta": 1e4},
    "gemma2": {**TOP_ROPE, "rope_theta": 1e4, "layer_types": ...},
    "gemma3_text": {**TOP_ROPE, "rope_local_base_freq": 1e4, "sliding_window_pattern": 3, "layer_types": ...},
    "lfm2": {
        **TOP_ROPE,
        "block_dim": 40,
        "block_ff_dim": 48,
        "full_attn_idxs": [1],
        "tie_embedding": True,
        **dict.fromkeys(("layer_types", "intermediate_size", "tie_word_embeddings"), ...),
    },
}
"""Keys of config.json as publishers wrote them before transformers 5; ... stands for a key that they left out."""


def make_family(folder: Path, name: str, **changes: Any) -> Path:
    """Write a random model of a family with a byte-level tokenizer."""
    tokenizer = byte_tokenizer()
    ids = {"eos_token_id": tokenizer.token_to_id(STOP), "bos_token_id": None, "pad_token_id": None}
    settings = {**SIZES, **FAMILIES[name], **ids, "vocab_size": tokenizer.get_vocab_size(), **changes}
    torch.manual_seed(0)
    model = _random_model(name, settings)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean().round()), std=0.2)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": STOP, "chat_template": TEMPLATE})
    )
    return folder


def _random_model(name: str, settings: dict[str, Any]) -> Any:
    if name != "qwen3_5":
        return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(name, **settings))
    config = transformers.Qwen3_5Config(
        text_config=settings, vision_config=VISION, tie_word_embeddings=settings["tie_word_embeddings"]
    )
    return transformers.Qwen3_5ForConditionalGeneration(config)


def torch_logps(folder: Path, ids: list[int]) -> np.ndarray:
    """Return the log-probabilities that transformers gives each token after each position, [positions, vocabulary]."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()


def published(folder: Path, name: str) -> Path:
    """Write a family's tiny model with the older keys in its config.json."""
    make_family(folder, name)
    settings = {**json.loads((folder / "config.json").read_text()), **PUBLISHED[name]}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in settings.items() if value is not ...}))
    return folder
