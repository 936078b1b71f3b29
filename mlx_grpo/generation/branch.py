"""Groups whose completions begin alike and part at a text, such as the score of a verdict after its reasons.

GRPO lays a completion's reward on every token of it, right or lucky. Where what is to be learned stands at one place,
drawing the completion once up to that place and only the rest `num_generations` times compares just what follows it:
the mean of the group is then a Monte Carlo estimate of the value at that place (VinePPO, arXiv:2410.01679; SPO,
arXiv:2505.23564). The shared beginning is part of the prompt from there on: run once, in training as in decoding,
and not in the loss, neither in the policy's term, where the group's advantages would cancel on it, nor in the KL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_grpo.data.types import Prompt
from mlx_grpo.generation.rollout import OnToken, decode_completion, generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.policy import Policy

SHARED_PREFIX_ROWS = 2**32
"""Stems draw from the streams of rows that no step has."""


def draw_shared_prefixes(
    policy: Policy,
    prompts: Sequence[Prompt],
    branch_at: str,
    sampling: Sampling,
    *,
    seed: int,
    step: int,
    first_group: int,
    on_token: OnToken | None = None,
) -> list[Prompt]:
    """The prompts, each with a stem drawn for it: a completion up to where its text first holds `branch_at`.

    Without that text, or with no token left to go on, there is no stem, and the group is drawn from the start.
    `first_group` is the place of the first prompt among those of the step.
    """
    rollouts = generate(
        policy,
        prompts,
        1,
        sampling,
        seed=seed,
        step=step,
        first_row=SHARED_PREFIX_ROWS + first_group,
        on_token=on_token,
    )
    stems = [shared_prefix_of(policy.tokenizer, rollout.completion_ids, branch_at) for rollout in rollouts]
    return [
        with_shared_prefix(prompt, stem if len(stem) < sampling.max_tokens else ())
        for prompt, stem in zip(prompts, stems, strict=True)
    ]


def with_shared_prefix(prompt: Prompt, shared_prefix_ids: Sequence[int]) -> Prompt:
    """The prompt with a stem; itself where that is empty, since groups are told apart by their prompt's identity."""
    return replace(prompt, shared_prefix_ids=tuple(shared_prefix_ids)) if shared_prefix_ids else prompt


def shared_prefix_of(tokenizer: TokenizerWrapper, token_ids: tuple[int, ...], branch_at: str) -> tuple[int, ...]:
    """The fewest of the first tokens whose text holds `branch_at`, whole tokens; none where the text does not.

    The text is all that was written, a thought included.
    """
    lengths = range(1, len(token_ids) + 1)
    return token_ids[: next((n for n in lengths if branch_at in decode_completion(tokenizer, token_ids[:n])), 0)]
