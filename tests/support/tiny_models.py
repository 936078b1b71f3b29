"""Tiny random models, made on the spot; no downloads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import llama, qwen3
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config
from mlx_grpo.models.policy import Policy, load_policy

STOP = "<|im_end|>"


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)


THINKING_TEMPLATE = TEMPLATE.replace(
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>", "{% if true %}<think>\n"
)
"""As R1 and Qwen3's thinking models have it: the prompt ends with the beginning of a thought."""


QWEN3 = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


LLAMA = {**QWEN3, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}


def make_model_folder(folder: Path, settings: dict) -> Path:
    """Write config, weights and tokenizer of a random model."""
    folder.mkdir(parents=True)
    tokenizer = byte_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {**settings, "vocab_size": tokenizer.get_vocab_size(), "eos_token_id": tokenizer.token_to_id(STOP)}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": STOP, "chat_template": TEMPLATE})
    )
    mx.random.seed(7)
    module = {"qwen3": qwen3, "llama": llama}[settings["model_type"]]
    model = module.Model(module.ModelArgs.from_dict(settings))
    # Larger than the default initialization, so that next-token distributions are far from uniform.
    weights = {name: w if w.ndim == 1 else w * 4 for name, w in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    return folder


def with_template(source: Path, folder: Path, template: str) -> Path:
    """Copy a model's folder and give it another chat template."""
    shutil.copytree(source, folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
    return folder


def byte_tokenizer() -> Tokenizer:
    """One token for each byte, and the three special tokens of the chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", STOP)])
    return tokenizer


def tiny_tokenizer(
    template: str | dict[str, str] | None, special: Sequence[str] = (), **names: str
) -> TokenizerWrapper:
    """Make a byte tokenizer with a chat template and more special tokens; it begins each text with its `bos_token`."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    if bos := names.get("bos_token"):
        start = (bos, tokenizer.token_to_id(bos))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[start])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **{"eos_token": STOP, **names})
    return TokenizerWrapper(fast)


def tiny_config(model: Path, **changes: object) -> Config:
    """A configuration for a tiny model; keyword arguments replace keys."""
    values = {
        "model": str(model),
        "dtype": "float32",
        "prompts_per_step": 2,
        "num_generations": 4,
        "max_completion_length": 8,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "lora": {"rank": 4},
    }
    return validate({**values, **changes})


def tiny_policy(model: Path, **changes: object) -> Policy:
    """A policy whose LoRA update is not zero, so that adapter, base and reference all differ."""
    policy = load_policy(tiny_config(model, **changes))
    mx.random.seed(3)
    noisy = {
        name: mx.random.normal(w.shape) * 0.05 if name.endswith("lora_b") else w
        for name, w in tree_flatten(policy.model.trainable_parameters())
    }
    policy.model.load_weights(list(noisy.items()), strict=False)
    return policy
