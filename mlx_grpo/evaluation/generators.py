"""Greedy completions of held-out prompts, by MLX or by PyTorch, batch by batch.

What is done is kept on disk until the whole evaluation is, so that an interrupted one continues.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path

from convert import torch_eval
from mlx_grpo.data.batch import batched
from mlx_grpo.data.types import Prompt
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.export.export import exported_model
from mlx_grpo.generation.nodes import shared_start
from mlx_grpo.generation.rollout import complete, decode_completion
from mlx_grpo.json_files import append_jsonl, read_jsonl
from mlx_grpo.models.policy import ADAPTER_CONFIG, ADAPTER_WEIGHTS, find_model, load_for_inference, load_tokenizer_of
from mlx_grpo.planning.rows import rows_that_fit
from mlx_grpo.runs import Run

OnBatch = Callable[[list[str]], None]
"""Given the completions of each finished batch, in the order of the prompts."""

Progress = Callable[[str, int, int], None]
"""Given a model's name, the number of its prompts that are completed, and the number of all."""

KEPT_TOGETHER = 16
"""Completions written to the file at a time, where no batch size is set."""

UNFINISHED = "completions.jsonl"
"""The file of an evaluation that is not finished."""


@dataclass(frozen=True, slots=True)
class GreedySettings:
    """All that greedy completions depend on, besides the model and the prompts."""

    backend: str
    """"mlx" or "torch"."""
    device: str
    dtype: str
    max_new_tokens: int
    batch_size: int | None
    """The most completions to decode together; None chooses by memory."""

    @property
    def kept_together(self) -> int:
        """Return how many completions are written to the file at a time."""
        return self.batch_size or KEPT_TOGETHER


class Completer:
    """Completes prompts with one model after another; rank 0 keeps each finished batch in a file."""

    def __init__(self, run: Run, settings: GreedySettings, folder: Path, progress: Progress, ranks: Ranks):
        self.run = run
        self.base = find_model(run.config.model)
        self.settings = settings
        self.store = folder / UNFINISHED
        self.progress = progress
        self.ranks = ranks

    def complete(self, name: str, adapter: Path | None, prompts: Sequence[Prompt]) -> list[str]:
        """Return greedy completions by the base or one of its adapters; `name` is the model's name for progress.

        Those of an interrupted evaluation, and of a model with the same weights, are read from the file.
        """
        key = self._key(adapter, prompts)
        texts: list[str] = self.ranks.from_leader(lambda: self._kept(key))

        def on_batch(batch: list[str]) -> None:
            if self.ranks.leads:
                append_jsonl(self.store, {"key": key, "texts": batch})
            texts.extend(batch)
            self.progress(name, len(texts), len(prompts))

        rest = prompts[len(texts) :]
        if rest and self.settings.backend == "torch":
            complete_with_torch(self.run, self.base, adapter, rest, self.settings, on_batch)
        elif rest:
            complete_with_mlx(self.base, adapter, rest, self.settings, self.ranks, on_batch)
        return texts

    def forget(self) -> None:
        """Remove the file, once everything is written elsewhere."""
        self.store.unlink(missing_ok=True)

    def _kept(self, key: str) -> list[str]:
        _drop_torn_line(self.store)
        return [text for record in read_jsonl(self.store) if record["key"] == key for text in record["texts"]]

    def _key(self, adapter: Path | None, prompts: Sequence[Prompt]) -> str:
        """Return a hash of everything that decides the completions, such as the contents of the adapter's files."""
        exported = adapter if self.settings.backend == "torch" else None  # PyTorch loads its run's export
        named = [*map(str, (*astuple(self.settings), self.base, exported))]
        digest = hashlib.sha256(json.dumps([*named, [prompt.token_ids for prompt in prompts]]).encode())
        if adapter is not None:
            for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
                digest.update((adapter / name).read_bytes())
        return digest.hexdigest()


def complete_with_mlx(
    base: Path,
    adapter: Path | None,
    prompts: Sequence[Prompt],
    settings: GreedySettings,
    ranks: Ranks,
    on_batch: OnBatch,
) -> None:
    """Complete prompts by MLX, in each round a batch on each rank; every rank is given all batches.

    A rank decodes all its batches as one stream. The rows beside a row change its logits in their last digits, so
    a completion may depend on the number of ranks, and on where an interrupted evaluation continued.
    """
    policy = load_for_inference(base, adapter, settings.dtype)
    batches = list(batched(prompts, settings.kept_together))
    own = [prompt for batch in batches[ranks.rank :: ranks.size] for prompt in batch]
    ids = [prompt.token_ids for prompt in own]
    longest = max(map(len, ids), default=0) + settings.max_new_tokens
    max_rows = rows_that_fit(policy.model, longest, settings.batch_size, ranks.size)
    start = shared_start(policy.model, ids) if ids else ()
    rollouts = complete(policy, own, settings.max_new_tokens, max_rows, start)
    for round_of_batches in batched(batches, ranks.size):
        # The last round may have fewer batches than ranks, and the last batch fewer prompts.
        rows = len(round_of_batches[ranks.rank]) if ranks.rank < len(round_of_batches) else 0
        for texts in ranks.gather([rollout.completion for rollout in islice(rollouts, rows)]):
            if texts:
                on_batch(texts)


def complete_with_torch(
    run: Run,
    base: Path,
    adapter: Path | None,
    prompts: Sequence[Prompt],
    settings: GreedySettings,
    on_batch: OnBatch,
) -> None:
    """Complete prompts by PyTorch; the model is exported first, into its run's folder, where that is needed."""
    folder = exported_model(Run(adapter.parent) if adapter else run, base, adapter, settings.dtype)
    tokenizer = load_tokenizer_of(base)
    torch_eval.generate(
        folder,
        [prompt.token_ids for prompt in prompts],
        max_new_tokens=settings.max_new_tokens,
        stop_ids=sorted(tokenizer.eos_token_ids),
        device=settings.device,
        batch_size=settings.batch_size or torch_eval.MOST_ROWS,
        on_batch=lambda batch: on_batch([decode_completion(tokenizer, ids) for ids in batch]),
    )


def _drop_torn_line(store: Path) -> None:
    """Cut off what a process killed while writing left without its line's end."""
    if store.is_file():
        data = store.read_bytes()
        store.write_bytes(data[: data.rfind(b"\n") + 1])
