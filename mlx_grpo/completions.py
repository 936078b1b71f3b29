"""Greedy completions of held-out prompts, by MLX or by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from convert import torch_eval
from mlx_grpo.exporting import exported_model
from mlx_grpo.policy import load_for_inference, load_tokenizer_of
from mlx_grpo.rollout import decode_completion, generate
from mlx_grpo.sampling import Sampling
from mlx_grpo.types import Prompt

Generate = Callable[[str, Path, Path | None, Sequence[Prompt]], list[str]]
"""(name, base model, adapter or None, prompts) -> greedy completions."""

Progress = Callable[[str, int], None]
"""(name of the model, prompts done)."""


def mlx_completions(max_new_tokens: int, batch_size: int, dtype: str, progress: Progress) -> Generate:
    """Greedy completions by MLX, a batch at a time."""

    def complete(name: str, base: Path, adapter: Path | None, prompts: Sequence[Prompt]) -> list[str]:
        policy = load_for_inference(base, adapter, dtype)
        texts: list[str] = []
        for start in range(0, len(prompts), batch_size):
            rollouts = generate(policy, prompts[start : start + batch_size], 1, Sampling(max_new_tokens, temperature=0))
            texts += [rollout.completion for rollout in rollouts]
            progress(name, len(texts))
        return texts

    return complete


def torch_completions(
    run: Path, max_new_tokens: int, batch_size: int, device: str, dtype: str, progress: Progress
) -> Generate:
    """Greedy completions by PyTorch, each model exported to the run's folder first where that is needed."""

    def complete(name: str, base: Path, adapter: Path | None, prompts: Sequence[Prompt]) -> list[str]:
        folder = exported_model(adapter.parent if adapter else run, base, adapter, dtype)
        tokenizer = load_tokenizer_of(base)
        stop_ids = sorted(tokenizer.eos_token_ids)
        token_ids = torch_eval.generate(
            folder,
            [prompt.token_ids for prompt in prompts],
            max_new_tokens=max_new_tokens,
            stop_ids=stop_ids,
            device=device,
            batch_size=batch_size,
            progress=lambda done: progress(name, done),
        )
        return [decode_completion(tokenizer, ids) for ids in token_ids]

    return complete
