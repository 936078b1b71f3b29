"""Prompts to completions: one prefill for each run of tokens that prompts share, then all rows decoded together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, cast

import mlx.core as mx
import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.generation.decoding import CopiedRows, SharedRows, decoding_rows
from mlx_grpo.generation.nodes import Nodes
from mlx_grpo.generation.sampling import Sampling, draw, row_keys
from mlx_grpo.models.policy import Policy

OnToken = Callable[[int], None]
"""Called after each position with the number of rows still decoding; an exception that it raises ends the decoding."""

REFILL_SHARE = 4
"""New rows are added once a quarter of the seats is free, so that the prompts of several are run at a time."""

DROP_SHARE = 8
"""Ended rows are removed once they are an eighth: removing copies the others, which costs more than one idle row."""


@dataclass(slots=True)
class _Row:
    """One completion while it is decoded."""

    prompt: Prompt
    max_tokens: int
    key: Sequence[int] = ()
    """The key of its random stream; none where decoding is greedy."""
    started: bool = False
    """True once its first token is being computed."""
    stopped: bool = False
    token_ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Return the number of its tokens, the one being computed included."""
        return len(self.token_ids) + self.started

    @property
    def ended(self) -> bool:
        """Return True if no further token follows."""
        return self.stopped or len(self.token_ids) >= self.max_tokens


class _Newest(NamedTuple):
    """The newest token of each row [N], and its log-probability and entropy [2, N] where it was sampled."""

    token_ids: mx.array
    statistics: mx.array | None = None

    def keep(self, seats: Sequence[int]) -> _Newest:
        """Return those of some rows."""
        places = mx.array(list(seats), mx.int32)
        return _Newest(self.token_ids[places], None if self.statistics is None else self.statistics[:, places])

    def add(self, rows: Sequence[_Row]) -> _Newest:
        """Add the last tokens of new rows' prompts, which have no statistics."""
        last_ids = mx.array([row.prompt.given_ids[-1] for row in rows])
        token_ids = mx.concatenate([self.token_ids.astype(last_ids.dtype), last_ids])
        if self.statistics is None:
            return _Newest(token_ids)
        return _Newest(token_ids, mx.pad(self.statistics, [(0, 0), (0, len(rows))]))


def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    num_generations: int,
    sampling: Sampling,
    *,
    seed: int = 0,
    step: int = 0,
    first_row: int = 0,
    start: Nodes = (),
    on_token: OnToken | None = None,
) -> list[Rollout]:
    """Sample `num_generations` completions of each prompt: N = P·G rollouts, prompt-major, all decoded together.

    Row r of step s draws from its own random stream, keyed by (seed, s, r). Rows count from `first_row`, for callers
    that sample a part of a step. `start` holds what the prompts of several calls begin with. `on_token` is called
    after each position with the number of rows still decoding.
    """
    repeated = [prompt for prompt in prompts for _ in range(num_generations)]
    numbers = range(first_row, first_row + len(repeated))
    no_keys: list[Sequence[int]] = [()] * len(repeated)
    keys = no_keys if sampling.greedy else cast("list[Sequence[int]]", row_keys(seed, step, numbers).tolist())
    rows = [
        _Row(prompt, sampling.max_tokens - len(prompt.shared_prefix_ids), key)
        for prompt, key in zip(repeated, keys, strict=True)
    ]
    for _ in _decode(policy, iter(rows), sampling, len(rows), start, on_token):
        pass
    return [_rollout(policy.tokenizer, row) for row in rows]


def complete(
    policy: Policy, prompts: Iterable[Prompt], max_tokens: int, max_rows: int, start: Nodes = ()
) -> Iterator[Rollout]:
    """Yield a greedy completion of each prompt, in order; `max_rows` at most are decoded together.

    Rows that end make room for the next prompts at once, which are read from the iterable only then. The rows beside
    a row change its logits in their last digits, so where two tokens are almost equally likely, other prompts before
    it may change its completion. Equal prompts in equal order, with equal `max_rows`, have equal completions.
    """
    unfinished: deque[_Row] = deque()

    def rows() -> Iterator[_Row]:
        for prompt in prompts:
            unfinished.append(_Row(prompt, max_tokens))
            yield unfinished[-1]

    for _ in _decode(policy, rows(), Sampling(max_tokens, temperature=0), max_rows, start):
        while unfinished and unfinished[0].ended:
            yield _rollout(policy.tokenizer, unfinished.popleft())


