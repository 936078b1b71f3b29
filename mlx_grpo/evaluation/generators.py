"""Greedy completions of held-out prompts, by MLX or by PyTorch, batch by batch; an interrupted evaluation goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from convert import torch_eval
from mlx_grpo.data.jsonl import append_jsonl, read_jsonl
from mlx_grpo.data.types import Prompt
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.export.export import exported_model
from mlx_grpo.generation.rollout import decode_completion, generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.policy import ADAPTER_WEIGHTS, load_for_inference, load_tokenizer_of
from mlx_grpo.runs import Run

Keep = Callable[[list[str]], None]
"""Given each finished batch's completions."""

Complete = Callable[[Path, Path | None, Sequence[Prompt], Keep], None]
"""(base model, adapter or None, prompts, keep) -> greedy completions, handed on in their order."""

Generate = Callable[[str, Path, Path | None, Sequence[Prompt]], list[str]]
"""(name, base model, adapter or None, prompts) -> greedy completions."""

UNFINISHED = "completions.jsonl"
"""Where an evaluation keeps what is done, until all of it is."""


def mlx_completions(max_new_tokens: int, batch_size: int, dtype: str, ranks: Ranks) -> Complete:
    """Greedy completions by MLX, a batch at a time on each rank; batches are those of one rank alone."""

    def complete(base: Path, adapter: Path | None, prompts: Sequence[Prompt], keep: Keep) -> None:
        policy = load_for_inference(base, adapter, dtype)
        batches = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
        for first in range(0, len(batches), ranks.size):
            at = first + ranks.rank  # past the end where the last round has fewer batches than ranks
            sampling = Sampling(max_new_tokens, temperature=0)
            rollouts = generate(policy, batches[at], 1, sampling) if at < len(batches) else []
            for texts in filter(None, ranks.gather([rollout.completion for rollout in rollouts])):
                keep(texts)

    return complete


def torch_completions(run: Run, max_new_tokens: int, batch_size: int, device: str, dtype: str) -> Complete:
    """Greedy completions by PyTorch, each model exported to the run's folder first where that is needed."""

    def complete(base: Path, adapter: Path | None, prompts: Sequence[Prompt], keep: Keep) -> None:
        folder = exported_model(Run(adapter.parent) if adapter else run, base, adapter, dtype)
        tokenizer = load_tokenizer_of(base)
        torch_eval.generate(
            folder,
            [prompt.token_ids for prompt in prompts],
            max_new_tokens=max_new_tokens,
            stop_ids=sorted(tokenizer.eos_token_ids),
            device=device,
            batch_size=batch_size,
            on_batch=lambda batch: keep([decode_completion(tokenizer, ids) for ids in batch]),
        )

    return complete


def remembered(
    complete: Complete, store: Path, settings: Sequence[object], progress: Callable[[str, int, int], None], ranks: Ranks
) -> Generate:
    """Completions that are written to `store` by the batch and read from there when asked for again, by rank 0.

    `settings` are whatever else they depend on. Batches stay whole, so what is done later is what it would have been.
    `progress` is told the model's name and how many prompts are done, of how many.
    """
    if ranks.leads:
        _drop_torn_line(store)

    def kept(name: str, base: Path, adapter: Path | None, prompts: Sequence[Prompt]) -> list[str]:
        key = _key(settings, base, adapter, prompts)
        texts = ranks.from_leader(lambda: [text for r in read_jsonl(store) if r["key"] == key for text in r["texts"]])

        def keep(batch: list[str]) -> None:
            if ranks.leads:
                append_jsonl(store, {"key": key, "texts": batch})
            texts.extend(batch)
            progress(name, len(texts), len(prompts))

        if len(texts) < len(prompts):
            complete(base, adapter, prompts[len(texts) :], keep)
        return texts

    return kept


def _key(settings: Sequence[object], base: Path, adapter: Path | None, prompts: Sequence[Prompt]) -> str:
    digest = hashlib.sha256(
        json.dumps([*map(str, (*settings, base, adapter)), [p.token_ids for p in prompts]]).encode()
    )
    if adapter is not None:
        digest.update((adapter / ADAPTER_WEIGHTS).read_bytes())
    return digest.hexdigest()


def _drop_torn_line(store: Path) -> None:
    """Cut off what a process killed while writing left without its line's end."""
    if store.is_file():
        data = store.read_bytes()
        store.write_bytes(data[: data.rfind(b"\n") + 1])
