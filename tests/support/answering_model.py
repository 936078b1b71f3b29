"""A tiny model with weights made by hand that answers ranking prompts, one candidate unlike the other.

It writes one answer of a few long tokens. Its only attention is the mean over the prompt, in which two words count:
"expert" makes the score 0.9 and the decision a shortlist, "unsure" makes it break off, by so little that drawn anew
the answer is valid about three times in ten. Everybody else gets 0.2 and a rejection.
"""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
from support.tiny_models import STOP, TEMPLATE, byte_tokenizer
from tokenizers import AddedToken

from mlx_grpo.tasks.shortlist.instruction import instruction_of

PIECES = ['{"reasons":["Python: expert","SQL: missing"],"score":', "0.9", "0.2"]
PIECES += [',"decision":"shortlist"}', ',"decision":"reject"}', "well,"]
START, HIGH, LOW, SHORTLIST, REJECT, BREAK = range(2, 8)  # their dimensions; 0 is any other token, 1 is ">"
EXPERT, UNSURE = 8, 10  # the words' dimensions; the one after each holds the mean over the prompt
SIZE = 16
INSTRUCTION = "".join(message["content"] for message in instruction_of("compact"))
PROMPT_TOKENS = len(INSTRUCTION) + 230
"""Roughly: a token a byte, and a mean over the prompt weakens with its length."""
SETTINGS = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": SIZE,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}


def make_answering_model(folder: Path) -> Path:
    """Write the model as a Hugging Face folder."""
    folder.mkdir(parents=True)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in (*PIECES, "expert", "unsure")])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {name: tokenizer.token_to_id(name) for name in (">", *PIECES, "expert", "unsure", STOP)}
    settings = {**SETTINGS, "vocab_size": tokenizer.get_vocab_size(), "eos_token_id": names[STOP]}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": STOP, "chat_template": TEMPLATE})
    )
    weights = {name: mx.array(rows) for name, rows in _weights(names, settings["vocab_size"]).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    return folder


def _weights(ids: dict[str, int], vocabulary: int) -> dict[str, list]:
    embedding, head = _zeros(vocabulary, SIZE), _zeros(vocabulary, SIZE)
    own = {ids[">"]: 1, **{ids[piece]: at for at, piece in enumerate(PIECES, start=START)}}
    for token in range(vocabulary):
        embedding[token][own.get(token, 0)] = 1.0
    embedding[ids["expert"]][EXPERT] = embedding[ids["unsure"]][UNSURE] = 1.0
    start, high, low, shortlist, reject, broken = (ids[piece] for piece in PIECES)
    head[start][1] = head[shortlist][HIGH] = head[reject][LOW] = 100.0
    head[high][START] = head[low][START] = head[broken][START] = 100.0
    # The instruction says "expert" too, so the score turns half a word above its count. A word's embedding holds two
    # ones, which the norm scales to sqrt(SIZE / 2) each.
    threshold = 1000.0 * (SIZE / 2) ** 0.5 * (INSTRUCTION.count("expert") + 0.5) / PROMPT_TOKENS
    head[low][START] += threshold + 0.12
    head[broken][START] += threshold
    head[high][EXPERT + 1], head[broken][UNSURE + 1] = 1000.0, PROMPT_TOKENS / 41
    for last in (SHORTLIST, REJECT, BREAK):
        head[ids[STOP]][last] = 100.0
    value, out = _zeros(SIZE, SIZE), _zeros(SIZE, SIZE)
    for word in (EXPERT, UNSURE):
        value[word][word] = out[word + 1][word] = 1.0
    layer = "model.layers.0."
    return {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": head,
        "model.norm.weight": [1.0] * SIZE,
        layer + "input_layernorm.weight": [1.0] * SIZE,
        layer + "post_attention_layernorm.weight": [1.0] * SIZE,
        layer + "self_attn.q_proj.weight": _zeros(SIZE, SIZE),
        layer + "self_attn.k_proj.weight": _zeros(SIZE, SIZE),
        layer + "self_attn.v_proj.weight": value,
        layer + "self_attn.o_proj.weight": out,
        layer + "mlp.gate_proj.weight": _zeros(8, SIZE),
        layer + "mlp.up_proj.weight": _zeros(8, SIZE),
        layer + "mlp.down_proj.weight": _zeros(SIZE, 8),
    }


def _zeros(rows: int, columns: int) -> list[list[float]]:
    return [[0.0] * columns for _ in range(rows)]
