"""Prompts to rollouts: one prefill for each prompt, then all rows of the step decoded together by mlx-lm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
from mlx_lm.generate import BatchGenerator
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_grpo.policy import Policy
from mlx_grpo.prefix import prefill
from mlx_grpo.sampling import Sampling, draw, row_keys
from mlx_grpo.types import Prompt, Rollout


@dataclass(slots=True)
class _RowSampler:
    """Draws for the rows that are still decoding, and remembers what each draw's log-probability was."""

    keys: mx.array
    sampling: Sampling
    rows: list[int]
    draws: list[tuple[list[int], mx.array]] = field(default_factory=list)

    def __call__(self, logits: mx.array) -> mx.array:
        tokens, logps = draw(logits, self.keys[mx.array(self.rows)], len(self.draws), self.sampling)
        self.draws.append((list(self.rows), logps))
        return tokens

    def logps_by_row(self) -> list[dict[int, float]]:
        """For each position, the log-probability that each row then drew with."""
        return [dict(zip(rows, logps.tolist(), strict=True)) for rows, logps in self.draws]


def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    num_generations: int,
    sampling: Sampling,
    *,
    seed: int = 0,
    step: int = 0,
    on_token: Callable[[int], None] | None = None,
) -> list[Rollout]:
    """Sample `num_generations` completions of each prompt: N = P·G rollouts, prompt-major.

    Row r of step s draws from a stream of its own, keyed by (seed, s, r). `on_token` is told how many rows
    are still decoding after each position.
    """
    total = len(prompts) * num_generations
    sampler = _RowSampler(row_keys(seed, step, total), sampling, list(range(total)))
    tokens, stopped = _decode(policy, prompts, num_generations, sampler, on_token)
    logps = sampler.logps_by_row()
    return [
        Rollout(
            prompt=prompts[row // num_generations],
            completion_ids=tuple(tokens[row]),
            completion=decode_completion(policy.tokenizer, tokens[row]),
            finish_reason="stop" if row in stopped else "length",
            sampled_logps=tuple(logps[position][row] for position in range(len(tokens[row]))),
        )
        for row in range(total)
    ]


def _decode(
    policy: Policy,
    prompts: Sequence[Prompt],
    num_generations: int,
    sampler: _RowSampler,
    on_token: Callable[[int], None] | None,
) -> tuple[list[list[int]], set[int]]:
    """Each row's tokens, and the rows that ended in a stop token."""
    total = len(sampler.rows)
    generator = BatchGenerator(
        policy.model,
        max_tokens=sampler.sampling.max_tokens,
        stop_tokens=[[token] for token in policy.stop_ids],
        sampler=sampler,
        # All rows at once: the sampler counts on every row being there from the first position on.
        completion_batch_size=total,
        prefill_batch_size=total,
    )
    with mx.stream(generator.stream):
        caches = [prefill(policy.model, mx.array(prompt.token_ids)) for prompt in prompts]
    uids = generator.insert(
        [[prompt.token_ids[-1]] for prompt in prompts for _ in range(num_generations)],
        caches=[cache for cache in caches for _ in range(num_generations)],
    )
    row_of = {uid: row for row, uid in enumerate(uids)}
    tokens: list[list[int]] = [[] for _ in range(total)]
    stopped = set()
    while sampler.rows:
        for response in generator.next_generated():
            row = row_of[response.uid]
            tokens[row].append(response.token)
            if response.finish_reason is not None:
                sampler.rows.remove(row)
            if response.finish_reason == "stop":
                stopped.add(row)
        if on_token:
            on_token(len(sampler.rows))
    generator.close()
    return tokens, stopped


def decode_completion(tokenizer: TokenizerWrapper, token_ids: Sequence[int]) -> str:
    """The text of a completion, without the stop token that ends it."""
    kept = list(token_ids)
    if kept and kept[-1] in tokenizer.eos_token_ids:
        kept.pop()
    return tokenizer.decode(kept)
