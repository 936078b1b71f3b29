"""As many rows decode together as the free memory holds, up to the device's most or the user's limit."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest
from support.tiny_models import tiny_policy

from mlx_grpo.planning import rows
from mlx_grpo.planning.memory import SAMPLER_ARRAYS
from mlx_grpo.planning.rows import FREE_SHARE, MOST_ROWS, row_bytes, rows_that_fit


def test_row_takes_the_bytes_of_its_cache_and_its_logits(tiny_llama: Path):
    policy = tiny_policy(tiny_llama)
    args = policy.model.args
    cache = 10 * 2 * args.num_key_value_heads * (args.head_dim or args.hidden_size // args.num_attention_heads) * 4
    assert row_bytes(policy.model, 10) == cache * len(policy.model.layers) + SAMPLER_ARRAYS * args.vocab_size * 4


@pytest.mark.parametrize(
    ("room", "limit", "processes", "wanted"),
    [(5.5, None, 1, 5), (5.5, 3, 1, 3), (5.5, None, 2, 2), (0.5, None, 1, 1), (-3, None, 1, 1)],
)
def test_rows_follow_free_memory_limit_and_processes(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, room: float, limit: int | None, processes: int, wanted: int
):
    model = tiny_policy(tiny_llama).model
    monkeypatch.setattr(mx, "get_active_memory", lambda: 1000)
    monkeypatch.setattr(rows, "available_memory", lambda: 1000 + room * row_bytes(model, 50) / FREE_SHARE)
    assert rows_that_fit(model, 50, limit, processes) == wanted


def test_rows_are_capped_where_memory_is_ample_but_a_users_limit_is_not(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rows, "available_memory", lambda: 2**50)
    model = tiny_policy(tiny_llama).model
    assert rows_that_fit(model, 50) == MOST_ROWS[rows.this_device().backend]
    assert rows_that_fit(model, 50, limit=500) == 500
