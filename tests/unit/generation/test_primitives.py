"""Operations that MLX runs for one layer of a decoded position, as on a GPU, beside mlx-lm's batched decoding."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models import qwen3
from mlx_lm.models.cache import BatchKVCache

from mlx_grpo.backend import exponential
from mlx_grpo.generation.decoding import decoding_rows

JOB, OTHER = tuple(range(60)), tuple(range(100, 170))
CANDIDATES = [tuple(range(n, n + 40 + n)) for n in range(8)]


def model_of(layers: int) -> nn.Module:
    model = qwen3.Model(
        qwen3.ModelArgs(
            model_type="qwen3",
            hidden_size=64,
            num_hidden_layers=layers,
            intermediate_size=128,
            num_attention_heads=4,
            rms_norm_eps=1e-6,
            vocab_size=256,
            num_key_value_heads=2,
            max_position_embeddings=512,
            rope_theta=1e6,
            head_dim=16,
            tie_word_embeddings=True,
        )
    )
    mx.eval(model.parameters())
    return model


def primitives(array: mx.array, folder: Path) -> int:
    mx.export_to_dot(str(folder / "graph.dot"), array)
    return len(re.findall(r'label ="\w+"', (folder / "graph.dot").read_text()))


def per_layer(count: Callable[[nn.Module], int]) -> float:
    return (count(model_of(4)) - count(model_of(2))) / 2


def of_this_package(prompts: Sequence[tuple[int, ...]], folder: Path) -> float:
    def count(model: nn.Module) -> int:
        rows = decoding_rows(model, 20)
        rows.add(prompts)
        tokens = mx.array([[3]] * len(prompts))
        mx.eval(model(tokens, cache=rows.caches))
        return primitives(model(tokens, cache=rows.caches), folder)

    return per_layer(count)


def of_mlx_lm(rows: int, folder: Path) -> float:
    def count(model: nn.Module) -> int:
        caches = [BatchKVCache([0] * rows) for _ in model.layers]
        for tokens in (mx.array([[3] * 9] * rows), mx.array([[3]] * rows)):
            mx.eval(model(tokens, cache=caches), [cache.state for cache in caches])
        return primitives(model(mx.array([[3]] * rows), cache=caches), folder)

    return per_layer(count)


@pytest.mark.parametrize(
    ("prompts", "more"),
    [
        (CANDIDATES, 0),
        ([JOB[:20]] * 8, 0),
        ([JOB] * 8, 15),
        ([JOB] * 4 + [OTHER] * 4, 16),
        ([(*JOB, *own) for own in CANDIDATES], 16),
        ([(*JOB, *own) for own in CANDIDATES[:2] for _ in range(4)], 35),
    ],
    ids=["prompts of their own", "a short prompt", "a group", "two groups", "candidates of a job", "groups of a job"],
)
def test_a_decoded_position_takes_few_operations_more_than_mlx_lm(
    prompts: list[tuple[int, ...]], more: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exponential, "SLOW_EXP", False)  # as on a GPU, where elementwise functions are compiled
    assert of_this_package(prompts, tmp_path) <= of_mlx_lm(len(prompts), tmp_path) + more
