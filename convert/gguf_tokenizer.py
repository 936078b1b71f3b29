"""Rebuild a fast tokenizer from the tokens, merges and pre-tokenizer name in a GGUF's metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from convert.folder import write_json
from mlx_grpo.errors import UserError

CONTROL, USER_DEFINED = 3, 4
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Hugging Face's names of the special tokens -> those in `tokenizer.ggml.<name>_token_id`."""


def _byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _digits_first() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _byte_level()])


PRE_TOKENIZERS = {"gpt-2": _byte_level, "smollm": _digits_first}
"""llama.cpp's names for the ways a text is split before the merges."""


def special_ids(meta: Mapping[str, Any]) -> dict[str, int]:
    """`{"bos": id, ...}` for each of bos, eos, unk and pad that the metadata names."""
    keys = {role: f"tokenizer.ggml.{name}_token_id" for role, name in ROLES.items()}
    return {role: int(meta[key]) for role, key in keys.items() if key in meta}


def stop_ids(meta: Mapping[str, Any]) -> list[int]:
    """The ids that end a completion: end of sequence, then end of turn where it is another token."""
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return list(dict.fromkeys(int(meta[key]) for key in keys if key in meta))


def build_tokenizer(meta: Mapping[str, Any]) -> Tokenizer:
    """The byte-level BPE that `tokenizer.ggml.*` describes; UserError where it is another kind or inconsistent."""
    model, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre")
    if model != "gpt2" or pre not in PRE_TOKENIZERS:
        raise UserError(
            f"tokenizer model {model!r} with pre-tokenizer {pre!r} is not supported; "
            f"'gpt2' with one of {sorted(PRE_TOKENIZERS)} is"
        )
    tokens, merges = meta.get("tokenizer.ggml.tokens"), meta.get("tokenizer.ggml.merges")
    kinds = meta.get("tokenizer.ggml.token_type")
    if not tokens or not merges or not kinds or len(kinds) != len(tokens):
        raise UserError("the tokenizer's tokens, token types and merges are missing or of unequal length")
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(tokens), merges=_merges(tokens, merges)))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    # Normalisation would touch the text around a special token: none of these models has any.
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(tokens, kinds, strict=True) if k == CONTROL]
    )
    tokenizer.add_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(tokens, kinds, strict=True) if k == USER_DEFINED]
    )
    _add_bos(tokenizer, tokens, meta)
    return tokenizer


def write_tokenizer(meta: Mapping[str, Any], folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json into `folder`, chat template included."""
    tokenizer = build_tokenizer(meta)
    tokens = meta["tokenizer.ggml.tokens"]
    outside = {role: i for role, i in special_ids(meta).items() if i >= len(tokens)}
    if outside:
        raise UserError(f"special token ids beyond the vocabulary of {len(tokens)} tokens: {outside}")
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        # transformers 5 replaces the pre-tokenizer of a GPT2Tokenizer by its own, without the digit splitter.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(meta["llama.context_length"]),
    }
    config |= {f"{role}_token": tokens[i] for role, i in special_ids(meta).items()}
    if "tokenizer.chat_template" in meta:
        config["chat_template"] = meta["tokenizer.chat_template"]
    write_json(folder / "tokenizer_config.json", config)


def _vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise UserError(f"the tokenizer has {len(tokens) - len(vocabulary)} tokens twice")
    return vocabulary


def _merges(tokens: Sequence[str], merges: Sequence[str]) -> list[tuple[str, str]]:
    known = set(tokens)
    split = [merge.split(" ") for merge in merges]
    bad = [
        merge
        for merge, parts in zip(merges, split, strict=True)
        if len(parts) != 2 or not known.issuperset((*parts, "".join(parts)))
    ]
    if bad:
        raise UserError(f"{len(bad)} of the tokenizer's merges do not join two tokens to a third, such as {bad[0]!r}")
    return [(left, right) for left, right in split]


def _add_bos(tokenizer: Tokenizer, tokens: Sequence[str], meta: Mapping[str, Any]) -> None:
    bos = special_ids(meta).get("bos")
    if meta.get("tokenizer.ggml.add_bos_token") and bos is not None:
        token = tokens[bos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{token} $A", pair=f"{token} $A $B", special_tokens=[(token, bos)]
        )
