"""Prompts to rollouts: one prefill for each prompt, then all rows of the step decoded together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.generation.decoding import NO_START, Start, decoding_caches, keep_rows
from mlx_grpo.generation.sampling import Sampling, draw, row_keys
from mlx_grpo.models.policy import Policy

OnToken = Callable[[int], None]
"""Called after each position with the number of rows still decoding; an exception that it raises ends the decoding."""


@dataclass(slots=True)
class _Row:
    """One completion while it is decoded."""

    prompt: Prompt
    max_tokens: int
    token_ids: list[int] = field(default_factory=list)
    stopped: bool = False

    def append(self, token_id: int, stop_ids: Sequence[int]) -> bool:
        """Append a token; return True if another one follows."""
        self.token_ids.append(token_id)
        self.stopped = token_id in stop_ids
        return not self.stopped and len(self.token_ids) < self.max_tokens


@dataclass(slots=True)
class _RowSampler:
    """Draws for the rows that are still decoding, and keeps the log-probability and entropy of each draw."""

    keys: mx.array
    sampling: Sampling
    rows: list[int]
    """The rows still decoding, ascending."""
    draws: list[tuple[list[int], mx.array]] = field(default_factory=list)
    """For each position, its rows, and their log-probabilities and entropies [2, rows]."""

    def __call__(self, logits: mx.array) -> mx.array:
        drawn = draw(logits, self.keys[mx.array(self.rows)], len(self.draws), self.sampling)
        self.draws.append((list(self.rows), mx.stack([drawn.logps, drawn.entropies])))
        return drawn.tokens

    def logps_and_entropies(self, row_count: int) -> list[tuple[list[float], list[float]]]:
        """Return the log-probabilities and the entropies of each row's draws, in order."""
        by_row: list[tuple[list[float], list[float]]] = [([], []) for _ in range(row_count)]
        for rows, values in self.draws:
            logps, entropies = cast("list[list[float]]", values.tolist())
            for row, logp, entropy in zip(rows, logps, entropies, strict=True):
                by_row[row][0].append(logp)
                by_row[row][1].append(entropy)
        return by_row


def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    num_generations: int,
    sampling: Sampling,
    *,
    seed: int = 0,
    step: int = 0,
    first_row: int = 0,
    start: Start = NO_START,
    on_token: OnToken | None = None,
) -> list[Rollout]:
    """Sample `num_generations` completions of each prompt: N = P·G rollouts, prompt-major.

    Row r of step s draws from its own random stream, keyed by (seed, s, r). Rows count from `first_row`, for callers
    that sample a part of a step. `start` holds tokens that the prompts of several calls begin with. `on_token` is
    called after each position with the number of rows still decoding.
    """
    rows = [
        _Row(prompt, sampling.max_tokens - len(prompt.shared_prefix_ids))
        for prompt in prompts
        for _ in range(num_generations)
    ]
    keys = row_keys(seed, step, range(first_row, first_row + len(rows)))
    sampler = _RowSampler(keys, sampling, list(range(len(rows))))
    given = [prompt.given_ids for prompt in prompts]
    caches = decoding_caches(policy.model, given, num_generations, sampling.max_tokens, start)
    _decode(policy, rows, caches, sampler, on_token)
    drawn = sampler.logps_and_entropies(len(rows))
    return [_rollout(policy.tokenizer, row, *values) for row, values in zip(rows, drawn, strict=True)]


def _decode(policy: Policy, rows: Sequence[_Row], caches: list, sampler: _RowSampler, on_token: OnToken | None) -> None:
    """Append tokens to each row until it stops or reaches its limit."""
    max_tokens = sampler.sampling.max_tokens
    stop_ids = () if sampler.sampling.ignore_stop else policy.stop_ids
    last_ids = mx.array([row.prompt.given_ids[-1] for row in rows])  # [N]
    drawn = _next_tokens(policy.model, last_ids, caches, sampler)  # [N]
    for position in range(max_tokens):
        # The next position is under way while this one's tokens are read; rows that end here drop out of both.
        # After the last position no row continues, and nothing follows.
        following = _next_tokens(policy.model, drawn, caches, sampler) if position + 1 < max_tokens else drawn
        seats = _append(rows, sampler.rows, drawn, stop_ids)
        if on_token:
            on_token(len(seats))
        if not seats:
            break
        if len(seats) < len(sampler.rows):
            sampler.rows = [sampler.rows[seat] for seat in seats]
            keep_rows(caches, seats)
            following = following[mx.array(seats)]
        drawn = following


def _append(rows: Sequence[_Row], live: Sequence[int], drawn: mx.array, stop_ids: Sequence[int]) -> list[int]:
    """Append each live row's token; return the places in `live` of the rows that continue."""
    token_ids = cast("list[int]", drawn.tolist())
    seats = []
    for seat, (row, token_id) in enumerate(zip(live, token_ids, strict=True)):
        if rows[row].append(token_id, stop_ids):
            seats.append(seat)
    return seats


def _next_tokens(model: nn.Module, token_ids: mx.array, caches: list, sampler: _RowSampler) -> mx.array:
    """Draw what follows each live row's newest token [N]; computed in the background."""
    drawn = sampler(model(token_ids[:, None], cache=caches)[:, -1])
    # A log-probability left for later would keep its row's whole vocabulary: 6 GB for 32 rows of Qwen3, 160 tokens.
    mx.async_eval(drawn, sampler.draws[-1][1])
    return drawn


def _rollout(tokenizer: TokenizerWrapper, row: _Row, logps: Sequence[float], entropies: Sequence[float]) -> Rollout:
    length = len(row.token_ids)  # a row is drawn for once more, while its last token is read
    return Rollout(
        prompt=row.prompt,
        completion_ids=tuple(row.token_ids),
        completion=decode_completion(tokenizer, [*row.prompt.shared_prefix_ids, *row.token_ids]),
        finish_reason="stop" if row.stopped else "length",
        sampled_logps=tuple(logps[:length]),
        sampled_entropies=tuple(entropies[:length]),
    )


def decode_completion(tokenizer: TokenizerWrapper, token_ids: Sequence[int]) -> str:
    """Return the text of a completion, without the stop token that ends it."""
    kept = list(token_ids)
    if kept and kept[-1] in tokenizer.eos_token_ids:
        kept.pop()
    return tokenizer.decode(kept)
