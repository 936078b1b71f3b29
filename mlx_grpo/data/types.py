"""The records that the stages of a step hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import mlx.core as mx

from mlx_grpo.data.thinking import OPEN


@dataclass(frozen=True, slots=True)
class LengthLimit:
    """The most tokens of a prompt with its completion, None if a model names no limit."""

    tokens: int | None
    name: str = "context"
    reason: str = ""

    def __str__(self) -> str:
        """Return the limit in words, for an error's text."""
        return f"the model's {self.name} of {self.tokens}{self.reason}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row of the dataset, rendered by the chat template and tokenized."""

    id: str
    text: str
    token_ids: tuple[int, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    """The row without its prompt, passed to the reward."""
    user_message: str = ""
    """The last message, or the whole of a prompt that is plain text."""
    messages: tuple[Mapping[str, Any], ...] | None = None
    """The row's chat messages as they are in the file; None where the prompt is plain text."""
    absent_columns: tuple[str, ...] = ()
    """The columns that other rows of its file have and this one lacks."""
    shared_prefix_ids: tuple[int, ...] = ()
    """The tokens that all completions of its group begin with, drawn once (see `branch`); usually none."""

    @property
    def context(self) -> Any:
        """Return the column `context`, or the user message where the row has none."""
        return self.columns.get("context", self.user_message)

    @property
    def opens_thought(self) -> bool:
        """Return True if the prompt ends with the beginning of a thought, as R1's template writes it."""
        return self.text.rstrip().endswith(OPEN)

    @property
    def given_ids(self) -> tuple[int, ...]:
        """Return the tokens that a completion of its group continues: prompt and shared prefix."""
        return self.token_ids + self.shared_prefix_ids


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion of one prompt."""

    prompt: Prompt
    completion_ids: tuple[int, ...]
    """Tokens sampled after the prompt and its shared prefix, **including the stop token** if there is one."""
    completion: str
    """The text of the shared prefix and of `completion_ids`, without the stop token."""
    finish_reason: Literal["stop", "length"]
    sampled_logps: tuple[float, ...] = ()
    """The sampler's log-probability of each token, of logits / temperature before any filter."""
    sampled_entropies: tuple[float, ...] = ()
    """The entropy of the distribution that each token was drawn from, before any filter."""

    @property
    def whole_ids(self) -> tuple[int, ...]:
        """Return the tokens of the whole completion: shared prefix, what was sampled, and any stop token."""
        return self.prompt.shared_prefix_ids + self.completion_ids


@dataclass(frozen=True, slots=True)
class Batch:
    """Rollouts as arrays, rows grouped by prompt: B rows, completions right-padded to T tokens."""

    prompt_ids: tuple[mx.array, ...]
    """One i32 [P_i] for each distinct prompt."""
    prompt_index: tuple[int, ...]
    """For each row, the index of its prompt in `prompt_ids`; equal indices are contiguous."""
    completion_ids: mx.array
    """i32 [B, T]; tokens beyond a row's length are padding that `mask` hides."""
    mask: mx.array
    """f32 [B, T]: 1 where the token's log-probability counts."""
    advantages: mx.array
    """f32 [B]"""
    sampled_logps: mx.array
    """f32 [B, T]: the sampler's log-probabilities, 0 where there are none."""
    sampled_entropies: mx.array
    """f32 [B, T]: the entropies of the distributions that the tokens were drawn from, 0 where there are none."""
    rows: tuple[int, ...]
    """The place of each row in the step's whole batch: 0 to B - 1, or those of a part."""
