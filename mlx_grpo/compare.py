"""`mlx-grpo eval`: complete, score, summarize, draw and print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from rich.console import Console

from convert.torch_eval import pick_device
from mlx_grpo import tables
from mlx_grpo.completions import mlx_completions, torch_completions
from mlx_grpo.evaluate import evaluate
from mlx_grpo.exporting import refresh_card, trained_dtype
from mlx_grpo.plots import draw_all
from mlx_grpo.runs import RESULTS, find_run, read_config


def compare(
    name: str | None,
    *,
    backend: str,
    device: str,
    episodes: int | None,
    max_new_tokens: int | None,
    progress: Callable[[str, int, int], None],
) -> tuple[dict[str, Any], list[Path]]:
    """Evaluate a run and draw its pictures; returns the results and the paths of what was written."""
    run = find_run(name)
    config = read_config(run)
    tokens = max_new_tokens or config.eval.max_new_tokens
    total = episodes or config.eval.episodes

    def report(model: str, done: int) -> None:
        progress(model, done, total)

    dtype = trained_dtype(config.fine_tune_type, config.dtype)
    if backend == "torch":
        device = pick_device(device)
        complete = torch_completions(run, tokens, config.eval.batch_size, device, dtype, report)
    else:
        device = str(mx.default_device().type).rpartition(".")[2]
        complete = mlx_completions(tokens, config.eval.batch_size, dtype, report)
    results = evaluate(run, complete, episodes=episodes, backend=backend, device=device, max_new_tokens=tokens)
    pictures = draw_all(run, results)
    refresh_card(run)
    return results, [run / RESULTS, *pictures]


def print_comparison(console: Console, results: dict[str, Any], written: list[Path]) -> None:
    """The card's two tables, what GRPO added to the warm start, and where everything is."""
    place = f"{results['backend']} on {results['device']}"
    console.print(
        f"{results['model']}: {results['n_episodes']} held-out prompts, greedy, "
        f"up to {results['max_new_tokens']} tokens, {place}",
        highlight=False,
        markup=False,
    )
    console.print(tables.console_table(*tables.headline(results), title="Headline"))
    console.print(tables.console_table(*tables.components(results), title="Components"))
    gain = tables.grpo_gain(results)
    if gain:
        console.print(gain, highlight=False, markup=False)
    for path in written:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)
