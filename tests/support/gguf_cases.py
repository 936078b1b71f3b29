"""A tiny Llama, the GGUF file that llama.cpp would make of it, and the command that converts it back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tokenizers import pre_tokenizers

from convert.gguf import main

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

HEADS, KV_HEADS = 4, 2
Q = gguf.GGMLQuantizationType
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"

# Byte tokens after three special ones, then one merge within a word and one of two digits.
TOKENS = ["<|end|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "20"]
MERGES = ["h e", "2 0"]
TOKEN_TYPES = [3, 3, 3] + [1] * (len(TOKENS) - 3)


def random_llama():
    """A Llama of two layers whose attention shows in the logits."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    for parameter in model.parameters():  # default weights are so small that attention hardly shows in the logits
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's convert_hf_to_gguf.py does to q and k."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def tensors_of(model) -> dict[str, np.ndarray]:
    renames = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers.": "blk.",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.o_proj": "attn_output",
        "self_attn.": "attn_",
        "mlp.": "ffn_",
        "_proj": "",
    }
    tensors = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if "q_proj" in name or "k_proj" in name:
            values = permuted(values, HEADS if "q_proj" in name else KV_HEADS)
        for old, new in renames.items():
            name = name.replace(old, new)
        tensors[name] = np.ascontiguousarray(values)
    return tensors


def write_gguf(
    path: Path, tensors: dict[str, np.ndarray], *, types=None, arch="llama", pre="smollm", layers=2, extra=None
) -> Path:
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(layers)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(50000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types(TOKEN_TYPES)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_eot_token_id(0)
    writer.add_chat_template(TEMPLATE)
    for key, value in (extra or {}).items():
        writer.add_key_value(key, *value)
    for name, values in tensors.items():
        kind = (types or {}).get(name)
        data = gguf.quants.quantize(values, kind) if kind else values
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused_in_one_line(source: Path, out: Path, *options: str) -> str:
    """The line that the command prints; checks that it fails with 2 and leaves nothing behind."""
    before = sorted(out.parent.iterdir())
    result = run(source, out, *options)
    assert result.exit_code == 2, result.output
    assert result.output.startswith("error: ") and result.output.removesuffix("\n").isprintable(), result.output
    assert sorted(out.parent.iterdir()) == before
    return result.output


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
