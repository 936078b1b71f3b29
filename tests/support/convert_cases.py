"""A tiny base model on disk, its adapters, and the logits of each in MLX and in PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

# isort: split
import mlx.core as mx
import mlx_lm
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

IDS = [list(range(5, 45)), list(range(200, 160, -1))]
SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
KEYS = ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj"]


def make_base(folder: Path, kind: str, **options: object) -> Path:
    """A random Qwen3 (tied) or Llama (untied) on disk with a byte-level tokenizer, as transformers saves it."""
    torch.manual_seed(0)
    if kind == "qwen3":
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, tie_word_embeddings=True))
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=False))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.1)
    model.save_pretrained(folder, **options)
    write_tokenizer(folder)
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "eos_token_id": 1}')
    return folder


def write_tokenizer(folder: Path) -> None:
    tokens = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(tokens[:2])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<pad>"}
    config["chat_template"] = "{% for m in messages %}{{ m['content'] }}<eos>{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def make_lora(base: Path, folder: Path, keys: list[str] | None = KEYS, size: float = 0.05, layers: int = 2) -> Path:
    """An adapter as mlx-lm writes it, with a B that is not zero."""
    parameters = {"rank": 4, "scale": 3.0, "dropout": 0.0, "keys": keys}
    model, _ = mlx_lm.load(str(base))
    model.freeze()
    linear_to_lora_layers(model, layers, parameters)
    mx.random.seed(1)
    weights = {
        name: mx.random.normal(weight.shape) * size for name, weight in tree_flatten(model.trainable_parameters())
    }
    return save_adapter(
        folder, weights, {"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": parameters}
    )


def make_full(base: Path, folder: Path) -> Path:
    """Every weight of the base moved a little."""
    model, _ = mlx_lm.load(str(base))
    mx.random.seed(2)
    weights = {name: w + 0.02 * mx.random.normal(w.shape) for name, w in tree_flatten(model.parameters())}
    return save_adapter(folder, weights, {"fine_tune_type": "full", "num_layers": 2, "lora_parameters": {}})


def save_adapter(folder: Path, weights: dict[str, mx.array], config: dict) -> Path:
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def mlx_logits(folder: Path, adapter: Path | None = None) -> np.ndarray:
    model, _ = mlx_lm.load(str(folder), adapter_path=str(adapter) if adapter else None)
    return np.array(model(mx.array(IDS)))


def torch_logits(folder: Path) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()
