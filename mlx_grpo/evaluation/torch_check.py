"""The trained model's first completions once more, in PyTorch from the exported folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import mean

from mlx_grpo.data.types import Prompt
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.evaluation.generators import Completer
from mlx_grpo.json_files import Record
from mlx_grpo.runs import ADAPTER

Score = Callable[[Sequence[Prompt], Sequence[str]], list[Record]]
"""From prompts and their completions to episodes."""


def check_in_torch(
    completer: Completer, prompts: Sequence[Prompt], episodes: Sequence[Record], score: Score, device: str
) -> Record:
    """Complete prompts by PyTorch; return their number, how many completions are MLX's, and both mean rewards.

    `episodes` are MLX's. Greedy completions part where two tokens are nearly as likely, so a few may differ.
    """
    own = Completer(
        completer.run,
        replace(completer.settings, backend="torch", device=device),
        completer.store.parent,
        completer.progress,
        Ranks(),  # PyTorch uses every core by itself, and the other ranks have ended
    )
    scored = score(prompts, own.complete("trained, in PyTorch", completer.run.folder / ADAPTER, prompts))
    pairs = list(zip(scored, episodes, strict=False))
    return {
        "episodes": len(pairs),
        "same": sum(torch["completion"] == mlx["completion"] for torch, mlx in pairs),
        "reward": _mean_reward([torch for torch, _ in pairs]),
        "reward_in_mlx": _mean_reward([mlx for _, mlx in pairs]),
        "device": device,
    }


def _mean_reward(episodes: Sequence[Record]) -> float | None:
    """Return the mean of the rewards, without those of completions that no reward function applies to."""
    rewards = [episode["reward"] for episode in episodes if not math.isnan(episode["reward"])]
    return mean(rewards) if rewards else None
