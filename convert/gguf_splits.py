"""The ways in which byte-level tokenizers split a text, by llama.cpp's names."""

from __future__ import annotations

from tokenizers import Regex, normalizers, pre_tokenizers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
DIGITS = pre_tokenizers.Digits(individual_digits=True)
QWEN = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated")
SPLITS = {
    "gpt-2": (None, WORDS),
    "smollm": (None, pre_tokenizers.Sequence([DIGITS, WORDS])),
    "qwen2": (normalizers.NFC(), pre_tokenizers.Sequence([QWEN, BYTES])),
}
"""`tokenizer.ggml.pre` -> the normalizer and the pre-tokenizer, which transformers' loader loses."""
