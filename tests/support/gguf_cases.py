"""Tiny models, the GGUF files that llama.cpp would make of them, and the command that converts them back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tokenizers import pre_tokenizers

from convert.gguf import main

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

HEADS, KV_HEADS = 4, 2
HEAD_DIMS = {"llama": 16, "qwen2": 16, "qwen3": 32, "gemma3": 32}
LAYERS = {"llama": 2, "qwen2": 2, "qwen3": 2, "gemma3": 6}  # Gemma's sixth layer is the first with full attention
Q = gguf.GGMLQuantizationType
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"

# Byte tokens after three special ones, then one merge within a word and one of two digits.
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "20"]
MERGES = ["h e", "2 0"]
TOKEN_TYPES = [3, 3, 3] + [1] * (len(TOKENS) - 3)
# Gemma's kind: bytes of type 6 for what has no piece, and scores instead of merges.
PIECES = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    *(f"<0x{byte:02X}>" for byte in range(256)),
    "▁",
    "h",
    "e",
    "he",
    "▁he",
]
PIECE_TYPES = [3, 3, 3, 2, 4] + [6] * 256 + [1] * 5


def random_model(architecture: str = "llama"):
    """Return a small model whose attention shows in the logits, in PyTorch."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        {"gemma3": "gemma3_text"}.get(architecture, architecture),
        vocab_size=len(PIECES if architecture == "gemma3" else TOKENS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS[architecture],
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIMS[architecture],
        query_pre_attn_scalar=HEAD_DIMS[architecture],
        sliding_window=8,
        max_position_embeddings=128,
        rope_theta=50000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=architecture == "gemma3",
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # default weights are so small that attention hardly shows in the logits
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of Llama's q and k as llama.cpp's convert_hf_to_gguf.py does."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def tensors_of(model) -> dict[str, np.ndarray]:
    """Return a model's weights as llama.cpp names and stores them."""
    architecture = model.config.model_type.removesuffix("_text")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], model.config.num_hidden_layers)
    tensors = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            values = permuted(values, HEADS if "q_proj" in name else KV_HEADS)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            values = values + 1
        tensors[names.get_name(name, (".weight", ".bias"))] = np.ascontiguousarray(values)
    return tensors


def metadata(arch: str, pre: str) -> dict[str, object]:
    """Return what a GGUF of `random_model(arch)` says beside its tensors."""
    gemma = arch == "gemma3"
    model = {
        "block_count": LAYERS.get(arch, 2),
        "context_length": 128,
        "embedding_length": 64,
        "feed_forward_length": 96,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD_DIMS.get(arch, 16),
        "attention.sliding_window": 8,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 50000.0,
    }
    scores = [-float(i) for i in range(len(PIECES))]
    pieces = {"model": "llama", "pre": "default", "tokens": PIECES, "token_type": PIECE_TYPES, "scores": scores}
    pieces |= {
        "padding_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "unknown_token_id": 3,
        "add_bos_token": True,
    }
    bytes_ = {"model": "gpt2", "pre": pre, "tokens": TOKENS, "token_type": TOKEN_TYPES, "merges": MERGES}
    bytes_ |= {"eot_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "padding_token_id": 2}
    tokenizer = {f"tokenizer.ggml.{key}": value for key, value in (pieces if gemma else bytes_).items()}
    template = {} if gemma else {"tokenizer.chat_template": TEMPLATE}
    return {f"{arch}.{key}": value for key, value in model.items()} | tokenizer | template


def write_gguf(
    path: Path, tensors: dict[str, np.ndarray | None], *, types=None, arch="llama", pre="smollm", extra=None
) -> Path:
    """Write `tensors`, those in `types` quantized, and the metadata of `arch` with `extra`; leave out what is None."""
    writer = gguf.GGUFWriter(path, arch)
    add = {int: writer.add_uint32, float: writer.add_float32, bool: writer.add_bool}
    add |= {str: writer.add_string, list: writer.add_array}
    for key, value in (metadata(arch, pre) | (extra or {})).items():
        if value is not None:
            add[type(value)](key, value)
    for name, values in tensors.items():
        kind = (types or {}).get(name)
        if values is not None:
            writer.add_tensor(name, gguf.quants.quantize(values, kind) if kind else values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused_in_one_line(source: Path, out: Path, *options: str) -> str:
    """Return the line that the command prints; check that it fails with 2 and leaves nothing behind."""
    before = sorted(out.parent.iterdir())
    result = run(source, out, *options)
    assert result.exit_code == 2, result.output
    assert result.output.startswith("error: ") and result.output.removesuffix("\n").isprintable(), result.output
    assert sorted(out.parent.iterdir()) == before
    return result.output


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a converted folder."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
