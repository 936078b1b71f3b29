"""Prompts to rollouts: one prefill for each prompt, then all rows of the step decoded together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.generation.decoding import NO_START, Start, decoding_caches, keep_rows
from mlx_grpo.generation.sampling import Sampling, draw, row_keys
from mlx_grpo.models.policy import Policy

OnToken = Callable[[int], None]
"""Told after each decoded position how many rows go on; what it raises ends the decoding."""


@dataclass(slots=True)
class _RowSampler:
    """Draws for the rows that are still decoding, and remembers how likely and how uncertain each draw was."""

    keys: mx.array
    sampling: Sampling
    rows: list[int]
    draws: list[tuple[list[int], mx.array]] = field(default_factory=list)
    """Of each position, its rows, and their log-probabilities and entropies [2, rows]."""

    def __call__(self, logits: mx.array) -> mx.array:
        drawn = draw(logits, self.keys[mx.array(self.rows)], len(self.draws), self.sampling)
        self.draws.append((list(self.rows), mx.stack([drawn.logps, drawn.entropies])))
        return drawn.tokens

    def by_row(self) -> list[dict[int, tuple[float, float]]]:
        """For each position, the log-probability and the entropy that each row then drew with."""
        return [dict(zip(rows, zip(*told.tolist(), strict=True), strict=True)) for rows, told in self.draws]


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

    Row r of step s draws from a stream of its own, keyed by (seed, s, r), counted from `first_row` where these
    are some of a step's rows. `start` is what earlier calls' prompts began with too. `on_token` is told how many
    rows are still decoding after each position.
    """
    total = len(prompts) * num_generations
    sampler = _RowSampler(row_keys(seed, step, range(first_row, first_row + total)), sampling, list(range(total)))
    tokens, stopped = _decode(policy, prompts, num_generations, sampler, start, on_token)
    drawn = sampler.by_row()
    told = [[drawn[position][row] for position in range(len(tokens[row]))] for row in range(total)]
    return [
        Rollout(
            prompt=prompts[row // num_generations],
            completion_ids=tuple(tokens[row]),
            completion=decode_completion(
                policy.tokenizer, [*prompts[row // num_generations].shared_prefix_ids, *tokens[row]]
            ),
            finish_reason="stop" if row in stopped else "length",
            sampled_logps=tuple(logp for logp, _ in told[row]),
            sampled_entropies=tuple(entropy for _, entropy in told[row]),
        )
        for row in range(total)
    ]


def _decode(
    policy: Policy,
    prompts: Sequence[Prompt],
    num_generations: int,
    sampler: _RowSampler,
    start: Start,
    on_token: OnToken | None,
) -> tuple[list[list[int]], set[int]]:
    """Each row's tokens, and the rows that ended in a stop token."""
    tokens: list[list[int]] = [[] for _ in sampler.rows]
    stopped = set()
    max_tokens = sampler.sampling.max_tokens
    limits = [max_tokens - len(prompt.shared_prefix_ids) for prompt in prompts for _ in range(num_generations)]
    stop_ids = () if sampler.sampling.ignore_stop else policy.stop_ids
    given = [prompt.given_ids for prompt in prompts]
    caches = decoding_caches(policy.model, given, num_generations, max_tokens, start)
    last_ids = mx.array([ids[-1] for ids in given for _ in range(num_generations)])
    drawn = _next_tokens(policy.model, last_ids, caches, sampler)
    for position in range(max_tokens):
        # The next position is under way while this one's tokens are read; rows that end here drop out of both.
        following = _next_tokens(policy.model, drawn, caches, sampler) if position + 1 < max_tokens else None
        live, kept = list(sampler.rows), []
        for seat, (row, token) in enumerate(zip(live, drawn.tolist(), strict=True)):
            tokens[row].append(token)
            if token in stop_ids:
                stopped.add(row)
            elif position + 1 < limits[row]:
                kept.append(seat)
        sampler.rows = [live[seat] for seat in kept]
        if on_token:
            on_token(len(kept))
        if not kept:
            break
        drawn = following
        if len(kept) < len(live):
            keep_rows(caches, kept)
            drawn = following[mx.array(kept)]
    return tokens, stopped


def _next_tokens(model: nn.Module, token_ids: mx.array, caches: list, sampler: _RowSampler) -> mx.array:
    """Draw what follows each live row's newest token [N]; computed in the background."""
    drawn = sampler(model(token_ids[:, None], cache=caches)[:, -1])
    # A log-probability left for later would keep its row's whole vocabulary: 6 GB for 32 rows of Qwen3, 160 tokens.
    mx.async_eval(drawn, sampler.draws[-1][1])
    return drawn


def decode_completion(tokenizer: TokenizerWrapper, token_ids: Sequence[int]) -> str:
    """The text of a completion, without the stop token that ends it."""
    kept = list(token_ids)
    if kept and kept[-1] in tokenizer.eos_token_ids:
        kept.pop()
    return tokenizer.decode(kept)
