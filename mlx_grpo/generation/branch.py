"""Groups whose completions share a sampled prefix that ends at a given text, such as the key of a score.

GRPO gives a completion's reward to each of its tokens. If the decision to learn is made at one place, the completion
is drawn once up to that place, and only the rest `num_generations` times. The group then compares just what follows.
Its mean reward is a Monte Carlo estimate of the value at that place (VinePPO, arXiv:2410.01679; SPO,
arXiv:2505.23564). From there on the shared prefix is part of the prompt. It is run once, in training as in decoding.
It is not in the loss: on it a group's advantages would cancel in the policy's term, and it is left out of the KL too.
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
"""Shared prefixes are drawn from the random streams of row numbers that no step reaches."""


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
    """Sample a shared prefix for each prompt: a completion up to where its text first contains `branch_at`.

    A prompt gets none where the completion lacks that text or no token is left after it; its group is then drawn from
    the start. `first_group` is the place of the first prompt among those of the step.
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
    prefixes = [shared_prefix_of(policy.tokenizer, rollout.completion_ids, branch_at) for rollout in rollouts]
    return [
        with_shared_prefix(prompt, prefix if len(prefix) < sampling.max_tokens else ())
        for prompt, prefix in zip(prompts, prefixes, strict=True)
    ]


def with_shared_prefix(prompt: Prompt, shared_prefix_ids: Sequence[int]) -> Prompt:
    """Return the prompt with a shared prefix, or the same object where that is empty.

    The same object matters: groups are distinguished by the identity of their prompt.
    """
    return replace(prompt, shared_prefix_ids=tuple(shared_prefix_ids)) if shared_prefix_ids else prompt


def shared_prefix_of(tokenizer: TokenizerWrapper, token_ids: tuple[int, ...], branch_at: str) -> tuple[int, ...]:
    """Return the shortest run of first tokens whose text contains `branch_at`; () where the text lacks it.

    The text is the whole completion, including any thinking.
    """
    lengths = range(1, len(token_ids) + 1)
    return token_ids[: next((n for n in lengths if branch_at in decode_completion(tokenizer, token_ids[:n])), 0)]
