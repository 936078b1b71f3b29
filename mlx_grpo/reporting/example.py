"""One held-out prompt's completions before and after training, to read."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from mlx_grpo.json_files import Record
from mlx_grpo.reporting.tables import BASELINE, NOTHING
from mlx_grpo.runs import Episodes

INDENT = "  "


def typical(episodes: Episodes) -> int:
    """Return the place of the prompt whose gain in reward is the median one; 0 where no prompt has a reward."""
    gains = [after["reward"] - before["reward"] for before, after in zip(*_pair(episodes), strict=True)]
    order = sorted((place for place, gain in enumerate(gains) if not math.isnan(gain)), key=gains.__getitem__)
    return order[len(order) // 2] if order else 0


def example_lines(episodes: Episodes, width: int) -> list[str]:
    """Return the typical prompt's completions of the base and the trained model, wrapped to `width` columns."""
    place = typical(episodes)
    before, after = (own[place] for own in _pair(episodes))
    lines = [f"One prompt, {before['prompt_id']}, whose gain in reward is the median:"]
    for name, episode in (("before", before), ("after", after)):
        lines += [f"{name}, {_verdict(episode)}", *_wrapped(episode["completion"], width)]
    return lines


def _pair(episodes: Episodes) -> tuple[Sequence[Record], Sequence[Record]]:
    return episodes[BASELINE], episodes["trained"]


def _verdict(episode: Record) -> str:
    right = f", {'right' if episode['correct'] else 'wrong'}" if "correct" in episode else ""
    reward = NOTHING if math.isnan(episode["reward"]) else f"{episode['reward']:.2f}"
    return f"reward {reward}{right}:"


def _wrapped(text: str, width: int) -> list[str]:
    lines = text.strip().splitlines() or ["(nothing)"]
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, width, initial_indent=INDENT, subsequent_indent=INDENT) or [""]
    ]
