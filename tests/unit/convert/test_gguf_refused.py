"""GGUF files that are refused: damaged, hostile, or of another kind; one line, and nothing is left behind."""

from __future__ import annotations

import struct
import zipfile

import numpy as np
import pytest
from support.gguf_cases import refused_in_one_line, sha256, tensors_of, write_gguf

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def test_wrong_checksum_is_refused_naming_both(tiny_gguf, tmp_path):
    line = refused_in_one_line(tiny_gguf, tmp_path / "out", "--sha256", "ab" * 32)
    assert sha256(tiny_gguf) in line and "ab" * 32 in line


def test_file_that_is_no_gguf_is_refused(tmp_path):
    for content in (b"", b"GG", b"PK\x03\x04" + bytes(100)):
        (tmp_path / "x.gguf").write_bytes(content)
        assert "is not a GGUF file" in refused_in_one_line(tmp_path / "x.gguf", tmp_path / "out")
    assert "no such file" in refused_in_one_line(tmp_path / "absent.gguf", tmp_path / "out")


def test_file_cut_anywhere_is_refused_as_truncated(tiny_gguf, tmp_path):
    whole = tiny_gguf.read_bytes()
    for length in (10, 24, 100, 2000, len(whole) // 2, len(whole) - 1):
        tiny_gguf.write_bytes(whole[:length])
        assert "truncated" in refused_in_one_line(tiny_gguf, tmp_path / "out"), length


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
def test_header_that_claims_the_impossible_is_refused(content, tmp_path):
    (tmp_path / "x.gguf").write_bytes(content + bytes(64))
    refused_in_one_line(tmp_path / "x.gguf", tmp_path / "out")


def test_counts_that_fit_the_file_but_would_fill_the_memory_are_refused(tmp_path):
    """The reader makes Python objects of some hundred bytes each for every item of an array and every entry."""
    many, entries = (1 << 21) + 1, (1 << 16) + 1
    cases = {
        f"claims {many} items": header(0, 1, text("a"), struct.pack("<IIQ", 9, 0, many), bytes(many)),
        f"with 0 tensors and {entries} metadata": header(0, entries, entries * (text("a") + struct.pack("<IB", 0, 1))),
    }
    for words, content in cases.items():
        (tmp_path / "x.gguf").write_bytes(content)
        assert words in refused_in_one_line(tmp_path / "x.gguf", tmp_path / "out")


OTHERS = {
    "architecture 'mamba'": {"arch": "mamba"},
    "pre-tokenizer 'tekken'": {"pre": "tekken"},
    "2147483648 layers": {"arch": "qwen2", "pre": "qwen2", "extra": {"qwen2.block_count": 1 << 31}},
    "the llama model lack attention.head_count_kv": {"extra": {"llama.attention.head_count_kv": None}},
    "{'unk': '0'}": {"extra": {"tokenizer.ggml.unknown_token_id": "0"}},
    "{'unk': 261}": {"extra": {"tokenizer.ggml.unknown_token_id": 261}},
    "the chat template is no text": {"extra": {"tokenizer.chat_template": 1}},
    "the tokenizer's tokens, different tokens": {"extra": {"tokenizer.ggml.token_type": [1, 1]}},
    "RoPE scaling 4.0": {"extra": {"llama.rope.scaling.factor": 4.0}},
    "RoPE scaling 'yarn'": {"extra": {"llama.rope.scaling.type": "yarn"}},
    "over 8 of a head's 16 dimensions": {"extra": {"llama.rope.dimension_count": 8}},
    "'blk.0.attn_q.bias' is (64,)": {"tensors": {"blk.0.attn_q.bias": np.ones(64, np.float32)}},
    "'output_norm.weight' is missing": {"tensors": {"output_norm.weight": None}},
    "is (32, 64), not (64, 64)": {"tensors": {"blk.0.attn_q.weight": np.ones((32, 64), np.float32)}},
    "'output_norm.weight' has the unsupported type 26": {"tensors": {"output_norm.weight": np.ones(64, np.int32)}},
}


@pytest.mark.parametrize("words", OTHERS)
def test_models_of_another_kind_are_refused_by_name(words, torch_llama, tmp_path):
    case = dict(OTHERS[words])
    tensors = tensors_of(torch_llama) | case.pop("tensors", {})
    assert words in refused_in_one_line(write_gguf(tmp_path / "x.gguf", tensors, **case), tmp_path / "out")


def test_archive_needs_exactly_one_gguf(tiny_gguf, tmp_path):
    for count in (0, 2):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for i in range(count):
                archive.write(tiny_gguf, f"{i}.gguf")
        assert f"holds {count} .gguf or .bin files" in refused_in_one_line(tmp_path / "x.zip", tmp_path / "out")
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 no archive")
    assert "cannot be read as a zip archive" in refused_in_one_line(tmp_path / "x.zip", tmp_path / "out")
