"""`mlx-grpo eval`: complete, score, summarize, draw and print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from convert.torch_eval import pick_device
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.episodes import evaluate
from mlx_grpo.evaluation.generators import UNFINISHED, Complete, mlx_completions, remembered, torch_completions
from mlx_grpo.export.export import refresh_card
from mlx_grpo.models.policy import trained_dtype
from mlx_grpo.reporting.plots_eval import draw_evaluation
from mlx_grpo.reporting.plots_training import draw_training
from mlx_grpo.runs import EPISODES, RESULTS, Run, write_results


def run_eval(
    name: str | None,
    *,
    backend: str,
    device: str,
    episodes: int | None,
    max_new_tokens: int | None,
    progress: Callable[[str, int, int], None],
    others: Sequence[str] = (),
    out: Path | None = None,
    ranks: Ranks | None = None,
) -> tuple[dict[str, Any], list[Path]]:
    """Evaluate a run, beside `others` where given, and draw its pictures, in the run's folder or in `out`.

    Returns the results and the paths of what was written. MLX's completions are shared by the `ranks`, of which the
    first one writes.
    """
    ranks = ranks or Ranks()
    run = Run.find(name)
    runs = [run, *map(Run.find, others)]
    folder = out or run.folder
    _make(folder)  # before the work, not after it
    config = run.config
    tokens = max_new_tokens or config.eval.max_new_tokens
    dtype = trained_dtype(config.fine_tune_type, config.dtype)
    device, complete = _completer(backend, device, run, tokens, config.eval.batch_size, dtype, ranks)
    store = folder / UNFINISHED
    generate = remembered(complete, store, (backend, device, dtype, tokens, config.eval.batch_size), progress, ranks)
    results = evaluate(
        runs, generate, episodes=episodes, backend=backend, device=device, max_new_tokens=tokens, leads=ranks.leads
    )
    if not ranks.leads:
        return results, []
    write_results(results, folder)
    store.unlink(missing_ok=True)
    pictures = [*draw_training(run.metrics_file, folder / "plots"), *draw_evaluation(results, folder / "plots")]
    if out is None:
        refresh_card(run)
    return results, [folder / RESULTS, folder / EPISODES, *pictures]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: {folder} can't be made ({error.strerror}); choose another folder") from None


def _completer(
    backend: str, device: str, run: Run, tokens: int, batch_size: int, dtype: str, ranks: Ranks
) -> tuple[str, Complete]:
    """The device that "auto" means or that was asked for, and what completes on it; UserError where it is not there."""
    if backend == "torch":
        if ranks.size > 1:
            raise UserError("--backend torch: PyTorch uses every core by itself; add --backend mlx to share prompts")
        device = pick_device(device)
        return device, torch_completions(run, tokens, batch_size, device, dtype)
    present = str(mx.default_device().type).rpartition(".")[2]
    if device not in ("auto", present):
        raise UserError(f"--device {device}: MLX computes on the {present} here; leave it out, or use torch")
    return present, mlx_completions(tokens, batch_size, dtype, ranks)