def stream(
    policy: Policy, prompt: Prompt, sampling: Sampling, on_text: Callable[[str], None], *, seed: int = 0
) -> Rollout:
    """Complete one prompt; give `on_text` each piece of the text as soon as it is whole characters."""
    key = () if sampling.greedy else cast("list[list[int]]", row_keys(seed, 0, range(1)).tolist())[0]
    row = _Row(prompt, sampling.max_tokens, key)
    detokenizer = policy.tokenizer.detokenizer
    detokenizer.reset()

    def show(_: int) -> None:
        if not row.stopped:
            detokenizer.add_token(row.token_ids[-1])
            on_text(detokenizer.last_segment)

    for _ in _decode(policy, iter([row]), sampling, 1, (), show):
        pass
    detokenizer.finalize()
    on_text(detokenizer.last_segment)
    return _rollout(policy.tokenizer, row)


def _decode(
    policy: Policy,
    waiting: Iterator[_Row],
    sampling: Sampling,
    max_rows: int,
    start: Nodes,
    on_token: OnToken | None = None,
) -> Iterator[_Row]:
    """Append tokens to each row until it ends, and yield it then."""
    stop_ids = () if sampling.ignore_stop else policy.stop_ids
    caches = decoding_rows(policy.model, sampling.max_tokens, start)
    rows: list[_Row] = []  # of the caches, those that ended since the last removal included
    newest = _Newest(mx.zeros(0, mx.int32))
    while True:
        seats = [seat for seat, row in enumerate(rows) if not row.ended]
        free = max_rows - len(seats)
        new = list(islice(waiting, free)) if REFILL_SHARE * free >= max_rows else []
        if not seats:  # none of the caches' rows continues
            rows, newest, caches = [], newest.keep([]), decoding_rows(policy.model, sampling.max_tokens, start)
        elif len(seats) < len(rows) and (new or DROP_SHARE * (len(rows) - len(seats)) >= len(rows)):
            rows, newest = [rows[seat] for seat in seats], newest.keep(seats)
            caches.keep(seats)
        if new:
            caches.add([row.prompt.given_ids for row in new])
            rows, newest = rows + new, newest.add(new)
        if not rows:
            return
        # The next position is under way while this one's tokens are read.
        following = newest
        if any(not row.ended and row.position < row.max_tokens for row in rows):
            following = _next_tokens(policy, rows, newest, caches, sampling)
        yield from _read(rows, newest, stop_ids, on_token)
        newest = following


def _next_tokens(
    policy: Policy, rows: Sequence[_Row], newest: _Newest, caches: SharedRows | CopiedRows, sampling: Sampling
) -> _Newest:
    """Draw what follows each row's newest token; computed in the background."""
    logits = policy.model(newest.token_ids[:, None], cache=caches.caches)[:, -1]
    if sampling.greedy:
        following = _Newest(mx.argmax(logits, axis=-1))
        mx.async_eval(following.token_ids)
        return following
    keys = mx.array(np.array([row.key for row in rows], np.uint32))
    positions = mx.array(np.array([[row.position] for row in rows], np.uint32))
    drawn = draw(logits, keys, positions, sampling)
    statistics = mx.stack([drawn.logps, drawn.entropies])
    # A log-probability left for later would keep its row's whole vocabulary: 6 GB for 32 rows of Qwen3, 160 tokens.
    mx.async_eval(drawn.tokens, statistics)
    return _Newest(drawn.tokens, statistics)


def _read(rows: Sequence[_Row], newest: _Newest, stop_ids: Sequence[int], on_token: OnToken | None) -> list[_Row]:
    """Append each row's newest token, unless it is its prompt's last one; return the rows that end with it."""
    token_ids = cast("list[int]", newest.token_ids.tolist())
    statistics = None if newest.statistics is None else cast("list[list[float]]", newest.statistics.tolist())
    read = [seat for seat, row in enumerate(rows) if row.started and not row.ended]
    for seat in read:
        row = rows[seat]
        row.token_ids.append(token_ids[seat])
        row.stopped = token_ids[seat] in stop_ids
        if statistics is not None:
            row.logps.append(statistics[0][seat])
            row.entropies.append(statistics[1][seat])
    for row in rows:
        row.started = True
    if on_token and read:
        on_token(sum(not row.ended for row in rows))
    return [rows[seat] for seat in read if rows[seat].ended]


def _rollout(tokenizer: TokenizerWrapper, row: _Row) -> Rollout:
    return Rollout(
        prompt=row.prompt,
        completion_ids=tuple(row.token_ids),
        completion=decode_completion(tokenizer, [*row.prompt.shared_prefix_ids, *row.token_ids]),
        finish_reason="stop" if row.stopped else "length",
        sampled_logps=tuple(row.logps),
        sampled_entropies=tuple(row.entropies),
    )


def decode_completion(tokenizer: TokenizerWrapper, token_ids: Sequence[int]) -> str:
    """Return the text of a completion, without the stop token that ends it."""
    kept = list(token_ids)
    if kept and kept[-1] in tokenizer.eos_token_ids:
        kept.pop()
    return tokenizer.decode(kept)
