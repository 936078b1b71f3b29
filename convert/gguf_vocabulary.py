"""A Hugging Face folder's tokenizer as the metadata of a GGUF, as llama.cpp's convert_hf_to_gguf.py writes them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Set
from pathlib import Path
from typing import Any

import gguf
from gguf import TokenType
from tokenizers import Tokenizer
from tokenizers.models import BPE

from convert.gguf_splits import SPLITS
from mlx_grpo.errors import UserError

LOOKS_SPECIAL = re.compile(r"<pad>|<mask>|<2mass>|\[@BOS@]|<\|.*\|>|<｜.*｜>|<unused.*>", re.DOTALL)
"""Names of added tokens that llama.cpp takes for control tokens, though some models do not mark them so."""
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
PARTS = ("normalizer", "pre_tokenizer")


def add_vocabulary(writer: gguf.GGUFWriter, folder: Path, size: int, stop_ids: Set[int], gemma: bool) -> None:
    """Add tokens, types, merges or scores, special ids and the chat template of `folder` to a GGUF's metadata.

    `size` is that of the embedding: llama.cpp has a token for each of its rows. Raises UserError for a tokenizer that
    transformers would read back otherwise.
    """
    if not (folder / "tokenizer.json").is_file():
        raise _unsupported(folder, "is in another file than tokenizer.json")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    layout = json.loads(tokenizer.to_str())
    pieces = layout["model"].get("byte_fallback", False)
    if pieces and not gemma:
        raise _unsupported(folder, "is made of pieces, and not Gemma's")
    tokens = _tokens(tokenizer, folder, size)
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    writer.add_tokenizer_pre("default" if pieces else _pre_tokenizer(layout, folder))
    writer.add_token_list(tokens)
    if pieces:
        writer.add_token_scores(_scores(layout["model"]["merges"], tokens))
        writer.add_add_space_prefix(False)
    writer.add_token_types(_types(tokenizer, tokens, pieces))
    logging.getLogger("gguf.vocab").setLevel(logging.ERROR)  # it warns of templates for pairs of texts
    special = gguf.SpecialVocab(folder, load_merges=not pieces, n_vocab=size)
    special.add_special_token["bos"] = tokenizer.encode("a").ids[:1] == [special.special_token_ids.get("bos")]
    others = sorted(stop_ids - {special.special_token_ids.get("eos")})
    if others:
        special.special_token_ids["eot"] = others[0]
    if not pieces and not special.merges:
        raise _unsupported(folder, "has no merges")
    special.add_to_gguf(writer, quiet=True)


def _tokens(tokenizer: Tokenizer, folder: Path, size: int) -> list[str]:
    """Return a token for each of `size` embeddings; raise UserError for a token of a text beyond them.

    Gemma 3 has an added one beyond, for pictures. llama.cpp's converter leaves it out too.
    """
    tokens = [f"[PAD{i}]" for i in range(size)]
    added = tokenizer.get_added_tokens_decoder()
    for token, i in tokenizer.get_vocab().items():
        if i < size:
            tokens[i] = token
        elif i not in added:
            raise UserError(f"{folder}: the token {token!r} has the id {i}, and the model {size} embeddings")
    return tokens


def _pre_tokenizer(layout: dict[str, Any], folder: Path) -> str:
    """Return llama.cpp's name for the way in which a byte-level tokenizer splits a text."""
    own = {part: _without_offsets(layout[part]) for part in PARTS}
    for name, (normalizer, pre_tokenizer) in SPLITS.items():
        known = Tokenizer(BPE())
        known.pre_tokenizer = pre_tokenizer
        if normalizer is not None:
            known.normalizer = normalizer
        wanted = json.loads(known.to_str())
        if own == {part: _without_offsets(wanted[part]) for part in PARTS}:
            return name
    raise _unsupported(folder, f"splits texts in none of the ways {', '.join(SPLITS)}")


def _without_offsets(value: Any) -> Any:
    """Return a part of tokenizer.json without what concerns offsets alone."""
    if isinstance(value, dict):
        return {key: _without_offsets(inner) for key, inner in value.items() if key != "trim_offsets"}
    return [_without_offsets(inner) for inner in value] if isinstance(value, list) else value


def _unsupported(folder: Path, reason: str) -> UserError:
    return UserError(
        f"{folder}: the tokenizer {reason}; use llama.cpp's convert_hf_to_gguf.py on the folder of `export --hf`"
    )


def _scores(merges: list[Any], tokens: list[str]) -> list[float]:
    """Return a score for each token that orders merges as tokenizer.json does: the first merge has the highest."""
    order: dict[str, float] = {}
    for rank, pair in enumerate(merges):
        order.setdefault("".join(pair.split(" ") if isinstance(pair, str) else pair), -float(rank))
    return [order.get(token, -float(len(merges))) for token in tokens]


def _types(tokenizer: Tokenizer, tokens: list[str], pieces: bool) -> list[TokenType]:
    added = tokenizer.get_added_tokens_decoder()
    known = tokenizer.get_vocab()
    unknown = json.loads(tokenizer.to_str())["model"].get("unk_token")

    def kind(i: int, token: str) -> TokenType:
        if pieces and token == unknown:
            return TokenType.UNKNOWN
        if i in added:
            special = added[i].special or LOOKS_SPECIAL.fullmatch(token)
            return TokenType.CONTROL if special else TokenType.USER_DEFINED
        if token not in known:
            return TokenType.UNUSED
        return TokenType.BYTE if pieces and BYTE.fullmatch(token) else TokenType.NORMAL

    return [kind(i, token) for i, token in enumerate(tokens)]
